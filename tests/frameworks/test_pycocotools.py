"""`compile-dataset export coco` as pycocotools reads it: the truth against itself is perfect, and masks are equal."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loaders.content import read_array
from loaders.manifest import Manifest
from loaders.tarstream import read_samples
from tests.commands import forked
from tests.frameworks import REQUIREMENTS, framework
from tests.pages import ROOT
from tests.planned_dataset import Recipe, make

coco = framework("pycocotools.coco")
cocoeval = framework("pycocotools.cocoeval")

NAMES = [f"corner{at}" for at in range(8)]
CATEGORIES = [{"id": 1, "name": "cube", "keypoints": NAMES, "skeleton": [[1, 2]], "colors": []}]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("coco")
    make(folder / "cubes", Recipe(passes=("segmentation",), categories=CATEGORIES, objects=3, size=(64, 48)))
    done = forked("export", "coco", folder / "cubes", folder / "out")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def truth(dataset: Path) -> Any:
    return coco.COCO(dataset / "out/annotations/instances_train.json")


@pytest.mark.parametrize("kind", ["bbox", "segm", "keypoints"])
def test_the_truth_against_itself_is_perfect(kind: str, truth: Any, dataset: Path) -> None:
    found = [{**entry, "score": 1.0} for entry in truth.dataset["annotations"]]
    assert len(found) == 3 * len(truth.imgs) == 45
    evaluation = cocoeval.COCOeval(truth, truth.loadRes(found), kind)
    evaluation.params.kpt_oks_sigmas = np.full(8, 0.05)
    evaluation.params.areaRng = evaluation.params.areaRng[:1]
    evaluation.params.areaRngLbl = evaluation.params.areaRngLbl[:1]
    evaluation.evaluate()
    evaluation.accumulate()
    precision, recall = evaluation.eval["precision"][..., -1], evaluation.eval["recall"][..., -1]
    assert precision.size == 10 * 101, "IoU from 0.5 to 0.95, 101 recalls"
    assert (precision == 1.0).all()
    assert (recall == 1.0).all()


def test_the_page_names_the_version() -> None:
    page = (ROOT / "docs/how-to/export.md").read_text(encoding="utf-8")
    assert f"pycocotools {version('pycocotools')}" in page
    assert f"\npycocotools=={version('pycocotools')}\n" in REQUIREMENTS.read_text(encoding="utf-8")


def test_its_masks_are_those_of_the_shards(truth: Any, dataset: Path) -> None:
    masks = {
        image["file_name"]: [truth.annToMask(entry) for entry in truth.imgToAnns[image["id"]]]
        for image in truth.dataset["images"]
    }
    for shard in Manifest.load(dataset / "cubes").shards:
        with (dataset / "cubes" / shard.name).open("rb") as file:
            for sample in read_samples(file):
                labels = read_array(sample.members["segmentation.npy"])
                objects = json.loads(sample.members["json"])["objects"]
                for entry, mask in zip(objects, masks.pop(f"{sample.key}.png"), strict=True):
                    np.testing.assert_array_equal(mask, labels == entry["segmentation_id"])
    assert not masks
