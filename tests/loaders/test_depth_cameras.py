"""Measured depth has the statistics of the models that its docstrings cite, and repeats for seed, key and epoch."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import loaders
from loaders._decode import Transformed
from tests.synthetic import image_bytes, key_of, make_dataset, npy_bytes

FOCAL = 400.0
WIDTH, HEIGHT = 320, 240
K = [[FOCAL, 0.0, WIDTH / 2], [0.0, FOCAL, HEIGHT / 2], [0.0, 0.0, 1.0]]
CAMERAS: list[Any] = [loaders.KinectAzure, loaders.RealSense]


def wall(depth: float, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Any:
    return np.full(size, depth, dtype=np.float32)


def slanted(depth: float, degrees: float) -> Any:
    """A wall that is turned about the vertical axis, `depth` metres off in the middle; inf where it is not in view."""
    x = (np.arange(WIDTH) + 0.5 - WIDTH / 2) / FOCAL
    with np.errstate(divide="ignore"):
        row = depth / (1 - x * np.tan(np.radians(degrees)))
    return np.tile(np.where(row > 0, row, np.inf), (HEIGHT, 1)).astype(np.float32)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("depth", [0.6, 1.0, 2.0, 3.5])
def test_azure_noise_grows_as_published(depth: float) -> None:
    """0.5 mm, and 1 mm more for each metre beyond half a metre; no bias; steps of a millimetre add 1/12 mm^2."""
    found = loaders.KinectAzure().measure(wall(depth), K, rng()).astype(np.float64)
    assert (found > 0).all()
    sigma = np.hypot(0.0005 + 0.001 * (depth - 0.5), 0.001 / np.sqrt(12))
    assert found.std() == pytest.approx(sigma, rel=0.03)
    assert found.mean() == pytest.approx(depth, abs=5 * sigma / np.sqrt(found.size))
    assert found * 1000 == pytest.approx(np.round(found * 1000), abs=1e-3)


def test_azure_measures_within_its_operating_range() -> None:
    """Microsoft's table, mode by mode; nothing before it, nothing beyond."""
    table = {
        "NFOV_UNBINNED": (0.5, 3.86),
        "NFOV_2X2BINNED": (0.5, 5.46),
        "WFOV_2X2BINNED": (0.25, 2.88),
        "WFOV_UNBINNED": (0.25, 2.21),
    }
    for mode, (low, high) in table.items():
        camera = loaders.KinectAzure(mode)  # type: ignore[arg-type]
        for depth, seen in ((low - 0.02, False), (low + 0.02, True), (high - 0.05, True), (high + 0.05, False)):
            found = camera.measure(wall(depth, (40, 40)), K, rng())
            assert (found > 0).all() == seen, (mode, depth)
            assert (found > 0).any() == seen, (mode, depth)


