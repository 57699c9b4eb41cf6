"""Where the image's engine draws a scene otherwise than labels and passes have it: they follow Cycles."""

from __future__ import annotations

import bpy

from blender_jobs._render import pins
from blender_jobs._render.snapshot import INDIRECT, SHADOW_CATCHER, take
from blender_jobs._vision.surfaces import SOLID, Body
from blender_jobs.job import JobError

_NAMED = 5


def notes(engine: str) -> list[str]:
    """Return what the user should know of the scene as it is now, in `engine`.

    Workbench draws every surface as solid, whatever its material lets through and its object's visibility is set to;
    EEVEE draws shadow catchers and what Cycles sees indirectly only. Workbench has no motion blur.
    """
    if engine == "cycles":
        return []
    return [*_sharp(engine), *_solid(engine)]


def _sharp(engine: str) -> list[str]:
    if engine != "workbench" or not pins.shutter(bpy.context.scene):
        return []
    return [
        "workbench has no motion blur, which the scene asks for: its pictures are sharp; --engine cycles blurs them"
    ]


def _solid(engine: str) -> list[str]:
    try:
        bodies = take(bpy.context.scene).all_bodies
    except (ValueError, JobError):  # told where it counts, when the first frame is rendered
        return []
    names = sorted({body.name for body in bodies if _is_drawn_otherwise(engine, body)})
    if not names:
        return []
    named = ", ".join(map(repr, names[:_NAMED])) + ", ..." * (len(names) > _NAMED)
    return [
        f"{engine} draws {len(names)} objects as solid that labels and passes look through or leave out ({named});"
        " --engine cycles draws what they say"
    ]


def _is_drawn_otherwise(engine: str, body: Body) -> bool:
    if engine == "eevee":
        return body.unseen in (INDIRECT, SHADOW_CATCHER)
    return bool(body.unseen or (body.cover < SOLID).any())
