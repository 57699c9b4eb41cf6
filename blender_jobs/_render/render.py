"""Render an image: engines and devices, every setting pinned; the pixels out as an image file's bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bpy
import numpy as np
import numpy.typing as npt

from blender_jobs._render import formats, properties
from blender_jobs._render.properties import Settings, has, temporarily
from blender_jobs._vision.warp import Warp
from blender_jobs.job import JobError
from blender_jobs.orders import DEVICES, RenderSettings

DEFAULTS: Settings = {
    "render.fps": 24,
    "render.fps_base": 1.0,
    "render.pixel_aspect_x": 1.0,
    "render.pixel_aspect_y": 1.0,
    "render.film_transparent": False,
    "view_settings.view_transform": "Standard",
    "view_settings.look": "None",
    "view_settings.exposure": 0.0,
    "view_settings.gamma": 1.0,
    "cycles.use_light_tree": False,
    "cycles.max_bounces": 4,
    "cycles.diffuse_bounces": 2,
    "cycles.glossy_bounces": 2,
    "cycles.transmission_bounces": 4,
    "cycles.transparent_max_bounces": 4,
    "cycles.caustics_reflective": False,
    "cycles.caustics_refractive": False,
    "display.shading.light": "STUDIO",
    "display.shading.studio_light": "outdoor.sl",
    "display.shading.use_world_space_lighting": True,
    "display.shading.color_type": "MATERIAL",
    "display.shading.show_shadows": True,
    "display.shading.show_cavity": False,
    "display.shading.show_object_outline": False,
    "display.shading.show_specular_highlight": True,
}
"""Set in the empty scene before `Job.setup`, which may change them: the look is the job's."""

_PINS: Settings = {
    "render.resolution_percentage": 100,
    "render.use_border": False,
    "render.use_multiview": False,
    "render.use_compositing": False,
    "render.use_sequencer": False,
    "render.use_persistent_data": False,
    "render.use_simplify": False,
    "render.use_file_extension": False,
    "render.use_overwrite": True,
    "render.dither_intensity": 0.0,
    "render.filter_size": 1.5,
    "render.threads_mode": "FIXED",
    "render.image_settings.color_mode": "RGB",
    "cycles.shading_system": False,  # for all engines, as Cycles renders the passes: OSL compiles files next to them
    "cycles.use_sample_subset": False,
    "cycles.sample_offset": 0,
}
_ENGINE_PINS: dict[str, Settings] = {
    "cycles": {
        "cycles.use_denoising": False,
        "cycles.use_adaptive_sampling": False,
        "cycles.sampling_pattern": "TABULATED_SOBOL" if bpy.app.version >= (3, 5) else "PROGRESSIVE_MULTI_JITTER",
        "cycles.use_animated_seed": False,
        "cycles.time_limit": 0.0,
        "cycles.use_auto_tile": False,
        "cycles.pixel_filter_type": "BLACKMAN_HARRIS",
        "cycles.filter_width": 1.5,
    },
    "eevee": {"eevee.use_taa_reprojection": False},
    "workbench": {},
}
_DENOISING: Settings = {
    "cycles.use_denoising": True,
    "cycles.denoiser": "OPENIMAGEDENOISE",
    "cycles.denoising_input_passes": "RGB_ALBEDO_NORMAL",
    "cycles.denoising_prefilter": "ACCURATE",
    "cycles.denoising_quality": "HIGH",
    "cycles.denoising_use_gpu": False,
}
_PNG_COMPRESSION = 15


def engine_identifier(engine: str) -> str:
    """Return Blender's name of the engine; EEVEE was called EEVEE Next from 4.2 to 4.5."""
    if engine == "eevee":
        return "BLENDER_EEVEE_NEXT" if (4, 2) <= bpy.app.version[:2] < (5, 0) else "BLENDER_EEVEE"
    return {"cycles": "CYCLES", "workbench": "BLENDER_WORKBENCH"}[engine]


def pinned(settings: RenderSettings) -> Settings:
    """Return all that is set after `Job.setup` and `Job.randomize`, whatever they did: the plan's, not the job's."""
    settled = {
        **_PINS,
        **_ENGINE_PINS[settings.engine],
        "render.engine": engine_identifier(settings.engine),
        "render.resolution_x": settings.width,
        "render.resolution_y": settings.height,
        "render.image_settings.file_format": FORMATS[settings.image],
        "render.image_settings.color_depth": "8",
        "render.image_settings.quality": settings.quality,
        "render.image_settings.compression": _PNG_COMPRESSION,
        **{f"render.{name}": False for name in _stamps()},
    }
    if settings.engine == "cycles":
        settled |= {"cycles.samples": settings.samples, "cycles.device": "CPU" if settings.device == "cpu" else "GPU"}
        settled |= _DENOISING if settings.denoise else {}
    elif settings.engine == "eevee":
        settled["eevee.taa_render_samples"] = settings.samples
    else:
        settled["display.render_aa"] = str(settings.samples) if settings.samples else "OFF"
    return {path: value for path, value in settled.items() if has(bpy.context.scene, path)}


