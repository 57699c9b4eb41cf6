"""Exact depth as real depth cameras would measure it: transforms for `ShardDataset`, in numpy.

    dataset = loaders.ShardDataset("parts", transform=loaders.RealSense("D435", seed=1))

Each is a callable that takes a sample and returns it with ``depth`` as the camera would measure it: float32 (H, W),
metres along the optical axis, but 0 where nothing is measured (exact depth is inf where there is nothing). If a sample
has several cameras, each depth is measured with its own K. Random numbers depend on the seed, the sample's key and the
epoch, so a sample repeats in the same epoch, whatever the number of workers.

The models are published ones; each number has its source next to it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

Depth = NDArray[np.float32]
Floats = NDArray[np.float64]

AzureMode = Literal["NFOV_UNBINNED", "NFOV_2X2BINNED", "WFOV_2X2BINNED", "WFOV_UNBINNED"]
RealSenseModel = Literal["D415", "D435", "D455"]

_MILLIMETRE = 1e-3


class DepthCamera:
    """The base of both cameras: measures each depth of a sample with its own random numbers.

    Args:
        seed: any integer.

    Raises:
        ValueError: when called with a sample without depth, or without ``annotations``, which hold K.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def __call__(self, sample: dict[str, Any], epoch: int = 0) -> dict[str, Any]:
        """Return the sample with its depth, or the depth of each camera, as measured; the rest is unchanged.

        Arrays stay arrays and tensors stay tensors; the sample's own are not modified.
        """
        names = [name for name in sample if name.rpartition(".")[2] == "depth"]
        if not names:
            raise ValueError(f"sample {sample.get('key')!r} has no depth; build the dataset with --passes depth")
        measured = {name: self._measured(sample, name, epoch) for name in names}
        return {**sample, **measured}

    def measure(self, depth: ArrayLike, K: ArrayLike, rng: np.random.Generator) -> Depth:
        """Return what the camera measures of one depth image.

        Args:
            depth: (H, W), metres along the optical axis; inf, nan or 0 where there is nothing.
            K: (3, 3), as in annotations: pixels from the outer corner of the top-left one.
            rng: the source of all random numbers.

        Returns:
            float32 (H, W), metres; 0 where nothing is measured.
        """
        exact = np.array(depth, dtype=np.float64)
        intrinsics = np.array(K, dtype=np.float64)
        if exact.ndim != 2 or intrinsics.shape != (3, 3):
            raise ValueError(f"depth must be (H, W) and K (3, 3), not {exact.shape} and {intrinsics.shape}")
        exact[~(np.isfinite(exact) & (exact > 0))] = np.inf
        found = self._measure(exact, intrinsics, rng)
        return np.where(np.isfinite(found), found, 0.0).astype(np.float32)

    def _measured(self, sample: Mapping[str, Any], name: str, epoch: int) -> Any:
        camera = name.removesuffix("depth")
        try:
            K = sample[f"{camera}annotations"]["camera"]["K"]
        except KeyError:
            raise ValueError(
                f"sample {sample.get('key')!r} has no {camera}annotations, which hold K; name them in members="
            ) from None
        given = sample[name]
        result = given.clone() if hasattr(given, "clone") else given.copy()  # a tensor of any kind, or an array
        np.asarray(result)[...] = self.measure(np.asarray(given), K, self._rng(str(sample["key"]), name, epoch))
        return result

    def _rng(self, key: str, name: str, epoch: int) -> np.random.Generator:
        words = hashlib.sha256(repr((self._seed, epoch, key, name)).encode()).digest()
        return np.random.default_rng(int.from_bytes(words, "little"))

    def _measure(self, depth: Floats, K: Floats, rng: np.random.Generator) -> Floats:
        """Apply the camera's model; inf is nothing, in input and output."""
        raise NotImplementedError


@dataclass(frozen=True)
class _Range:
    """Metres."""

    low: float
    high: float


