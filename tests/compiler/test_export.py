"""`export` writes what the dataset holds, for tools that do not read shards; what is there under its name is whole."""

from __future__ import annotations

import gc
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from compiler.exports.export import export
from compiler.exports.rle import Runs, compress, pixels
from compiler.storage.published import Published
from loaders.content import read_array
from loaders.manifest import Manifest
from loaders.tarstream import read_samples
from tests.commands import COMMAND, forked
from tests.hostile import ESCAPE, reseal
from tests.planned_dataset import Recipe, make

NAMES = [f"corner{at}" for at in range(8)]
CUBE = {"id": 1, "name": "cube: a 'box'", "keypoints": NAMES, "skeleton": [[1, 2], [2, 8]], "colors": []}
RECIPE = Recipe(passes=("segmentation",), categories=[CUBE], objects=3)
STEREO = replace(RECIPE, cameras=("left", "right"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset with masks, keypoints and two splits."""
    return made(tmp_path_factory.mktemp("dataset") / "cubes", RECIPE)


@pytest.fixture(scope="module")
def stereo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of two cameras."""
    return made(tmp_path_factory.mktemp("stereo") / "cubes", STEREO)


def made(folder: Path, recipe: Recipe) -> Path:
    make(folder, recipe)
    reseal(folder, lambda manifest: manifest["shards"][1].update(split="val"))
    return folder


def samples(folder: Path) -> Iterator[tuple[str, str, dict[str, bytes]]]:
    """Yield split, key and members."""
    for shard in Manifest.load(folder).shards:
        with (folder / shard.name).open("rb") as file:
            yield from ((shard.split, sample.key, sample.members) for sample in read_samples(file))


def files(folder: Path) -> dict[str, bytes]:
    """Return the content of all files below a folder, by their paths."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def decoded(text: str) -> list[int]:
    """Return the runs that COCO's text holds, as its format describes it."""
    counts: list[int] = []
    value = shift = 0
    for sign in text.encode():
        code = sign - 48
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            if code & 16:
                value -= 1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts


def painted(counts: list[int], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the mask of the runs."""
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return flat.reshape(shape, order="F")


@pytest.mark.parametrize(
    "mask",
    [
        np.zeros((5, 7)),
        np.ones((5, 7)),
        np.eye(6),
        1 - np.eye(6),
        np.random.default_rng(1).random((40, 30)) < 0.4,
        np.random.default_rng(2).random((300, 400)) < 0.001,
        np.pad(np.ones((90, 2000)), ((3, 3), (40, 4000))),
    ],
    ids=["none", "all", "diagonal", "but-diagonal", "noise", "sparse", "large"],
)
def test_a_mask_comes_back_from_its_runs(mask: NDArray[Any]) -> None:
    labels = mask.astype(np.uint16) * 7
    labels[0, 0] = labels[0, 0] or 3  # another object, next to it
    counts = Runs(labels).counts(7)
    np.testing.assert_array_equal(painted(counts, labels.shape), labels == 7)
    assert pixels(counts) == (labels == 7).sum()
    assert decoded(compress(counts)) == counts
    assert all(counts[1:])


@pytest.mark.parametrize(("name", "cameras"), [("dataset", [""]), ("stereo", ["left.", "right."])])
def test_coco_holds_the_images_boxes_masks_and_keypoints_of_the_samples(
    name: str, cameras: list[str], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(name)
    done = forked("export", "coco", folder, tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    found = files(tmp_path / "out")
    read = {split: json.loads(found.pop(f"annotations/instances_{split}.json")) for split in ("train", "val")}
    assert said["tasks"] == ["detect", "segment", "pose"]
    assert json.loads(found.pop("export.json"))["holds"] == {key: said[key] for key in ("splits", "left_out")}
    images = {
        (split, image["file_name"]): (image, [one for one in coco["annotations"] if one["image_id"] == image["id"]])
        for split, coco in read.items()
        for image in coco["images"]
    }
    for split, key, members in samples(folder):
        for camera in cameras:
            assert found.pop(f"images/{split}/{key}.{camera}png") == members[f"{camera}png"]
            image, objects = images.pop((split, f"{key}.{camera}png"))
            _held(image, objects, members, camera)
    assert not found, "nothing else was written"
    assert not images
    for split, coco in read.items():
        (category,) = coco["categories"]
        assert category == {
            "id": 1, "name": "cube: a 'box'", "supercategory": "", "keypoints": NAMES, "skeleton": [[1, 2], [2, 8]],
        }  # fmt: skip
        assert [entry["id"] for entry in coco["annotations"]] == list(range(1, len(coco["annotations"]) + 1))
        assert said["splits"][split] == {"images": len(coco["images"]), "objects": len(coco["annotations"])}
    assert {split: counts["images"] for split, counts in said["splits"].items()} == {
        "train": 10 * len(cameras), "val": 5 * len(cameras),
    }  # fmt: skip


def _held(image: dict[str, Any], objects: list[dict[str, Any]], members: dict[str, bytes], camera: str) -> None:
    labels = read_array(members[f"{camera}segmentation.npy"])
    given = json.loads(members[f"{camera}json"])["objects"]
    assert (image["height"], image["width"]) == labels.shape
    assert len(objects) == len(given) == 3
    for entry, label in zip(given, objects, strict=True):
        assert label["bbox"] == entry["bbox"]
        assert label["category_id"] == entry["category_id"]
        assert label["iscrowd"] == 0
        assert label["segmentation"]["size"] == list(labels.shape)
        mask = painted(decoded(label["segmentation"]["counts"]), labels.shape)
        np.testing.assert_array_equal(mask, labels == entry["segmentation_id"])
        assert label["area"] == mask.sum() > 0
        assert label["num_keypoints"] == entry["num_keypoints"]
        rows, due = np.reshape(label["keypoints"], (8, 3)), np.reshape(entry["keypoints"], (8, 3))
        np.testing.assert_array_equal(rows, due * (due[:, 2:] > 0))


@pytest.mark.parametrize("task", ["detect", "segment", "pose"])
def test_a_task_names_the_labels_of_coco(task: str, dataset: Path, tmp_path: Path) -> None:
    done = forked("export", "coco", dataset, tmp_path / "out", "--task", task)
    assert done.returncode == 0, done.stderr
    coco = json.loads((tmp_path / "out/annotations/instances_train.json").read_bytes())
    for entry in coco["annotations"]:
        assert ("segmentation" in entry) == (task == "segment")
        assert ("keypoints" in entry) == ("num_keypoints" in entry) == (task == "pose")
        assert entry["area"] != 12.0, "the pixels of the mask"
    assert ("skeleton" in coco["categories"][0]) == (task == "pose")


@pytest.mark.parametrize("task", ["detect", "pose"])
def test_yolo_holds_shares_of_the_image(task: str, stereo: Path, tmp_path: Path) -> None:
    done = forked("export", "yolo", stereo, tmp_path / "out", "--task", task)
    assert done.returncode == 0, done.stderr
    found = files(tmp_path / "out")
    del found["export.json"]
    assert found.pop("data.yaml").decode().splitlines() == [
        '"train": "images/train"',
        '"val": "images/val"',
        *(["kpt_shape: [8, 3]"] if task == "pose" else []),
        "names:",
        '''  0: "cube: a 'box'"''',
    ]
    width, height = STEREO.size
    for split, key, members in samples(stereo):
        for camera in ("left", "right"):
            assert found.pop(f"images/{split}/{key}.{camera}.png") == members[f"{camera}.png"]
            lines = found.pop(f"labels/{split}/{key}.{camera}.txt").decode().splitlines()
            given = json.loads(members[f"{camera}.json"])["objects"]
            for line, entry in zip(lines, given, strict=True):
                number, x, y, w, h, *points = map(float, line.split())
                box = [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]
                np.testing.assert_allclose(box, entry["bbox"], atol=1e-6 * width)
                assert number == 0
                if task == "pose":
                    due = np.reshape(entry["keypoints"], (8, 3))
                    rows = np.reshape(points, (8, 3)) * [width, height, 1]
                    np.testing.assert_allclose(rows, due * (due[:, 2:] > 0), atol=1e-6 * width)
                else:
                    assert not points
    assert not found


def test_yolo_without_a_split_to_validate_on_says_so(tmp_path: Path) -> None:
    make(tmp_path / "cubes", Recipe(shards=1))
    assert forked("export", "yolo", tmp_path / "cubes", tmp_path / "out").returncode == 0
    assert '\nval: "images/train" # the dataset has no split val' in (tmp_path / "out/data.yaml").read_text()


def test_files_are_the_members(stereo: Path, tmp_path: Path) -> None:
    assert forked("export", "files", stereo, tmp_path / "out").returncode == 0
    found = files(tmp_path / "out")
    del found["export.json"]
    assert found == {
        f"{split}/{key}.{name}": content for split, key, members in samples(stereo) for name, content in members.items()
    }


def test_an_object_that_is_not_in_sight_has_no_label_and_is_counted(tmp_path: Path) -> None:
    """Of four, no pixel shows one more than the ids drawn; the boxes of another dataset have no area."""
    recipe = replace(RECIPE, shards=1, samples_per_shard=2)
    _publish(tmp_path / "hidden", recipe, lambda entry: entry.update(segmentation_id=entry["segmentation_id"] + 1))
    _publish(tmp_path / "outside", recipe, lambda entry: entry.update(bbox=[0.0, 0.0, 0.0, 0.0]))
    for name, reason, left, kept in (("hidden", "hidden", 2, 4), ("outside", "outside the image", 6, 0)):
        for kind in ("coco", "yolo"):
            done = forked("export", kind, tmp_path / name, tmp_path / f"{name}-{kind}", "--json")
            assert done.returncode == 0, done.stderr
            said = json.loads(done.stdout)
            assert said["left_out"] == {reason: left}
            assert said["splits"] == {"train": {"images": 2, "objects": kept}}


def _publish(folder: Path, recipe: Recipe, change: Any) -> None:
    """Make a dataset with its objects changed, all digests as they should be."""

    class Changed(Recipe):
        def _view(self, *given: Any) -> dict[str, bytes]:
            members = super()._view(*given)
            annotations = json.loads(members["json"])
            for entry in annotations["objects"]:
                change(entry)
            return {**members, "json": json.dumps(annotations).encode()}

    make(folder, Changed(**vars(recipe)))


@pytest.mark.parametrize(
    ("recipe", "words", "said"),
    [
        ({"passes": ()}, ["coco", "--task", "segment"], "--passes segmentation"),
        ({"categories": []}, ["coco"], "declare categories in the job"),
        ({"categories": []}, ["yolo"], "declare categories in the job"),
        ({"categories": [{**CUBE, "keypoints": [], "skeleton": []}]}, ["coco", "--task", "pose"], "box_category(name)"),
        ({"categories": [{**CUBE, "keypoints": [], "skeleton": []}]}, ["yolo", "--task", "pose"], "box_category(name)"),
        ({"categories": [CUBE, {**CUBE, "id": 2, "keypoints": NAMES[:2], "skeleton": []}]},
         ["yolo", "--task", "pose"], "YOLO needs the same number of keypoints"),
        ({}, ["yolo", "--task", "segment"], "cannot hold a mask with holes"),
        ({}, ["files", "--task", "pose"], "leave it out"),
        ({"shards": 0}, ["files"], "no finished shard"),
    ],
)  # fmt: skip
def test_what_the_dataset_lacks_is_refused_with_what_would_give_it(
    recipe: dict[str, Any], words: list[str], said: str, tmp_path: Path
) -> None:
    make(tmp_path / "cubes", replace(RECIPE, **recipe))
    done = forked("export", words[0], tmp_path / "cubes", tmp_path / "out", *words[1:])
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 2, "what is wrong, and what to do"
    assert {path.name for path in tmp_path.iterdir()} == {"cubes"}


@pytest.mark.parametrize("kind", ["coco", "yolo", "files"])
def test_the_same_dataset_gives_the_same_bytes_and_a_second_run_nothing_to_do(
    kind: str, dataset: Path, tmp_path: Path
) -> None:
    (tmp_path / "two").mkdir()  # an empty folder may be there
    for name in ("one", "two"):
        assert forked("export", kind, dataset, tmp_path / name).returncode == 0
    assert files(tmp_path / "one") == files(tmp_path / "two")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "one").rglob("*")}
    again = forked("export", kind, dataset, tmp_path / "one")
    assert again.returncode == 0
    assert "was there already" in again.stdout
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "one").rglob("*")}
    assert {path.name for path in tmp_path.iterdir()} == {"one", "two"}


@pytest.mark.parametrize("kind", ["coco", "files"])
def test_a_killed_export_has_no_name_and_is_continued(kind: str, tmp_path: Path) -> None:
    folder = made(tmp_path / "cubes", replace(RECIPE, samples_per_shard=60))
    assert forked("export", kind, folder, tmp_path / "whole").returncode == 0
    part = tmp_path / "out.part"
    process = subprocess.Popen([COMMAND, "export", kind, folder, tmp_path / "out", "--quiet"])
    while process.poll() is None and len(list(part.rglob("*.png"))) < 5:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was too fast"
    assert not (tmp_path / "out").exists()
    assert json.loads((part / "export.json").read_bytes())["holds"] is None
    written = min(part.rglob("*.png"), key=lambda path: path.name)
    untouched = written.stat().st_mtime_ns
    torn = sorted(part.rglob("*.png"))[1]
    torn.write_bytes(torn.read_bytes()[:-5])
    assert forked("export", kind, folder, tmp_path / "out").returncode == 0
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    assert not part.exists()
    kept = tmp_path / "out" / written.relative_to(part)
    assert kept.stat().st_mtime_ns == untouched, "what was written is kept"


def test_what_is_in_the_way_is_refused_and_kept(dataset: Path, tmp_path: Path) -> None:
    assert forked("export", "yolo", dataset, tmp_path / "yolo").returncode == 0
    (tmp_path / "file").write_bytes(b"precious")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_bytes(b"precious")
    (tmp_path / "taken.part").mkdir()
    (tmp_path / "taken.part/file").write_bytes(b"precious")
    (tmp_path / "link.part").symlink_to(tmp_path / "full")
    before = files(tmp_path)
    for name in ("yolo", "file", "full", "taken", "link", dataset):
        done = forked("export", "coco", dataset, tmp_path / name)
        assert done.returncode == 2, name
        assert done.stderr.startswith("Error: ")
        assert len(done.stderr.splitlines()) == 2
    assert files(tmp_path) == before
    assert forked("export", "coco", tmp_path / "nowhere", tmp_path / "new").returncode == 2
    assert forked("export", "bmp", dataset, tmp_path / "new").returncode == 2


def test_a_damaged_sample_is_not_exported(tmp_path: Path) -> None:
    folder = made(tmp_path / "cubes", RECIPE)
    path = min(folder.glob("*.tar"))
    content = bytearray(path.read_bytes())
    content[5000] ^= 1
    path.write_bytes(content)
    for kind in ("coco", "yolo", "files"):
        done = forked("export", kind, folder, tmp_path / kind)
        assert done.returncode == 3, done.stderr
        assert "verify says what is damaged" in done.stderr
        assert not (tmp_path / kind).exists()
    path.unlink()
    assert forked("export", "files", folder, tmp_path / "files").returncode == 3


@pytest.mark.parametrize("split", ["../../precious", "/tmp", "", ESCAPE, "a/b", ".."])
def test_a_split_leads_nowhere_else(split: str, tmp_path: Path) -> None:
    make(tmp_path / "a/cubes", RECIPE)
    reseal(tmp_path / "a/cubes", lambda manifest: manifest["shards"][0].update(split=split))
    before = files(tmp_path)
    for kind in ("coco", "files"):
        done = forked("export", kind, tmp_path / "a/cubes", tmp_path / "a/out")
        assert done.returncode == 2
        assert "cannot name a split" in done.stderr
        assert "\x1b" not in done.stderr
    assert files(tmp_path) == before


def test_a_link_among_what_was_begun_is_not_followed(dataset: Path, tmp_path: Path) -> None:
    """In a folder that others write to, too."""
    (tmp_path / "precious").mkdir()
    part = tmp_path / "out.part"
    for name in ("files", "file"):
        assert forked("export", "files", dataset, tmp_path / "out").returncode == 0
        (tmp_path / "out").rename(part)
        if name == "files":
            (part / "val").rename(part / "away")
            (part / "val").symlink_to(tmp_path / "precious")
        else:
            image = min((part / "val").glob("*.png"))
            image.unlink()
            image.symlink_to(tmp_path / "precious" / "new")
        done = forked("export", "files", dataset, tmp_path / "out")
        assert done.returncode == 1
        assert "link" in done.stderr
        assert list((tmp_path / "precious").iterdir()) == []
        part.rename(tmp_path / f"was-{name}")


def test_progress_is_on_stderr_and_quiet_shows_none(dataset: Path, tmp_path: Path) -> None:
    loud, quiet = (forked("export", "files", dataset, tmp_path / name, *words) for name, words in
                   (("a", []), ("b", ["--quiet"])))  # fmt: skip
    assert loud.stderr.startswith("cubes: 15/15 samples")
    assert quiet.stderr == ""
    assert loud.stdout.splitlines()[0] == "train: 10 samples, 40 files"
    assert quiet.stdout.splitlines()[-1] == f"{tmp_path / 'b'}: files"


def test_nothing_of_a_sample_is_kept_once_it_is_written(tmp_path: Path) -> None:
    """Else memory would grow with the dataset: these samples' objects take several blocks each."""
    make(tmp_path / "cubes", replace(RECIPE, shards=2, samples_per_shard=15, objects=30))
    blocks = {}

    def count(_: int, done: int) -> None:
        if done in (10, 30):
            gc.collect()
            blocks[done] = sys.getallocatedblocks()

    export(Published.load(tmp_path / "cubes"), "coco", None, tmp_path / "out", count)
    assert blocks[30] - blocks[10] < 20 * 30