def _stamps() -> list[str]:
    """Every switch that writes a time or a name into the image file."""
    names: list[str] = bpy.types.RenderSettings.bl_rna.properties.keys()
    return sorted(name for name in names if name.startswith("use_stamp"))


def render_image(scene: Any, settings: RenderSettings, scratch: Path, warp: Warp | None) -> bytes:
    """Render the current frame; return it as an image file without text, time stamps or profiles.

    Args:
        scene: the scene, everything set.
        settings: of the image; only its format counts here.
        scratch: folder for the file that Blender writes.
        warp: from the rendered image to the one with the lens's distortion; None: there is none.

    Raises:
        JobError: the scene cannot be rendered, for want of a camera for instance, or was not rendered with the
            settings that it was given.
    """
    try:
        with properties.as_set(scene, pinned(settings)):
            bpy.ops.render.render()
    except RuntimeError as error:
        raise JobError(f"Blender cannot render this scene: {' '.join(str(error).split())}") from None
    result, path = bpy.data.images["Render Result"], scratch / f"frame.{settings.image}"
    if warp is None:
        result.save_render(str(path), scene=scene)
        return formats.strip_metadata(path.read_bytes(), settings.image)
    with temporarily(scene, {"render.image_settings.file_format": "PNG"}):
        result.save_render(str(scratch / "ideal.png"), scene=scene)
    pixels = warp.image(decode(scratch / "ideal.png"))
    return encode(pixels, settings.image, settings.quality, scratch)


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
        with temporarily(bpy.context.scene, _file_settings(image, quality)):
            made.save_render(str(path), scene=bpy.context.scene)
    finally:
        bpy.data.images.remove(made)
    return formats.strip_metadata(path.read_bytes(), image)


def decode(path: Path) -> npt.NDArray[np.uint8]:
    """Return the pixels of an image file of 8 bits a channel as stored: uint8 RGB (H, W, 3)."""
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


def _file_settings(image: str, quality: int) -> Settings:
    """Return what a scene must be set to for such a file; the format first, for it limits what the others may be."""
    return {
        "render.image_settings.file_format": FORMATS[image],
        "render.image_settings.quality": quality,
        **_PLAIN,
    }


def select_device(device: str) -> list[str]:
    """Let Cycles use the GPUs of `device` (one of `orders.DEVICES`), and the processor for nothing.

    This is a preference, not a setting of the scene: it outlives the scenes that are built after it.

    Returns:
        their names, sorted; none for ``cpu``.

    Raises:
        JobError: this Blender was built without it, or finds no such GPU.
    """
    if device == "cpu":
        return []
    found = available_gpus()
    if not found.get(device):
        raise JobError(_no_gpu(device, found))
    preferences = _preferences()
    preferences.compute_device_type = device.upper()
    for entry in preferences.devices:
        entry.use = entry.type == device.upper()
    return found[device]


def available_gpus() -> dict[str, list[str]]:
    """Return the names of the GPUs, sorted, by each interface that Cycles was built with: also where there is none."""
    preferences = _preferences()
    if preferences is None:
        return {}
    built = {entry[0] for entry in preferences.get_device_types(bpy.context)}
    return {device: _names(preferences, device.upper()) for device in DEVICES if device.upper() in built}


def _preferences() -> Any:
    """Return the preferences of Cycles; None where Blender was built without it."""
    add_on = bpy.context.preferences.addons.get("cycles")
    return add_on.preferences if add_on else None


def _names(preferences: Any, interface: str) -> list[str]:
    entries = preferences.get_devices_for_type(interface)  # with the processor, which may take part
    return sorted(entry.name for entry in entries if entry.type == interface)


def _no_gpu(device: str, found: dict[str, list[str]]) -> str:
    """Return one line: why `device` cannot be chosen, and what can."""
    others = [f"--device {other} ({', '.join(names)})" for other, names in found.items() if names]
    if device in found:
        why = "Cycles finds no such GPU, or not its driver"
    else:
        why = f"this build of Blender {bpy.app.version_string} lacks it"
    return f"--device {device}: {why}; use {' or '.join([*others, '--device cpu'])}"
