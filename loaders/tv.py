"""Samples as torchvision's tv_tensors: its transforms v2 then transform image, passes, boxes and keypoints together."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch

from loaders.errors import SampleError
from loaders.format import kind_of, view_of

try:
    from torchvision import tv_tensors
    from torchvision.transforms.v2 import functional
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(f"output='tv_tensors' needs torchvision: {error}", name=error.name) from None

__all__ = ["KeyPoints"]

_HAS_KEYPOINTS = hasattr(tv_tensors, "KeyPoints")
"""torchvision has had them since 0.23."""


class KeyPoints(getattr(tv_tensors, "KeyPoints", torch.Tensor)):  # type: ignore[misc]
    """Torchvision's KeyPoints, (K, 2), measured from the outer corner of the top-left pixel, as everywhere in a sample.

    Torchvision resizes, rotates and warps images, boxes and keypoints in these coordinates, too. But it flips keypoints
    as if they were measured from the centre of that pixel: x becomes W - 1 - x. With this class it becomes W - x.
    """


def _register_flips() -> None:
    @functional.register_kernel(functional.horizontal_flip, KeyPoints)  # type: ignore[untyped-decorator]
    def _flip_horizontally(points: KeyPoints) -> Any:
        x, y = points.as_subclass(torch.Tensor).unbind(-1)
        return tv_tensors.wrap(torch.stack([points.canvas_size[1] - x, y], -1), like=points)

    @functional.register_kernel(functional.vertical_flip, KeyPoints)  # type: ignore[untyped-decorator]
    def _flip_vertically(points: KeyPoints) -> Any:
        x, y = points.as_subclass(torch.Tensor).unbind(-1)
        return tv_tensors.wrap(torch.stack([x, points.canvas_size[0] - y], -1), like=points)


if _HAS_KEYPOINTS:
    _register_flips()


def check_version(members: Collection[str] | None) -> None:
    """Refuse keypoints if torchvision would not transform them with the image.

    Args:
        members: the names to decode; None for all.

    Raises:
        ImportError: torchvision is older than 0.23.
    """
    if not _HAS_KEYPOINTS and (members is None or any(kind_of(name) == "keypoints" for name in members)):
        raise ImportError(
            "this torchvision has no KeyPoints: install 0.23 or newer, or leave the keypoints out, with "
            "members=['image', 'annotations']"
        )


def as_tv_tensors(sample: Mapping[str, Any]) -> dict[str, Any]:
    """Return a sample with tensors in the types of torchvision's transforms v2.

    - ``image``: Image, uint8 (3, H, W).
    - Arrays with a value for each pixel (``depth``, ``segmentation`` ...): Mask, (H, W) or (C, H, W), transformed with
      the image without interpolation. The values of ``normals`` and ``flow`` are directions in the original image: they
      are not rotated.
    - ``boxes``: BoundingBoxes, float32 (N, 4), XYWH, from ``annotations``: each object's ``bbox``, all zeros for an
      object outside the image.
    - ``labels``: int64 (N,), each object's ``category_id``, if the job declares categories.
    - ``keypoints``: `KeyPoints`, float32 (K, 2), x and y.
    - ``visibility`` and ``keypoint_depths``: float32 (K,), the other columns of ``keypoints``; visibility is that in
      the original image.
    - all else is unchanged, including ``annotations``, which describe the original image.

    With several cameras, each has all of these, such as ``left.boxes``.

    Raises:
        SampleError: there are boxes or keypoints, but neither image nor annotations tell the image's size.
    """
    found: dict[str, Any] = {}
    for name, value in sample.items():
        kind, prefix = kind_of(name), view_of(name)
        if kind == "image":
            found[name] = tv_tensors.Image(value)
        elif kind == "annotations":
            found[name] = value
            found |= _of_objects(value.get("objects"), prefix, sample)
        elif kind == "keypoints":
            found[name] = KeyPoints(value[:, :2], canvas_size=_canvas(prefix, sample))
            found[f"{prefix}visibility"], found[f"{prefix}keypoint_depths"] = value[:, 2], value[:, 3]
        else:
            found[name] = _mask(value, prefix, sample)
    return found


def _of_objects(objects: Any, prefix: str, sample: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(objects, list) or not all(isinstance(entry, dict) and "bbox" in entry for entry in objects):
        return {}
    try:
        boxes = torch.tensor([entry["bbox"] for entry in objects], dtype=torch.float32).reshape(len(objects), 4)
        labels = [entry["category_id"] for entry in objects] if all("category_id" in one for one in objects) else []
        found = {f"{prefix}labels": torch.tensor(labels, dtype=torch.int64)} if labels else {}
    except (TypeError, ValueError, RuntimeError) as error:
        raise SampleError(f"sample {sample['key']!r}: an object's bbox or category_id is not usable: {error}") from None
    canvas = _canvas(prefix, sample)
    return found | {f"{prefix}boxes": tv_tensors.BoundingBoxes(boxes, format="XYWH", canvas_size=canvas)}


def _mask(value: Any, prefix: str, sample: Mapping[str, Any]) -> Any:
    if not isinstance(value, torch.Tensor) or value.dim() not in (2, 3):
        return value
    if tuple(value.shape[:2]) != _canvas(prefix, sample, otherwise=value.shape):
        return value
    return tv_tensors.Mask(value if value.dim() == 2 else value.permute(2, 0, 1))


def _canvas(prefix: str, sample: Mapping[str, Any], otherwise: Sequence[int] | None = None) -> tuple[int, int]:
    """Return height and width of the image."""
    if f"{prefix}image" in sample:
        _, height, width = sample[f"{prefix}image"].shape
        return height, width
    described = sample.get(f"{prefix}annotations", {}).get("image")
    if isinstance(described, dict) and all(type(described.get(side)) is int for side in ("height", "width")):
        return described["height"], described["width"]
    if otherwise is not None:
        return otherwise[0], otherwise[1]
    raise SampleError(f"sample {sample['key']!r}: the image's size is unknown; decode 'image' or 'annotations', too")
