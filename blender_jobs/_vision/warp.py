"""From the image of the ideal pinhole camera to the one that the distorting lens shows: numpy alone, no Blender."""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from blender_jobs._vision.camera import Camera, FloatArray
from blender_jobs._vision.distortion import Coefficients, undistort

Kind = TypeVar("Kind", bound=np.generic)


class Warp:
    """Looks up, for each pixel of the distorted image, what the undistorted image shows there.

    H, W are the distorted image's size, h, w the undistorted one's (`Camera.ideal`). Only elementwise sums are
    done, so that all processors give the same bytes.

    Args:
        places: float64 (H, W, 2), x and y in the undistorted image of each distorted pixel's centre.
        size: (w, h).
    """

    def __init__(self, places: FloatArray, size: tuple[int, int]) -> None:
        self._places = places
        self._width, self._height = size

    def image(self, pixels: npt.NDArray[Kind]) -> npt.NDArray[Kind]:
        """(h, w, C) to (H, W, C) of the same dtype: between the four nearest pixel centres, bilinearly.

        Whole numbers are rounded to the nearest, halves to the even one. Values are mixed as stored: those
        of an encoded image are not made linear light first, as OpenCV's remap does not.
        """
        flat = self._flat(pixels)
        result = np.zeros((len(self._corners[0][0]), flat.shape[1]), dtype=np.float64)
        for indices, weights in self._corners:
            result += flat[indices] * weights[:, None]
        if np.issubdtype(pixels.dtype, np.integer):
            np.rint(result, out=result)
        return result.astype(pixels.dtype).reshape(*self._places.shape[:2], *pixels.shape[2:])

    def nearest(self, array: npt.NDArray[Kind]) -> npt.NDArray[Kind]:
        """(h, w[, C]) to (H, W[, C]): the value of the pixel in which the place lies, never mixed."""
        return self._flat(array)[self._nearest].reshape(*self._places.shape[:2], *array.shape[2:])

    def _flat(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if array.shape[:2] != (self._height, self._width):
            raise ValueError(f"the undistorted image is {self._width}x{self._height} pixels, not {array.shape[1::-1]}")
        return array.reshape(self._height * self._width, -1)

    @cached_property
    def _nearest(self) -> npt.NDArray[np.int64]:
        x, y = np.floor(self._places).astype(np.int64).reshape(-1, 2).T
        indices: npt.NDArray[np.int64] = y * self._width + x
        return indices

    @cached_property
    def _corners(self) -> list[tuple[npt.NDArray[np.int64], FloatArray]]:
        """Flat index and weight, (H * W,) each, of the four pixels around each place."""
        places = self._places.reshape(-1, 2) - 0.5
        whole = np.floor(places)
        (x, y), (right, down) = whole.astype(np.int64).T, (places - whole).T
        first = y * self._width + x
        return [
            (first, (1 - right) * (1 - down)),
            (first + 1, right * (1 - down)),
            (first + self._width, (1 - right) * down),
            (first + self._width + 1, right * down),
        ]


def warp_of(camera: Camera) -> Warp | None:
    """Return the camera's warp, None if it does not distort; those of the last few lenses are kept."""
    if not camera.distortion:
        return None
    focal, centre = camera.K.diagonal()[:2], camera.K[:2, 2]
    ideal = camera.ideal
    return _kept(
        camera.distortion,
        (camera.width, camera.height),
        (ideal.width, ideal.height),
        *(tuple(values.tolist()) for values in (focal, centre, ideal.K[:2, 2])),
    )


@lru_cache(maxsize=4)
def _kept(
    lens: Coefficients,
    size: tuple[int, int],
    ideal_size: tuple[int, int],
    focal: tuple[float, ...],
    centre: tuple[float, ...],
    ideal_centre: tuple[float, ...],
) -> Warp:
    rows, columns = np.indices(size[::-1]) + 0.5
    centres = np.stack([columns.ravel(), rows.ravel()], axis=1)
    places = undistort(lens, (centres - centre) / focal) * focal + ideal_centre
    return Warp(places.reshape(*size[::-1], 2), ideal_size)
