"""Set a job's scene up: empty or from a ``.blend``, pinned settings, `Job.setup`; its cameras and view layers."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bpy
from bpy.app.handlers import persistent

from blender_jobs import _simulations, stage
from blender_jobs._render import properties, render
from blender_jobs._worker.loading import blame
from blender_jobs.job import Job, JobError
from blender_jobs.orders import Described, JobSource, RenderSettings
from blender_jobs.parts import suggestion


def leave_edit_mode() -> None:
    """Apply what is being edited: files are saved so. Cycles renders it, but it is evaluated as empty."""
    for obj in bpy.context.scene.objects:
        if obj.mode == "EDIT":
            with bpy.context.temp_override(object=obj, active_object=obj):
                bpy.ops.object.mode_set(mode="OBJECT")


def build_scene(job: Job, source: JobSource, described: Described, settings: RenderSettings) -> list[str]:
    """Replace all that is in Blender by the job's scene; return what the user should know about its ``.blend``.

    The render settings are pinned before `Job.setup` too, so that it finds the image's size.

    Raises:
        JobError: the ``.blend`` cannot be used, or `setup` fails.
    """
    notes = []
    if described.blend:
        notes = open_blend(Path(described.blend), described.trust_blend)
    else:
        stage.clear()
        properties.apply(bpy.context.scene, render.DEFAULTS)
    notes += _pinned(settings)
    with blame(source.path, "setup"):
        job.setup()
    _simulations.contain_caches()  # of what `setup` has added
    return notes


def _pinned(settings: RenderSettings) -> list[str]:
    settled = render.pinned(settings)
    animated = properties.silence_animation(bpy.context.scene, settled)
    properties.apply(bpy.context.scene, settled)
    if not animated:
        return []
    return [f"the animation of {', '.join(animated)} in {Path(bpy.data.filepath).name} is ignored: the plan sets it"]


_HEADER = re.compile(rb"BLENDER(?:[-_][vV]|\d\d-\d\d[vV]0)(\d)(\d\d)")
"""How an uncompressed file begins, before Blender 5 and from there on: with the version that saved it."""

_WARNING = re.compile(
    r"(?:^|\| )(?:Warning:|Error:|(?:WARN|ERROR) \([\w.]+\):|WARNING|ERROR) *"
    r"(?:\S+\.(?:c|cc|cpp|hh):\d+ \w+: *)?(?P<said>.*\S)"
)
"""How Blender begins a line, before 5.0 and from there on; perhaps with the place in its own sources."""
_TOLD_OTHERWISE = re.compile(
    r"linked data-blocks are missing|^Unable to open |written by newer Blender binary"
    r"|No such file|not found$|file doesn't exist|^Unable to pack file"
)
_MOST_WARNINGS = 5
_NOT_COMPOSED = frozenset(["COMPOSITE", "FRAME", "GROUP_OUTPUT", "REROUTE", "R_LAYERS", "VIEWER"])
"""The nodes of a compositor that leave a picture as it is."""


def open_blend(path: Path, trusted: bool) -> list[str]:
    """Replace all that is in Blender by the file's content; return what the user should know about it.

    Args:
        path: the ``.blend`` file.
        trusted: whether its scripts and the Python expressions of its drivers may run.

    Raises:
        JobError: it cannot be read.
    """
    _check_version(path)
    _simulations.clear_caches()
    with _caches_contained(), _printed() as lines:
        try:
            bpy.ops.wm.open_mainfile(filepath=str(path), load_ui=False, use_scripts=trusted)
        except RuntimeError as error:
            raise JobError(f"{path}: Blender cannot open it: {' '.join(str(error).split())}") from None
    return [*_blend_notes(path), *_warnings(path, lines)]


@contextmanager
def _caches_contained() -> Iterator[None]:
    """See to the caches of what is opened within, once it is read and before Blender evaluates it and writes."""
    failed: list[Exception] = []

    @persistent  # type: ignore[untyped-decorator]
    def contain(*_: Any) -> None:
        try:
            _simulations.contain_caches()
        except Exception as error:  # Blender would print it, and go on
            failed.append(error)

    handlers = bpy.app.handlers.load_post
    handlers.insert(0, contain)
    try:
        yield
    finally:
        handlers.remove(contain)
    if failed:
        raise failed[0]


@contextmanager
def _printed() -> Iterator[list[str]]:
    """Gather the lines that Blender prints on stdout within; they go to where stdout goes, too."""
    lines: list[str] = []
    sys.stdout.flush()
    with tempfile.TemporaryFile() as file:
        kept = os.dup(1)
        os.dup2(file.fileno(), 1)
        try:
            yield lines
        finally:
            sys.stdout.flush()
            os.dup2(kept, 1)
            os.close(kept)
            file.seek(0)
            content = file.read()
            lines += content.decode(errors="replace").splitlines()
            sys.stdout.write(content.decode(errors="replace"))
            sys.stdout.flush()


def _warnings(path: Path, lines: Sequence[str]) -> list[str]:
    """Return what Blender warned of, except what we report in other words: a newer version, lost files."""
    said = [found["said"] for line in lines if (found := _WARNING.search(line))]
    said = [line for line in dict.fromkeys(said) if not _TOLD_OTHERWISE.search(line)]
    more = [f"and {len(said) - _MOST_WARNINGS} more warnings"] if len(said) > _MOST_WARNINGS else []
    return [*(f"Blender says about {path.name}: {line}" for line in said[:_MOST_WARNINGS]), *more]


def _check_version(path: Path) -> None:
    """Refuse a file of a newer Blender that this one may not survive opening; what is compressed does not tell.

    Blender 4.5 was made to open the files of 5; before, each new major version broke older ones.
    """
    with path.open("rb") as file:
        saved = _HEADER.match(file.read(20))
    running = bpy.app.version
    if saved is None or (running[:2] >= (4, 5) and int(saved[1]) <= 5):
        return
    if int(saved[1]) > running[0]:
        newer = f"{int(saved[1])}.{int(saved[2])}"
        raise JobError(
            f"{path} was saved by Blender {newer}, whose files {bpy.app.version_string} cannot open;"
            " render with a newer Blender, or save the file from an older one"
        )


def _blend_notes(path: Path) -> list[str]:
    notes = []
    if bpy.app.autoexec_fail:
        what = bpy.app.autoexec_fail_message or "a script"
        notes.append(f"{path.name} contains Python that was not run ({what}); --trust-blend runs it")
    saved, running = tuple(bpy.data.version), bpy.app.version
    if saved > (*running[:2], bpy.app.version_file[2]):
        newer = ".".join(map(str, saved if saved[:2] == running[:2] else saved[:2]))
        notes.append(f"{path.name} was saved by Blender {newer}: {bpy.app.version_string} may lose some of it")
    if undefined := _undefined():
        notes.append(f"{path.name} has nodes that this Blender lacks, perhaps from an add-on: {', '.join(undefined)}")
    scene = bpy.context.scene
    if scene.render.use_compositing and _composes(scene):
        notes.append(f"the compositor of {path.name} does not run: images are as rendered")
    if scene.render.use_sequencer and _strips(scene):
        notes.append(f"the sequencer of {path.name} does not run: images show the scene")
    return notes


def _undefined() -> list[str]:
    """Return where nodes are whose kind is not known, sorted; not the compositor's, which does not run."""
    owners = [*bpy.data.materials, *bpy.data.worlds, *bpy.data.lights, *bpy.data.node_groups]
    trees = [(owner, owner if isinstance(owner, bpy.types.NodeTree) else owner.node_tree) for owner in owners]
    return sorted(
        {owner.name for owner, tree in trees if tree and any(node.bl_idname == "NodeUndefined" for node in tree.nodes)}
    )