class KinectAzure(DepthCamera):
    """Microsoft's Azure Kinect: continuous-wave time of flight.

    - Edges: each pixel is measured at a place with a normal error of 0.25 pixels in x and in y, interpolated linearly
      between four pixels, so edges have depths between both surfaces (flying pixels); pixels whose 3x3 neighbourhood
      spans more than 0.8 m are lost.
    - Noise along the ray: normal, with standard deviation 0.5 mm + 1 mm for each metre beyond half a metre.
    - These numbers are those of the model that BlenderProc (M. Denninger et al., BlenderProc2, JOSS 8(82), 2023,
      `add_kinect_azure_noise`) made of the measurements by M. Tölgyessy et al., Evaluation of the Azure Kinect and Its
      Comparison to Kinect V1 and Kinect V2, Sensors 21(2), 413, 2021.
    - Range: the operating range of the mode, and whole millimetres, as in Microsoft's Azure Kinect DK hardware
      specifications: 0.5 to 3.86 m (NFOV_UNBINNED), 0.5 to 5.46 (NFOV_2X2BINNED), 0.25 to 2.88 (WFOV_2X2BINNED),
      0.25 to 2.21 (WFOV_UNBINNED).
    - Low signal: these ranges hold for surfaces that reflect 15 to 95 % of the light. The returned light falls with the
      square of the distance, and for a matte surface with the cosine of the angle of incidence (Lambert's law); so a
      surface is lost where `reflectivity` * cosine / depth^2 is below 0.15 / (the range's end)^2.

    Not modelled: light reflected by several surfaces, wiggling and other systematic errors (below 11 mm + 0.1 %
    according to the specifications), sunlight, warm-up.

    Args:
        mode: the camera's depth mode.
        seed: any integer.
        reflectivity: of all surfaces for near infrared light (850 nm), 0 to 1; by default the middle of the
            specifications' range.
    """

    LATERAL_PX = 0.25
    BASE_M = 0.5e-3
    GROWTH = 1e-3
    GROWS_FROM_M = 0.5
    LOST_STEP_M = 0.8
    LEAST_REFLECTIVITY = 0.15
    RANGES: ClassVar[Mapping[AzureMode, _Range]] = {
        "NFOV_UNBINNED": _Range(0.5, 3.86),
        "NFOV_2X2BINNED": _Range(0.5, 5.46),
        "WFOV_2X2BINNED": _Range(0.25, 2.88),
        "WFOV_UNBINNED": _Range(0.25, 2.21),
    }

    def __init__(self, mode: AzureMode = "NFOV_UNBINNED", *, seed: int = 0, reflectivity: float = 0.55) -> None:
        super().__init__(seed)
        _check_choice("mode", mode, AzureMode)
        if not 0 <= reflectivity <= 1:
            raise ValueError(f"reflectivity must be from 0 to 1, not {reflectivity}")
        self._range, self._reflectivity = self.RANGES[mode], reflectivity

    def _measure(self, depth: Floats, K: Floats, rng: np.random.Generator) -> Floats:
        returned = self._reflectivity * _cosines(depth, K)
        found = _between(depth, rng.normal(0.0, self.LATERAL_PX, (2, *depth.shape)))
        beyond = np.maximum(np.where(np.isfinite(found), found, 0.0) - self.GROWS_FROM_M, 0.0)
        found = found + (self.BASE_M + self.GROWTH * beyond) * rng.standard_normal(depth.shape)
        lowest, highest = _extremes(found)
        with np.errstate(invalid="ignore"):  # inf - inf
            lost = ~(highest - lowest <= self.LOST_STEP_M)
        lost |= returned * self._range.high**2 < self.LEAST_REFLECTIVITY * depth**2
        lost |= (found < self._range.low) | (found > self._range.high)
        return np.where(lost, np.inf, np.round(found / _MILLIMETRE) * _MILLIMETRE)


