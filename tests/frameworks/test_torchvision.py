"""torchvision's transforms v2 move picture, passes, boxes and keypoints of a sample alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import loaders
from tests.frameworks import framework
from tests.frameworks.markers import HEIGHT, WIDTH, assert_on_markers, found_in, make, points_of
from tests.synthetic import image_bytes, npy_bytes

tv_tensors = framework("torchvision.tv_tensors")
v2 = framework("torchvision.transforms.v2")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("torchvision") / "markers")


BILINEAR = v2.InterpolationMode.BILINEAR
TRANSFORMS = {
    "none": v2.Identity(),
    "flip": v2.RandomHorizontalFlip(p=1),
    "upside-down": v2.RandomVerticalFlip(p=1),
    "crop": v2.RandomCrop((60, 80)),
    "center-crop": v2.CenterCrop((61, 81)),
    "pad": v2.Pad((3, 5, 7, 9)),
    "rotate": v2.RandomRotation((15, 15), interpolation=BILINEAR),
    "affine": v2.RandomAffine((10, 10), (0.05, 0.05), (1.1, 1.1), (5, 5), interpolation=BILINEAR),
    "perspective": v2.RandomPerspective(0.2, p=1, interpolation=BILINEAR),
    "resize": v2.Resize((HEIGHT * 2, WIDTH * 2)),
    "shrink": v2.Resize((HEIGHT // 2, WIDTH // 2)),
    "all": v2.Compose(
        [
            v2.RandomHorizontalFlip(p=1),
            v2.RandomRotation((12, 12), interpolation=BILINEAR),
            v2.RandomCrop((64, 84)),
            v2.Resize((96, 126)),
            v2.RandomVerticalFlip(p=1),
        ]
    ),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_all_of_a_sample_moves_with_the_picture(dataset: Path, name: str) -> None:
    torch.manual_seed(3)
    shards = loaders.ShardDataset(dataset, output="tv_tensors", transform=TRANSFORMS[name], shuffle=False)
    for number, sample in enumerate(shards):
        assert_on_markers(sample["keypoints"], sample["image"])
        _, height, width = sample["image"].shape
        assert sample["keypoints"].canvas_size == sample["boxes"].canvas_size == (height, width)
        assert sample["segmentation"].shape == sample["depth"].shape == (height, width)
        assert sample["normals"].shape == (3, height, width)
        for marker, (x, y) in enumerate(found_in(sample["image"])):
            row, column = int(y), int(x)
            assert sample["segmentation"][row, column] == 1000 + marker
            assert sample["depth"][row, column] < 2.2, "not mixed from neighbours, but moved"
            left, top, wide, high = sample["boxes"][marker].tolist()
            np.testing.assert_allclose(
                [left + wide / 2, top + high / 2], [x, y], atol=0.7 if name == "perspective" else 0.12
            )
        assert sample["annotations"]["frame"] == number
    assert number == 5


def test_a_sample_is_what_the_page_says(dataset: Path) -> None:
    sample = loaders.IndexedShards(dataset, output="tv_tensors", floats="float32")[0]
    assert sample.keys() == {
        "key", "image", "annotations", "boxes", "labels", "keypoints", "visibility", "keypoint_depths",
        "depth", "segmentation", "normals",
    }  # fmt: skip
    kinds = {name: type(value).__mro__ for name, value in sample.items()}
    assert tv_tensors.Image in kinds["image"]
    assert all(tv_tensors.Mask in kinds[name] for name in ("depth", "segmentation", "normals"))
    assert tv_tensors.BoundingBoxes in kinds["boxes"]
    assert tv_tensors.KeyPoints in kinds["keypoints"]
    assert sample["keypoints"].tolist() == points_of(0).tolist(), "ours, not half a pixel less"
    assert (sample["segmentation"].dtype, sample["normals"].dtype) == (torch.int32, torch.float32)
    assert sample["labels"].tolist() == [1, 2, 3]
    assert (sample["visibility"].tolist(), sample["keypoint_depths"].tolist()) == ([2, 2, 2], [1, 2, 3])


def test_torchvisions_own_keypoints_are_half_a_pixel_off_one_way_or_the_other() -> None:
    # Why there is a class of ours: theirs flips as if points counted from the first pixel's centre, and rotates and
    # resizes as if from its corner. If this fails, theirs may have become right.
    plain = tv_tensors.KeyPoints(torch.tensor([[10.0, 20.0]]), canvas_size=(HEIGHT, WIDTH))
    assert v2.functional.horizontal_flip(plain).tolist() == [[WIDTH - 1 - 10, 20]]
    assert v2.functional.resize(plain, [2 * HEIGHT, 2 * WIDTH]).tolist() == [[20, 40]]
    assert v2.functional.rotate(plain, 180).round().tolist() == [[WIDTH - 10, HEIGHT - 20]]


def test_torchvision_does_not_find_one_size_for_an_expanded_rotation(dataset: Path) -> None:
    # Of its own: it rounds the larger canvas in two ways. The page says so; if this fails, it need not any more.
    rotate = v2.RandomRotation((-20, -20), interpolation=BILINEAR, expand=True)
    sample = rotate(loaders.IndexedShards(dataset, output="tv_tensors")[0])
    assert sample["keypoints"].canvas_size != tuple(sample["image"].shape[1:])
    assert_on_markers(sample["keypoints"], sample["image"], tolerance=1.0)


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_of_tv_tensors_are_tensors(dataset: Path, workers: int) -> None:
    flip = v2.RandomHorizontalFlip(p=1)
    shards = loaders.ShardDataset(dataset, output="tv_tensors", transform=flip, shuffle=False)
    (batch,) = loaders.Loader(shards, 6, num_workers=workers)
    assert (batch["image"].shape, batch["keypoints"].shape) == ((6, 3, HEIGHT, WIDTH), (6, 3, 2))
    for number in range(6):
        assert_on_markers(batch["keypoints"][number], batch["image"][number])


def test_cameras_have_boxes_and_keypoints_of_their_own() -> None:
    def view(size: int) -> dict[str, bytes]:
        return {
            "png": image_bytes(np.zeros((size, size, 3), np.uint8)),
            "json": b'{"objects": [{"bbox": [1.0, 2.0, 3.0, 4.0]}]}',
            "keypoints.npy": npy_bytes(np.full((1, 4), 2, np.float32)),
        }

    members = {
        f"{name}.{member}": content
        for name, size in (("left", 8), ("right", 6))
        for member, content in view(size).items()
    }
    sample = v2.RandomHorizontalFlip(p=1)(loaders.Decoder(output="tv_tensors")("k", members))
    assert [sample[f"{name}.keypoints"].tolist() for name in ("left", "right")] == [[[6, 2]], [[4, 2]]]
    assert [sample[f"{name}.boxes"].tolist() for name in ("left", "right")] == [[[4, 2, 3, 4]], [[2, 2, 3, 4]]]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"json": b'{"objects": [{"bbox": [1, 2]}]}'}, "sample 'k': an object's bbox or category_id is not usable"),
        ({"json": b'{"objects": [{"bbox": "left"}]}'}, "sample 'k': an object's bbox or category_id is not usable"),
        (
            {"keypoints.npy": npy_bytes(np.zeros((1, 4), np.float32))},
            "sample 'k': the image's size is unknown; decode 'image'",
        ),
    ],
)
def test_what_makes_no_tv_tensor_is_an_error(members: dict[str, bytes], message: str) -> None:
    with pytest.raises(loaders.SampleError, match=message):
        loaders.Decoder(output="tv_tensors")("k", members)


def test_a_torchvision_without_keypoints_moves_all_else(monkeypatch: pytest.MonkeyPatch, dataset: Path) -> None:
    monkeypatch.setattr("loaders.tv._HAS_KEYPOINTS", False)
    for members in (None, ["image", "keypoints"], ["left.keypoints"]):
        with pytest.raises(ImportError, match=r"no KeyPoints: install 0\.23 or newer, or leave the keypoints out"):
            loaders.ShardDataset(dataset, output="tv_tensors", members=members)
    options: dict[str, Any] = {"output": "tv_tensors", "members": ["image", "annotations"]}
    assert loaders.IndexedShards(dataset, **options)[0].keys() == {"key", "image", "annotations", "boxes", "labels"}
