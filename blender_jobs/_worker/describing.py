"""Say what a job is, every value resolved: load it, build its scene once, and list the files that it reads."""

from __future__ import annotations

import dataclasses
import operator
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import bpy

from blender_jobs import assets, passes
from blender_jobs._render import properties, render
from blender_jobs._render.snapshot import INDIRECT, SHADOW_CATCHER, take
from blender_jobs._vision.surfaces import SOLID, Body
from blender_jobs._worker import scene_files, staging
from blender_jobs._worker.fields import check_init, check_member_names, json_value, member_notes, resolve_fields
from blender_jobs._worker.lint import offences
from blender_jobs._worker.loading import blame, load_job, sources_of
from blender_jobs._worker.staging import build_scene, leave_edit_mode
from blender_jobs.categories import as_coco
from blender_jobs.job import Category, Job, JobError
from blender_jobs.orders import Asset, Describe, Described, sources_sha256

_MOST_HABITS = 5
_CAMERA_NAME = re.compile(r"[a-z0-9_]+")


def describe(request: Describe) -> Described:
    """Return the job as this Blender loads it.

    Raises:
        JobError: it cannot be loaded, an attribute is not what it must be, `setup` fails, or a file is missing.
    """
    job_class, tree = load_job(request.job)
    with blame(request.job.path, "class"):
        check_member_names(job_class, sources_of(request.job.path, tree))
    folder = request.job.base
    fields = _placed(resolve_fields(job_class, request.settings), request.settings, folder)
    with blame(request.job.path, "__init__"):
        check_init(job_class, fields)
        job = job_class(**fields)
    with blame(request.job.path, "class attributes"):
        described = Described(
            class_name=job_class.__name__,
            doc=(job_class.__doc__ or "").strip().split("\n")[0],
            source_sha256="",
            fields={name: json_value(value) for name, value in fields.items()},
            portable_fields={},
            frames=_frames(job),
            reuse_scene=job_class.reuse_scene,
            settings={},
            cameras=_cameras(job),
            categories=as_coco(_entries(job, "categories")),
            passes=_passes(request.passes, job),
            blend=_blend(request.blend, job, folder),
            trust_blend=request.trust_blend,
            missing_files=request.missing_files,
            devices=render.select_device(request.render.device),
        )
        _check_categories(described)
        declared = [Path(path) for path in _entries(job, "assets")]
    loaded, missing, notes = _rehearsed(job, request, described)
    paths = [value for value in fields.values() if isinstance(value, Path)]
    sources = sources_of(request.job.path, tree)  # `setup` may have imported more of them
    found = assets.digest([*paths, *declared, *loaded], described.blend)
    scale = bpy.context.scene.unit_settings.scale_length
    return dataclasses.replace(
        described,
        source_sha256=sources_sha256({source.name: source.sha256 for source in sources}),
        sources=sources,
        portable_fields={name: json_value(_portable(value, folder)) for name, value in fields.items()},
        settings={
            **({} if described.blend else render.DEFAULTS),
            **render.pinned(request.render),
            **({} if scale == 1 else {"unit_settings.scale_length": scale}),
        },
        assets=found,
        missing=missing,
        notes=[*member_notes(job_class), *notes, *_habits(sources)],
    )