class RealSense(DepthCamera):
    """Intel's RealSense D400: active stereo, depth from the left camera's view.

    With disparity d = f B / z pixels, f = K[0, 0] and B the baseline (D415 55 mm, D435 50 mm, D455 95 mm: Intel
    RealSense Product Family D400 Series Datasheet, 337029; z = f B / d as in L. Keselman et al., Intel RealSense
    Stereoscopic Depth Cameras, CVPR Workshops 2017):

    - Stereo shadow: what the right camera, B to the right, does not see has no depth: a band to the left of things in
      the foreground, and d pixels at the image's left side.
    - Edges: each pixel is matched at a place with a normal error of half a pixel in x and in y (J. Barron and
      J. Malik, Intrinsic Scene Properties from a Single RGB-D Image, CVPR 2013; A. Handa et al., A Benchmark for RGB-D
      Visual Odometry, 3D Reconstruction and SLAM, ICRA 2014).
    - Noise of disparity: normal, standard deviation `subpixel` = 0.08 pixels, and so of depth z^2 subpixel / (f B):
      A. Grunnet-Jepsen et al., Tuning Depth Cameras for Best Performance, Intel; 0.08 is what its first author
      advises (librealsense, issue 3904).
    - Steps: disparity has 5 fractional bits (Keselman et al. 2017), depth comes in whole millimetres (the default).
    - Range: disparity is searched up to 126 pixels, so the least depth is f B / 126 (librealsense, issue 7127, and the
      tuning paper); `max_depth_m` is the greatest.
    - Incidence: where disparity changes too fast for windows to match, nothing is found: its gradient, midway between
      both views, is limited to 1 (S. Pollard, J. Mayhew and J. Frisby, PMF: A Stereo Correspondence Algorithm Using
      a Disparity Gradient Limit, Perception 14, 1985).

    Not modelled: surfaces without texture beyond the projector's range, reflections, loss of calibration.

    Args:
        model: the camera, which determines the baseline.
        seed: any integer.
        subpixel: standard deviation of disparity, pixels; 0.032 at best, for well textured scenes (issue 3904).
        max_depth_m: metres; 10 by default, after M. Carfagni et al., Metrological and Critical Characterization of the
            Intel D415 Stereo Depth Camera, Sensors 19(3), 489, 2019.
    """

    BASELINES_M: ClassVar[Mapping[RealSenseModel, float]] = {"D415": 0.055, "D435": 0.050, "D455": 0.095}
    LATERAL_PX = 0.5
    STEPS = 32
    SEARCHED_PX = 126.0
    GRADIENT = 1.0

    def __init__(
        self, model: RealSenseModel = "D435", *, seed: int = 0, subpixel: float = 0.08, max_depth_m: float = 10.0
    ) -> None:
        super().__init__(seed)
        _check_choice("model", model, RealSenseModel)
        if not (subpixel >= 0 and max_depth_m > 0):
            raise ValueError("subpixel must be at least 0, and max_depth_m above 0")
        self._baseline, self._subpixel, self._max_depth = self.BASELINES_M[model], subpixel, max_depth_m

    def _measure(self, depth: Floats, K: Floats, rng: np.random.Generator) -> Floats:
        strength = K[0, 0] * self._baseline
        disparity = strength / depth  # 0 where there is nothing
        lost = _unseen_from_the_right(disparity) | ~(_gradients(disparity) <= self.GRADIENT)
        rows, columns = _nearest(depth.shape, rng.normal(0.0, self.LATERAL_PX, (2, *depth.shape)))
        disparity = disparity[rows, columns]
        found = np.round((disparity + rng.normal(0.0, self._subpixel, depth.shape)) * self.STEPS) / self.STEPS
        lost |= (disparity == 0) | (found <= 0) | (found > self.SEARCHED_PX)
        measured = strength / np.where(lost, np.inf, found)
        lost |= measured > self._max_depth
        return np.where(lost, np.inf, np.round(measured / _MILLIMETRE) * _MILLIMETRE)


def _check_choice(name: str, value: object, kinds: Any) -> None:
    if value not in get_args(kinds):
        raise ValueError(f"{name} must be {' or '.join(map(repr, get_args(kinds)))}, not {value!r}")


def _unseen_from_the_right(disparity: Floats) -> NDArray[np.bool_]:
    """Return which pixels a camera to the right does not see: hidden by something nearer, or outside its image.

    A thing at column x is at x - d there. What is further right here and further left there, or at the same place, is
    nearer and hides it.
    """
    there = np.arange(disparity.shape[1]) + 0.5 - disparity
    leftmost = np.minimum.accumulate(there[:, ::-1], axis=1)[:, ::-1]  # of it and all to the right of it
    hidden = np.zeros(disparity.shape, dtype=bool)
    hidden[:, :-1] = leftmost[:, 1:] <= there[:, :-1]
    return hidden | (there < 0)