def _composes(scene: bpy.types.Scene) -> bool:
    tree = getattr(scene, "compositing_node_group", None)  # from Blender 5.0
    if bpy.app.version < (5, 0) and scene.use_nodes:
        tree = scene.node_tree
    return tree is not None and any(node.type not in _NOT_COMPOSED and not node.mute for node in tree.nodes)


def _strips(scene: bpy.types.Scene) -> bool:
    """Whether the sequencer would show something: a sound alone is not seen."""
    editor = scene.sequence_editor
    strips: Any = getattr(editor, "strips_all", None) or getattr(editor, "sequences_all", ())
    return any(strip.type != "SOUND" and not strip.mute for strip in strips)


def aim_camera(camera: str, job_path: str) -> bpy.types.Object:
    """Make a camera the scene's, or make sure that the scene has one of its own; return it.

    Raises:
        JobError: there is none.
    """
    scene = bpy.context.scene
    if camera:
        found = scene.objects.get(camera)
        if found is None or found.type != "CAMERA":
            raise JobError(f"{job_path}: the scene has no camera {camera!r}, which the job's `cameras` names")
        scene.camera = found
    elif scene.camera is None:
        raise JobError(f"{job_path}: the scene has no camera; make one in setup(): stage.camera(...)")
    return scene.camera


def choose_view_layer(view_layer: str, job_path: str) -> list[str]:
    """Render one view layer, and let no timeline marker set the camera; return what the user should know of it.

    Args:
        view_layer: the layer's name; empty: the active one.
        job_path: for messages.

    Raises:
        JobError: there is no such layer.
    """
    scene, notes = bpy.context.scene, []
    if view_layer and view_layer not in scene.view_layers:
        hint = suggestion(view_layer, scene.view_layers.keys())
        raise JobError(
            f"{job_path}: the scene has no view layer {view_layer!r}, which the job's `view_layer` names{hint}"
        )
    chosen = scene.view_layers[view_layer] if view_layer else bpy.context.view_layer
    if bpy.context.view_layer != chosen:
        bpy.context.window.view_layer = chosen
    for layer in scene.view_layers:
        if layer.use != (layer == chosen):
            layer.use = layer == chosen
    if len(scene.view_layers) > 1 and not view_layer:
        others = ", ".join(repr(layer.name) for layer in scene.view_layers if layer != chosen)
        notes.append(
            f"the scene has several view layers: image and annotations show {chosen.name!r}, the active one,"
            f" and not {others}; choose with the job's `view_layer`"
        )
    if bound := _unbind_markers(scene):
        notes.append(
            f"timeline markers switch to {', '.join(map(repr, bound))}: they are ignored;"
            " the scene's camera or the job's `cameras` are used"
        )
    return notes


def _unbind_markers(scene: bpy.types.Scene) -> list[str]:
    """Take the cameras from the scene's timeline markers, which would win over the chosen one; return their names."""
    bound = [marker for marker in scene.timeline_markers if marker.camera is not None]
    names = sorted({marker.camera.name for marker in bound})
    camera = scene.camera
    for marker in bound:
        marker.camera = None  # which sets the scene's camera to another marker's
    scene.camera = camera
    return names
