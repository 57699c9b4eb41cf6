"""Pictures with markers drawn at their keypoints, so that where a keypoint is can be seen in the picture alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.synthetic import image_bytes, make_dataset, npy_bytes

WIDTH, HEIGHT = 96, 72
_SIGMA = 2.0
_RADIUS = 5


def points_of(number: int) -> NDArray[np.float32]:
    """Return x, y of the three markers of sample `number`: red, green, blue; float32 (3, 2), well apart."""
    moved = np.random.default_rng([7, number]).uniform(-2, 2, (3, 2))
    return (np.array([[34, 26], [62, 30], [46, 48]]) + moved).astype(np.float32)


def distances(points: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return how far each pixel's centre, half a pixel from its corner, is from each point: (H, W, 3)."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    distance: NDArray[np.float64] = np.hypot(x[..., None] - points[:, 0], y[..., None] - points[:, 1])
    return distance


def members_of(number: int) -> dict[str, bytes]:
    """Return a sample: the marker of object i is a blob in colour channel i, in the segmentation a disc of id i + 1."""
    points = points_of(number)
    distance = distances(points)
    segmentation = np.zeros((HEIGHT, WIDTH), np.uint16)
    for marker in range(3):
        segmentation[distance[..., marker] < _RADIUS] = 1000 + marker
    objects = [
        {"name": f"marker{at}", "category_id": at + 1, "bbox": [x - _RADIUS, y - _RADIUS, 2.0 * _RADIUS, 2.0 * _RADIUS]}
        for at, (x, y) in enumerate(points.tolist())
    ]
    annotations = {"image": {"width": WIDTH, "height": HEIGHT}, "frame": number, "objects": objects}
    rows = np.concatenate([points, [[2, 1 + marker] for marker in range(3)]], axis=1, dtype=np.float32)
    return {
        "png": image_bytes(np.rint(250 * np.exp(-((distance / _SIGMA) ** 2) / 2)).astype(np.uint8)),
        "json": json.dumps(annotations).encode(),
        "keypoints.npy": npy_bytes(rows),
        "depth.npy": npy_bytes(distance.min(-1).astype(np.float32)),
        "segmentation.npy": npy_bytes(segmentation),
        "normals.npy": npy_bytes(np.zeros((HEIGHT, WIDTH, 3), np.float16)),
    }


def make(folder: Path, samples: int = 6) -> Path:
    """Write a dataset of such samples."""
    make_dataset(folder, [samples], members_of)
    return folder


def found_in(image: Any) -> NDArray[np.float64]:
    """Return where the markers are in a picture (3, H, W): each channel's centre of mass, (3, 2) in our pixels."""
    weights = np.asarray(image, np.float64)
    y, x = np.mgrid[: weights.shape[1], : weights.shape[2]] + 0.5
    mass = weights.sum((1, 2))
    return np.stack([(weights * x).sum((1, 2)) / mass, (weights * y).sum((1, 2)) / mass], axis=1)


def assert_on_markers(keypoints: Any, image: Any, tolerance: float = 0.12) -> None:
    """Hold keypoints (3, 2), in our pixels, against the picture: half a pixel is four times the tolerance."""
    np.testing.assert_allclose(np.asarray(keypoints), found_in(image), atol=tolerance)