def _gradients(disparity: Floats) -> Floats:
    """Return the gradient of disparity at each pixel, over the distance midway between both views (PMF paper).

    It is taken to the neighbour that differs less, in x and in y: across an edge there is no surface.
    """
    steps = [_smaller_step(disparity, axis) for axis in (1, 0)]
    with np.errstate(invalid="ignore"):  # inf / inf, next to nothing
        across = np.abs(steps[0]) / np.maximum(np.abs(1 - steps[0] / 2), 1e-9)
    steepest: Floats = np.maximum(across, np.abs(steps[1]))
    return steepest


def _smaller_step(values: Floats, axis: int) -> Floats:
    """Return the smaller of the steps to both neighbours along an axis; inf next to nothing."""
    with np.errstate(invalid="ignore"):
        steps = np.diff(values, axis=axis)
    steps = np.where(np.isfinite(steps), steps, np.inf)
    none = np.full_like(np.take(values, [0], axis=axis), np.inf)
    before, after = np.concatenate([none, steps], axis=axis), np.concatenate([steps, none], axis=axis)
    return np.where(np.abs(before) < np.abs(after), before, after)


def _cosines(depth: Floats, K: Floats) -> Floats:
    """Return the cosine of each camera ray's angle of incidence on the surface, computed from depth."""
    height, width = depth.shape
    x = ((np.arange(width) + 0.5 - K[0, 2]) / K[0, 0])[None, :]
    y = ((np.arange(height) + 0.5 - K[1, 2]) / K[1, 1])[:, None]
    to_right, down = (_smaller_step(depth, axis) for axis in (1, 0))
    slope_x, slope_y = (np.where(np.isfinite(step), step, 0.0) for step in (to_right, down))
    here = np.where(np.isfinite(depth), depth, 1.0)
    # The surface's normal is the cross product of its two tangents, (x, y, 1) z differentiated by column and row.
    normal_x, normal_y = -slope_x * K[0, 0], -slope_y * K[1, 1]
    normal_z = here + slope_x * K[0, 0] * x + slope_y * K[1, 1] * y
    along = np.abs(normal_x * x + normal_y * y + normal_z)
    cosine: Floats = along / np.sqrt((x**2 + y**2 + 1) * (normal_x**2 + normal_y**2 + normal_z**2))
    return cosine


def _nearest(shape: tuple[int, ...], shifts: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return rows and columns of the pixels nearest to places shifted by `shifts`, (2, H, W): y, x."""
    rows, columns = np.indices(shape)
    height, width = shape
    return (
        np.clip(np.rint(rows + shifts[0]).astype(np.int64), 0, height - 1),
        np.clip(np.rint(columns + shifts[1]).astype(np.int64), 0, width - 1),
    )


def _between(depth: Floats, shifts: Floats) -> Floats:
    """Return depth at places shifted by `shifts`, (2, H, W): linear between four pixels; if one is inf, the nearest."""
    height, width = depth.shape
    rows, columns = np.indices(depth.shape)
    y, x = np.clip(rows + shifts[0], 0, height - 1), np.clip(columns + shifts[1], 0, width - 1)
    top, left = np.minimum(y.astype(np.int64), max(height - 2, 0)), np.minimum(x.astype(np.int64), max(width - 2, 0))
    down, right = y - top, x - left
    bottom, other = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    with np.errstate(invalid="ignore"):  # 0 * inf
        upper = depth[top, left] * (1 - right) + depth[top, other] * right
        lower = depth[bottom, left] * (1 - right) + depth[bottom, other] * right
        mixed = upper * (1 - down) + lower * down
    return np.where(np.isfinite(mixed), mixed, depth[np.rint(y).astype(np.int64), np.rint(x).astype(np.int64)])


def _extremes(values: Floats) -> tuple[Floats, Floats]:
    """Return the least and the greatest value of each pixel's 3x3 neighbourhood."""
    padded = np.pad(values, 1, mode="edge")
    height, width = values.shape
    around = [padded[row : row + height, column : column + width] for row in range(3) for column in range(3)]
    return np.minimum.reduce(around), np.maximum.reduce(around)
