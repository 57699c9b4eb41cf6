"""The passes: what a sample can hold for each pixel besides the image. A table alone: no bpy, no pixels.

All but ``alpha`` are taken at the pixels' centres, never mixed from neighbours. Camera frame as OpenCV (x right, y
down, z forward), world as Blender (z up, metres), image coordinates x right, y down from the outer corner of the
top-left pixel. Each member is an ``.npy`` file.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class PassArray:
    """One array of a pass."""

    dtype: str
    channels: int
    """0: the shape is (H, W), otherwise (H, W, channels)."""
    description: str

    def shape(self, height: int, width: int) -> list[int]:
        """Return the array's shape."""
        return [height, width, self.channels] if self.channels else [height, width]


PASSES: dict[str, dict[str, PassArray]] = {
    "depth": {
        "depth.npy": PassArray("float32", 0, "metres along the optical axis (z in the camera frame); inf: nothing")
    },
    "distance": {"distance.npy": PassArray("float32", 0, "metres along the pixel's ray from the camera; inf: nothing")},
    "normals": {
        "normals.npy": PassArray(
            "float16", 3, "unit shading normals towards the camera, camera frame; 0, 0, 0: nothing"
        )
    },
    "normals_world": {
        "normals_world.npy": PassArray(
            "float16", 3, "unit shading normals towards the camera, world frame; 0, 0, 0: nothing"
        )
    },
    "segmentation": {
        "segmentation.npy": PassArray("uint16", 0, "the segmentation_id of the annotated object; 0: none of them")
    },
    "categories": {
        "categories.npy": PassArray("uint16", 0, "the category_id of the annotated object; 0: none of them")
    },
    "parts": {"parts.npy": PassArray("uint16", 0, "the part_id of the annotated object's named part; 0: none of them")},
    "flow": {
        "flow_forward.npy": PassArray(
            "float32",
            2,
            "x, y in pixels: where the surface is in the next frame, less where it is; 0, 0: nothing",
        ),
        "flow_backward.npy": PassArray(
            "float32",
            2,
            "x, y in pixels: where it was in the frame before, less where it is; all 0 in an episode's first frame",
        ),
    },
    "nocs": {
        "nocs.npy": PassArray(
            "float16",
            3,
            "normalized object coordinates: in the annotated object's bounding box, centre 0.5, diagonal 1; 0: nothing",
        )
    },
    "albedo": {
        "albedo.npy": PassArray("float16", 3, "linear RGB of diffuse reflection, without light; 0, 0, 0: nothing")
    },
    "alpha": {"alpha.npy": PassArray("uint8", 0, "0 to 255: how much of the pixel is covered by the scene's objects")},
}
"""The members of each pass, in the order in which passes are listed."""


NONE = "none"
"""What is asked for where samples hold the image alone, whatever passes the job names."""


def chosen(names: Sequence[str], default: Sequence[str]) -> list[str]:
    """Return the passes that a user names, in the table's order, or those of `default` where the user names none.

    Raises:
        ValueError: as `in_order`.
    """
    return [] if list(names) == [NONE] else in_order(names or default)


def in_order(names: Sequence[str]) -> list[str]:
    """Return the passes once each, in the table's order.

    Raises:
        ValueError: an unknown one; one line that says which there are.
    """
    for name in names:
        if name not in PASSES:
            close = difflib.get_close_matches(str(name), PASSES, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"choose of {', '.join(PASSES)}"
            raise ValueError(f"there is no pass {name!r}; {hint}")
    return [name for name in PASSES if name in set(names)]