def test_azure_loses_what_returns_little_light() -> None:
    """By Lambert and the square of the distance, where 15 % at the range's end is what is just enough."""
    depth = 2.0
    limit = 0.15 * depth**2 / 3.86**2
    for reflectivity, degrees, seen in (
        (limit * 1.1, 0, True),
        (limit * 0.9, 0, False),
        (limit * 1.1 / np.cos(np.radians(60)), 60, True),
        (limit * 0.9 / np.cos(np.radians(60)), 60, False),
    ):
        found = loaders.KinectAzure(reflectivity=reflectivity).measure(slanted(depth, degrees), K, rng())
        middle = found[20:-20, WIDTH // 2 - 2 : WIDTH // 2 + 2]
        assert (middle > 0).mean() == pytest.approx(float(seen), abs=0.02), (reflectivity, degrees)


def test_azure_mixes_depths_at_small_edges_and_loses_large_ones() -> None:
    """Flying pixels between two walls 0.4 m apart, only at the edge; a hole of two or more pixels where it is 1 m."""
    step = wall(2.0)
    step[:, WIDTH // 2 :] = 2.4
    found = loaders.KinectAzure().measure(step, K, rng())
    between = (found > 2.05) & (found < 2.35)
    assert between[:, WIDTH // 2 - 1 : WIDTH // 2 + 1].mean() > 0.1
    assert not between[:, : WIDTH // 2 - 3].any()
    assert not between[:, WIDTH // 2 + 3 :].any()
    step[:, WIDTH // 2 :] = 3.0
    lost = loaders.KinectAzure().measure(step, K, rng()) == 0
    assert lost[:, WIDTH // 2 - 1 : WIDTH // 2 + 1].mean() > 0.95
    assert not lost[:, : WIDTH // 2 - 4].any()
    assert not lost[:, WIDTH // 2 + 4 :].any()


@pytest.mark.parametrize(("model", "baseline"), [("D415", 0.055), ("D435", 0.050), ("D455", 0.095)])
@pytest.mark.parametrize("depth", [1.0, 2.0, 4.0])
def test_realsense_noise_is_that_of_intels_formula(model: Any, baseline: float, depth: float) -> None:
    """Depth^2 * subpixel / (focal length * baseline), with what steps of 1/32 pixel and 1 mm add."""
    found = loaders.RealSense(model).measure(wall(depth), K, rng()).astype(np.float64)
    seen = found[found > 0]
    disparity = np.hypot(0.08, 1 / 32 / np.sqrt(12))
    sigma = np.hypot(depth**2 * disparity / (FOCAL * baseline), 0.001 / np.sqrt(12))
    assert seen.std() == pytest.approx(sigma, rel=0.05)
    assert np.median(seen) == pytest.approx(depth, abs=depth**2 / 32 / (FOCAL * baseline))


def test_realsense_disparity_comes_in_steps() -> None:
    """With 5 fractional bits; there are as many depths as steps, not as pixels."""
    found = loaders.RealSense().measure(wall(4.0), K, rng())
    steps = 32 * FOCAL * 0.05 / found[found > 0].astype(np.float64)
    assert steps == pytest.approx(np.round(steps), abs=0.03)  # a millimetre is 0.02 steps there
    assert 10 < len(np.unique(found)) < 40


def test_realsense_sees_nothing_in_the_stereo_shadow() -> None:
    """Left of a box its shadow is as wide as disparities differ, right of it there is none; a band at the left side."""
    near, far = 1.0, 2.0
    scene = wall(far)
    scene[80:160, 140:200] = near
    found = loaders.RealSense(subpixel=0.0).measure(scene, K, rng())
    rows = found[90:150] == 0
    shadow = FOCAL * 0.05 * (1 / near - 1 / far)
    assert rows[:, 120:140].sum(axis=1) == pytest.approx(np.full(60, shadow))
    assert rows[:, 130:140].all()
    assert not rows[:, 20:129].any()
    assert not rows[:, 140:].any()
    band = FOCAL * 0.05 / far
    assert (found[:70] == 0).sum(axis=1) == pytest.approx(np.full(70, band))
    assert (found[:70, : int(band)] == 0).all()


def test_realsense_range_is_that_of_its_search() -> None:
    """From focal length * baseline / 126 on, up to the most that it is told."""
    least = FOCAL * 0.05 / 126
    for depth, seen in ((least * 0.98, False), (least * 1.02, True), (5.7, True), (6.4, False)):
        found = loaders.RealSense(max_depth_m=6.0, subpixel=0.01).measure(wall(depth), K, rng())
        right = found[:, 130:]  # of the band that the right camera does not see
        assert (right > 0).all() == seen, depth
        assert (right > 0).any() == seen, depth


@pytest.mark.parametrize("camera", [loaders.RealSense("D455", subpixel=0.0)])
def test_realsense_loses_surfaces_that_are_too_steep(camera: Any) -> None:
    """Where the gradient of disparity, per pixel in the middle of both views, is above 1: by geometry."""
    depth = 0.5
    for degrees in (-87.0, -60.0, 60.0, 70.0, 80.0, 84.0, 87.0):
        # d = f B / z is linear in the column of a plane: it changes by -B tan / depth a pixel.
        step = -0.095 * np.tan(np.radians(degrees)) / depth
        gradient = abs(step) / abs(1 - step / 2)
        scene = slanted(depth, degrees)
        found = camera.measure(scene, K, rng())
        inner = found[:, WIDTH // 2 - 3 : WIDTH // 2 + 3]
        assert (inner > 0).all() == (gradient <= 1), (degrees, gradient)
        assert (inner > 0).any() == (gradient <= 1), (degrees, gradient)


@pytest.mark.parametrize("kind", CAMERAS)
def test_nothing_stays_nothing(kind: Any) -> None:
    """Where the exact depth is inf (or nan, or 0) nothing is measured, and nothing warns; shapes may be odd."""
    for empty in (np.inf, np.nan, 0.0):
        scene = wall(1.0)
        scene[100:140] = empty
        found = kind().measure(scene, K, rng())
        assert found.dtype == np.float32
        assert found.shape == scene.shape
        assert (found[103:137] == 0).all()
        assert (found[:97, 60:] > 0).all()
    for size in ((1, 1), (1, 5), (5, 1)):
        assert kind().measure(wall(1.0, size), K, rng()).shape == size
    assert not kind().measure(wall(np.inf), K, rng()).any()


def test_what_cannot_be_measured_is_told() -> None:
    with pytest.raises(ValueError, match="sample 'a' has no depth; build the dataset with --passes depth"):
        loaders.RealSense()({"key": "a"})
    with pytest.raises(ValueError, match=r"'a' has no left\.annotations, which hold K"):
        loaders.RealSense()({"key": "a", "left.depth": wall(1)})
    with pytest.raises(ValueError, match="model must be 'D415' or 'D435' or 'D455', not 'D999'"):
        loaders.RealSense("D999")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="mode must be 'NFOV_UNBINNED' or"):
        loaders.KinectAzure("wide")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="reflectivity must be from 0 to 1, not 2"):
        loaders.KinectAzure(reflectivity=2)
    with pytest.raises(ValueError, match=r"depth must be \(H, W\) and K \(3, 3\), not \(3,\) and \(3, 3\)"):
        loaders.RealSense().measure([1, 2, 3], K, rng())


@pytest.mark.parametrize("kind", CAMERAS)
def test_chance_comes_from_seed_key_epoch_and_camera(kind: Any) -> None:
    """Each alone makes another picture; the same four the same bytes; the given arrays are not written to."""
    annotations = {"camera": {"K": K}}
    sample = {"key": "a", "depth": wall(1), "left.depth": wall(1)}
    sample |= {"annotations": annotations, "left.annotations": annotations}
    first = kind(seed=1)(sample, epoch=2)
    again = pickle.loads(pickle.dumps(kind(seed=1)))(sample, epoch=2)
    assert first["depth"].tobytes() == again["depth"].tobytes()
    others = [
        first["left.depth"],
        kind(seed=2)(sample, epoch=2)["depth"],
        kind(seed=1)(sample, epoch=3)["depth"],
        kind(seed=1)({**sample, "key": "b"}, epoch=2)["depth"],
    ]
    assert len({array.tobytes() for array in (first["depth"], *others)}) == 5
    assert (sample["depth"] == 1).all()
    tensor = kind(seed=1)({**sample, "depth": torch.from_numpy(wall(1))}, epoch=2)["depth"]
    assert isinstance(tensor, torch.Tensor)
    assert tensor.numpy().tobytes() == first["depth"].tobytes()


def with_depth(number: int) -> dict[str, bytes]:
    return {
        "depth.npy": npy_bytes(wall(1.0 + number / 10, (12, 64))),
        "json": json.dumps({"camera": {"K": K}, "objects": []}).encode(),
        "png": image_bytes(np.zeros((12, 64, 3), np.uint8)),
    }


def test_workers_measure_the_same(tmp_path: Path) -> None:
    """An epoch's depths, by key: with and without workers, in a Loader and a DataLoader; another epoch's are others."""
    make_dataset(tmp_path, [3, 3], with_depth)

    def epoch(number: int, workers: int, plain: bool = False) -> dict[str, bytes]:
        dataset = loaders.ShardDataset(tmp_path, transform=loaders.RealSense(seed=5))
        if plain:
            dataset.set_epoch(number)
            loop: Any = DataLoader(dataset, batch_size=2, num_workers=workers, collate_fn=loaders.collate)
        else:
            loop = loaders.Loader(dataset, batch_size=2, num_workers=workers)
            loop.set_epoch(number)
        return {
            key: depth.numpy().tobytes()
            for batch in loop
            for key, depth in zip(batch["key"], batch["depth"], strict=True)
        }

    first = epoch(0, 0)
    assert sorted(first) == [key_of(shard, sample) for shard in range(2) for sample in range(3)]
    assert epoch(0, 2) == first
    second = epoch(1, 0)
    assert not set(second.values()) & set(first.values())
    assert epoch(1, 1, plain=True) == second


def test_a_transform_gets_the_epoch_if_it_asks() -> None:
    """By a parameter of that name, of a function or of a callable's call; one that was chosen stays as chosen."""
    from functools import partial

    def plain(sample: Any) -> Any:
        return sample

    def asking(sample: Any, epoch: int) -> Any:
        return (sample, epoch)

    assert Transformed(None)({"key": "a"}, 7) == {"key": "a"}
    assert Transformed(plain)({"key": "a"}, 7) == {"key": "a"}
    assert Transformed(asking)({"key": "a"}, 7) == ({"key": "a"}, 7)
    assert Transformed(partial(asking, epoch=3))({"key": "a"}, 7) == ({"key": "a"}, 3)
    assert Transformed(dict)({"key": "a"}, 7) == {"key": "a"}
