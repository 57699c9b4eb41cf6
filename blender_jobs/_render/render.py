"""Engines with every setting pinned, and the pixels out as an image file's bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bpy

from blender_jobs._render import codec, metadata, pins
from blender_jobs._render.properties import Settings, has, temporarily
from blender_jobs._vision.warp import Warp
from blender_jobs.job import JobError
from blender_jobs.orders import RenderSettings

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
    "cycles.shading_system": False,  # for all engines, as Cycles renders the passes: OSL compiles files, beside them
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
        "render.image_settings.file_format": codec.FORMATS[settings.image],
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
        with pins.as_set(scene, pinned(settings)):
            bpy.ops.render.render()
    except RuntimeError as error:
        raise JobError(f"Blender cannot render this scene: {' '.join(str(error).split())}") from None
    result, path = bpy.data.images["Render Result"], scratch / f"frame.{settings.image}"
    if warp is None:
        result.save_render(str(path), scene=scene)
        return metadata.strip(path.read_bytes(), settings.image)
    with temporarily(scene, {"render.image_settings.file_format": "PNG"}):
        result.save_render(str(scratch / "ideal.png"), scene=scene)
    pixels = warp.image(codec.decode(scratch / "ideal.png"))
    return codec.encode(pixels, settings.image, settings.quality, scratch)