def _placed(fields: Mapping[str, Any], given: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Make paths absolute: given ones are from where the command runs, defaults from the job file's folder."""
    placed = dict(fields)
    for name, value in fields.items():
        if isinstance(value, (list, tuple)) and any(isinstance(entry, Path) for entry in value):
            raise JobError(f"field {name} holds several paths; give a folder in a Path field, or name them in `assets`")
        if isinstance(value, Path):
            placed[name] = (Path.cwd() if name in given else folder) / value
            if not placed[name].exists():
                raise JobError(
                    f"field {name}: there is no file or folder {placed[name]}; set it with --set {name}=PATH"
                )
    return placed


def _portable(value: Any, folder: Path) -> Any:
    """Return a field's value as it is on any machine: paths relative to the job file's folder, others by their name."""
    if isinstance(value, Path):
        return value.relative_to(folder) if value.is_relative_to(folder) else Path(value.name)
    return value


def _entries(job: Job, attribute: str) -> list[Any]:
    """Return what an attribute of several values holds; one value alone is one."""
    value = getattr(job, attribute)
    if isinstance(value, (str, Path, Category)):
        return [value]
    try:
        return list(value)
    except TypeError:
        raise JobError(
            f"{type(job).__name__}.{attribute} is {value!r}, which must be several values; use a tuple: ({value!r},)"
        ) from None


def _frames(job: Job) -> list[int]:
    name, given = type(job).__name__, job.frames
    if isinstance(given, int):
        raise JobError(
            f"{name}.frames is {given}, not the frames to render; give frame {given} alone as ({given},),"
            f" frames 1 to {given} as range(1, {given + 1})"
        )
    frames = []
    for frame in _entries(job, "frames"):
        try:
            frames.append(operator.index(frame))
        except TypeError:
            raise JobError(f"{name}.frames holds {frame!r}; frames are whole numbers, as range(1, 61, 5)") from None
    if not frames:
        raise JobError(f"{name}.frames is empty; name at least one frame to render")
    if frames != sorted(set(frames)):
        raise JobError(f"{name}.frames must ascend without repeats: {frames[:8]}")
    return frames


def _cameras(job: Job) -> list[str]:
    names = _entries(job, "cameras")
    for name in names:
        if not isinstance(name, str) or not _CAMERA_NAME.fullmatch(name) or names.count(name) > 1:
            raise JobError(
                f"{type(job).__name__}.cameras: {name!r} cannot name members;"
                " give each camera a name of its own of small letters, digits and underscores,"
                " in setup(): bpy.data.objects['Camera'].name = 'left'"
            )
    return names


def _passes(names: Sequence[str], job: Job) -> list[str]:
    try:
        return passes.chosen(names, _entries(job, "passes"))
    except ValueError as error:
        where = "--passes" if names else f"{type(job).__name__}.passes"
        raise JobError(f"{where}: {error}") from None


def _check_categories(described: Described) -> None:
    if "categories" in described.passes and not described.categories:
        raise JobError(
            f"the pass categories needs {described.class_name}.categories: the names, in the order of their ids"
        )


def _blend(given: str, job: Job, folder: Path) -> str:
    if not given and job.blend is None:
        return ""
    path = Path(given).absolute() if given else folder / str(job.blend)
    if not path.is_file():
        raise JobError(f"there is no file {path}; give it with --blend, or fix {type(job).__name__}.blend")
    return str(path)


def _rehearsed(job: Job, request: Describe, described: Described) -> tuple[list[Path], list[str], list[str]]:
    """Build the scene as each episode will.

    Returns:
        The files that this reads, the names of those that it needs and that are lost, and what the user should know.
    """
    assets.begin(request.job.base, None)
    notes = build_scene(job, request.job, described, request.render)
    leave_edit_mode()
    notes += [
        *staging.choose_view_layer(job.view_layer, request.job.path),
        *engine_notes(request.render.engine),
        *_unit(),
    ]
    scene, files = bpy.context.scene, scene_files.collect(described.frames)
    if described.missing_files == "refuse":
        files.check(scene, described.blend)
    missing = assets.names(files.lost(scene), described.blend)
    blend = [Path(described.blend)] if described.blend else []
    return [*blend, *files.present(scene), *assets.used()], missing, [*notes, *files.notes(scene)]


def _unit() -> list[str]:
    """Return what a length is where Blender's unit is no metre."""
    scale = bpy.context.scene.unit_settings.scale_length
    if scale == 1:
        return []
    return [
        f"a Blender unit is {scale:.6g} m in this scene (its unit scale): lengths in annotations and passes are"
        " Blender units, and the plan's settings hold the scale"
    ]


def _habits(sources: Sequence[Asset]) -> list[str]:
    """Return what in the job's sources may differ from run to run."""
    found = [(source.name, offence) for source in sources for offence in offences(Path(source.path).read_bytes())]
    return [f"{name}, {offence}" for name, offence in found[:_MOST_HABITS]] + (
        [f"and {len(found) - _MOST_HABITS} more of this kind"] if len(found) > _MOST_HABITS else []
    )


_MOST_NAMED = 5


def engine_notes(engine: str) -> list[str]:
    """Return what the user should know of the scene as it is now, in `engine`.

    Workbench draws every surface as solid, whatever its material lets through and its object's visibility is set to;
    EEVEE draws shadow catchers and what Cycles sees indirectly only. Workbench has no motion blur.
    """
    if engine == "cycles":
        return []
    return [*_sharp(engine), *_solid(engine)]


def _sharp(engine: str) -> list[str]:
    if engine != "workbench" or not properties.shutter(bpy.context.scene):
        return []
    return ["workbench has no motion blur, which the scene asks for: its images are sharp; --engine cycles blurs them"]


def _solid(engine: str) -> list[str]:
    try:
        bodies = take(bpy.context.scene).all_bodies
    except (ValueError, JobError):  # reported when the first frame is rendered
        return []
    names = sorted({body.name for body in bodies if _is_drawn_otherwise(engine, body)})
    if not names:
        return []
    named = ", ".join(map(repr, names[:_MOST_NAMED])) + ", ..." * (len(names) > _MOST_NAMED)
    return [
        f"{engine} draws {len(names)} objects as solid that labels and passes see through or leave out ({named});"
        " --engine cycles draws them as labels and passes do"
    ]


def _is_drawn_otherwise(engine: str, body: Body) -> bool:
    if engine == "eevee":
        return body.unseen in (INDIRECT, SHADOW_CATCHER)
    return bool(body.unseen or (body.cover < SOLID).any())
