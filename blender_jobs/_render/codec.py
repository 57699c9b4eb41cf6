"""Image files of given pixels, encoded and decoded by Blender: its encoders belong to the build that a plan names."""

from __future__ import annotations

from pathlib import Path

import bpy
import numpy as np
import numpy.typing as npt

from blender_jobs._render import metadata
from blender_jobs._render.properties import Settings, temporarily

FORMATS = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}
"""Blender's names of the image formats, by the members' names."""

_PLAIN: Settings = {
    "render.dither_intensity": 0.0,
    "render.image_settings.color_mode": "RGB",
    "render.image_settings.color_depth": "8",
}


def encode(pixels: npt.NDArray[np.uint8], image: str, quality: int, scratch: Path) -> bytes:
    """Return uint8 RGB (H, W, 3), first row on top, as the bytes of an image file that Blender encodes.

    The very pixels that are given, untouched by colour management; without metadata.

    Args:
        pixels: the image.
        image: the format, ``png``, ``jpg`` or ``webp``.
        quality: 1 to 100, for ``jpg`` and ``webp`` (100: lossless).
        scratch: folder for the file that Blender writes.
    """
    height, width = pixels.shape[:2]
    flipped = np.ones((height, width, 4), dtype=np.float32)
    flipped[..., :3] = pixels[::-1] / np.float32(255)
    made = bpy.data.images.new("encoded", width, height, alpha=False, float_buffer=False)
    try:
        made.colorspace_settings.name = "Non-Color"  # before the pixels, which it would make black
        made.pixels.foreach_set(flipped.ravel())
        path = scratch / f"encoded.{image}"
        with temporarily(bpy.context.scene, _file(image, quality)):
            made.save_render(str(path), scene=bpy.context.scene)
    finally:
        bpy.data.images.remove(made)
    return metadata.strip(path.read_bytes(), image)


def decode(path: Path) -> npt.NDArray[np.uint8]:
    """Return the pixels of an image file of 8 bits a channel as they stand there: uint8 RGB (H, W, 3)."""
    loaded = bpy.data.images.load(str(path))
    try:
        width, height = loaded.size
        flat = np.empty(width * height * 4, dtype=np.float32)
        loaded.pixels.foreach_get(flat)
    finally:
        bpy.data.images.remove(loaded)
    pixels = flat.reshape(height, width, 4)[::-1, :, :3]
    content: npt.NDArray[np.uint8] = np.rint(pixels * np.float32(255)).astype(np.uint8)
    return content


def _file(image: str, quality: int) -> Settings:
    """Return what a scene must be set to for such a file; the format first, for it limits what the others may be."""
    return {
        "render.image_settings.file_format": FORMATS[image],
        "render.image_settings.quality": quality,
        **_PLAIN,
    }
