"""Keypoints stay on what they mark through albumentations and kornia: half a pixel off before, on after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import loaders
from tests.frameworks import framework
from tests.frameworks.markers import HEIGHT, WIDTH, assert_on_markers, found_in, make, points_of

albumentations = framework("albumentations")
augmentation = framework("kornia.augmentation")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("albumentations") / "markers")


ALBUMENTATIONS = {
    "none": [],
    "flip": [albumentations.HorizontalFlip(p=1)],
    "upside-down": [albumentations.VerticalFlip(p=1)],
    "crop": [albumentations.RandomCrop(60, 80)],
    "rotate": [albumentations.Rotate((15, 15), p=1)],
    "affine": [albumentations.Affine(rotate=(-10, -10), scale=(1.1, 1.1), translate_px=(3, 3), p=1)],
}
ALBUMENTATIONS["all"] = [ALBUMENTATIONS[name][0] for name in ("flip", "rotate", "crop", "upside-down")]


@pytest.mark.parametrize("name", ALBUMENTATIONS)
def test_albumentations(dataset: Path, name: str) -> None:
    points = albumentations.KeypointParams(format="xy", remove_invisible=False)
    augment = albumentations.Compose(ALBUMENTATIONS[name], keypoint_params=points, seed=3)

    def transform(sample: dict[str, Any]) -> dict[str, Any]:
        keypoints = sample["keypoints"]
        moved = augment(image=sample["image"], mask=sample["segmentation"], keypoints=keypoints[:, :2] - 0.5)
        keypoints[:, :2] = moved["keypoints"] + 0.5
        return {**sample, "image": moved["image"], "segmentation": moved["mask"]}

    options: dict[str, Any] = {"output": "numpy", "image_layout": "HWC", "shuffle": False}
    for sample in loaders.ShardDataset(dataset, transform=transform, **options):
        _held(sample["image"].transpose(2, 0, 1), sample["keypoints"][:, :2], sample["segmentation"])
        assert (name == "none") == (sample["keypoints"][:, :2] == points_of(sample["annotations"]["frame"])).all()


KORNIA = {
    "none": [],
    "flip": [augmentation.RandomHorizontalFlip(p=1.0)],
    "upside-down": [augmentation.RandomVerticalFlip(p=1.0)],
    "crop": [augmentation.RandomCrop((60, 80), p=1.0)],
    "rotate": [augmentation.RandomRotation((15.0, 15.0), p=1.0)],
    "affine": [augmentation.RandomAffine((10.0, 10.0), scale=(1.1, 1.1), p=1.0)],
}
KORNIA["all"] = [KORNIA[name][0] for name in ("flip", "rotate", "crop", "upside-down")]


@pytest.mark.parametrize("name", [name for name in KORNIA if name != "none"])
def test_kornia_on_whole_batches(dataset: Path, name: str) -> None:
    torch.manual_seed(3)
    augment = augmentation.AugmentationSequential(*KORNIA[name], data_keys=["input", "mask", "keypoints"])
    for batch in loaders.Loader(loaders.ShardDataset(dataset, shuffle=False), 3):
        images, masks = batch["image"].float() / 255, batch["segmentation"][:, None].float()
        images, masks, points = augment(images, masks, batch["keypoints"][..., :2] - 0.5)
        for image, mask, keypoints in zip(images, masks, points + 0.5, strict=True):
            _held(image, keypoints, mask[0].round().int())


def _held(image: Any, keypoints: Any, segmentation: Any) -> None:
    assert_on_markers(keypoints, image)
    assert image.shape[1:] == segmentation.shape
    assert image.shape[1] <= HEIGHT
    assert image.shape[2] <= WIDTH
    for marker, (x, y) in enumerate(found_in(image)):
        assert segmentation[int(y), int(x)] == 1000 + marker
