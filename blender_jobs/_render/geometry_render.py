"""Take the geometry out of Blender: a Cycles render of one sample at each pixel's centre, whatever the image's engine.

On the CPU, without light, filter, denoising or bounces: it says what is where, the same bytes each time. All that is
set for it is put back afterwards, so that the next image is as if nothing had happened.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bpy
import numpy as np
import numpy.typing as npt

from blender_jobs._render import animation, formats, shaders
from blender_jobs._render.geometry import Geometry
from blender_jobs._render.snapshot import view_layer
from blender_jobs.job import JobError

Change = tuple[Any, str, Any]
"""An owner, the name of one of its attributes, and a value for it."""

_MAX_OBJECTS = 32767
"""The highest `pass_index` that Blender takes."""
_UNSEEN_TYPES = frozenset(["ARMATURE", "CAMERA", "EMPTY", "LATTICE", "LIGHT", "LIGHT_PROBE", "SPEAKER"])
"""The types of objects that have no surface."""

_SETTINGS: list[tuple[str, Any]] = [
    ("render.engine", "CYCLES"),
    ("render.film_transparent", True),
    ("render.use_motion_blur", False),
    ("render.use_compositing", False),
    ("render.use_sequencer", False),
    ("render.use_freestyle", False),
    ("render.use_border", False),
    ("render.use_multiview", False),
    ("render.use_persistent_data", False),
    ("cycles.device", "CPU"),
    ("cycles.seed", 0),
    ("cycles.use_animated_seed", False),
    ("cycles.use_sample_subset", False),
    ("cycles.sample_offset", 0),
    ("cycles.time_limit", 0.0),
    ("cycles.use_adaptive_sampling", False),
    ("cycles.use_denoising", False),
    ("cycles.use_guiding", False),
    ("cycles.use_light_tree", False),
    ("cycles.use_fast_gi", False),
    ("cycles.use_auto_tile", False),
    ("cycles.film_transparent_glass", False),
    ("cycles.max_bounces", 0),
    ("cycles.transparent_max_bounces", 128),  # a ray may go through many cut-out leaves
    ("cycles.min_transparent_bounces", 128),  # or it ends by chance at what is faint, and finds nothing
]
"""Of the scene, in both renders."""
_CENTRE: list[tuple[str, Any]] = [
    ("cycles.samples", 1),
    ("cycles.pixel_filter_type", "BOX"),
    ("cycles.filter_width", 0.01),  # pixels; the least that Cycles takes
]
_COVERAGE: list[tuple[str, Any]] = [
    ("cycles.samples", 16),
    ("cycles.pixel_filter_type", "BLACKMAN_HARRIS"),
    ("cycles.filter_width", 1.5),
]
_FILE: list[tuple[str, Any]] = [
    ("render.image_settings.media_type", "MULTI_LAYER_IMAGE"),  # from Blender 5.0; what follows depends on it
    ("render.image_settings.file_format", "OPEN_EXR_MULTILAYER"),
    ("render.image_settings.color_mode", "RGBA"),
    ("render.image_settings.color_depth", "32"),
    ("render.image_settings.exr_codec", "NONE"),
    ("render.image_settings.use_exr_interleave", True),  # from Blender 5.0: one part
]
"""Uncompressed floats; put back in this order, too, for each limits the values of those after it."""

_INDEX_NAMES = ("IndexOB", "Object Index")
"""A pass's name before and from Blender 5.0."""
_SHADED = {"normals", "normals_world", "albedo"}
"""The passes that materials have a part in, opaque or not: bump maps, colours."""
_QUIET_OVERRIDE = (4, 5, 0)
"""In Blender 3.4, a layer's `material_override` makes rigid bodies move otherwise from then on; in 4.5 and 5.0, not."""
_ALBEDO_NAMES = ("DiffCol", "Diffuse Color")


def render_geometry(
    scene: bpy.types.Scene, wanted: Collection[str], scratch: Path, unseen: Collection[str] = ()
) -> Geometry:
    """Return what the scene's camera sees in the present frame, for the passes wanted (names of `passes.PASSES`).

    The frame is not changed. Seen is what a render shows of the context's view layer: render levels of modifiers,
    `hide_render`. Where a material's alpha is below `opaque.LEAST_ALPHA` it is looked through; elsewhere it counts
    whole, glass too. Volumes are looked through.
    Copies (of collection instances, particles, geometry nodes) have the index of the object that they are copies of.

    Args:
        scene: with a camera; the context's.
        wanted: which arrays are needed follows from them. Nothing is rendered for an empty collection.
        scratch: folder for the file that Blender writes.
        unseen: full names of objects that have a surface and count as nothing: shadow catchers.

    Raises:
        JobError: the scene cannot be rendered.
    """
    there = (obj for obj in bpy.data.objects if obj.type not in _UNSEEN_TYPES and obj.name_full not in unseen)
    objects = sorted(there, key=_full_name)
    if len(objects) > _MAX_OBJECTS:
        raise JobError(f"{len(objects)} objects; Blender distinguishes {_MAX_OBJECTS} in passes: remove some")
    arrays: dict[str, Any] = {}
    passes = set(wanted)
    common = [*_of_scene(scene, [*_SETTINGS, *_FILE]), *_of_camera(scene), *_of_layers(scene), *_of_lights()]
    if passes - {"alpha"}:
        changes = [*common, *_of_scene(scene, _CENTRE), *_of_passes(scene, passes)]
        with animation.all_handlers_off(), _shading(scene, passes), numbered(objects, unseen), changed(changes):
            arrays = _arrays(_channels(scene, scratch), passes)
    if "alpha" in passes:
        with animation.all_handlers_off(), _shading(scene, {"alpha"}), changed([*common, *_of_scene(scene, _COVERAGE)]):
            covered = _channels(scene, scratch)["Combined.A"]
            arrays["alpha"] = (covered.clip(0, 1) * 255).round().astype(np.uint8)
    return Geometry(objects=tuple(obj.name_full for obj in objects), **arrays)


@contextmanager
def changed(changes: Iterable[Change]) -> Iterator[None]:
    """Set attributes in order, and put them back afterwards, in the same order.

    What this Blender lacks is left out, what has the value already is not touched: Blender evaluates again what is.
    """
    present = [change for change in changes if hasattr(change[0], change[1])]
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in present]
    try:
        _set(present)
        yield
    finally:
        _set(before)


@contextmanager
def numbered(objects: Iterable[bpy.types.Object], unseen: Collection[str] = ()) -> Iterator[None]:
    """Give the objects the pass indices from 1, in their order; all objects have their own again afterwards.

    Those whose full names are in `unseen` have 0 meanwhile.
    """
    before = {obj: obj.pass_index for obj in bpy.data.objects}
    try:
        none = {obj: 0 for obj in before if obj.name_full in unseen}
        _number({**before, **none, **{obj: number for number, obj in enumerate(objects, 1)}})
        yield
    finally:
        _number(before)


def _number(indices: dict[bpy.types.Object, int]) -> None:
    """Set all objects' pass indices without Blender noticing: it would evaluate them, and rigid bodies move otherwise.

    A render takes them in any case. What is linked from a library can only be set so that it is noticed.
    """
    bpy.data.objects.foreach_set("pass_index", [indices[obj] for obj in bpy.data.objects])
    for obj, index in indices.items():
        if obj.pass_index != index:
            obj.pass_index = index


def _set(changes: list[Change]) -> None:
    for owner, name, value in changes:
        if getattr(owner, name) != value:
            setattr(owner, name, value)


def _full_name(obj: bpy.types.Object) -> str:
    name: str = obj.name_full  # with the library that it comes from, which makes it unique
    return name


def _of_scene(scene: bpy.types.Scene, settings: list[tuple[str, Any]]) -> Iterator[Change]:
    for path, value in settings:
        owner: Any = scene
        *folders, name = path.split(".")
        for folder in folders:
            owner = getattr(owner, folder)
        yield owner, name, value


def _of_camera(scene: bpy.types.Scene) -> Iterator[Change]:
    if scene.camera is not None and scene.camera.type == "CAMERA":
        yield scene.camera.data.dof, "use_dof", False


def _of_layers(scene: bpy.types.Scene) -> Iterator[Change]:
    """The context's view layer alone, and no sky: nothing is lit, and a large sky takes long to load."""
    chosen = view_layer(scene)
    for layer in scene.view_layers:
        yield layer, "use", layer == chosen
    yield chosen, "use_sky", False
    yield chosen, "samples", 0
    yield chosen, "pass_alpha_threshold", shaders.LEAST_ALPHA


def _of_lights() -> Iterator[Change]:
    """Lamps cost a third of the time and leave no trace in the passes."""
    for light in bpy.data.lights:
        yield light, "energy", 0.0


def _of_passes(scene: bpy.types.Scene, wanted: set[str]) -> Iterator[Change]:
    layer = view_layer(scene)
    yield layer, "use_pass_z", True
    yield layer, "use_pass_object_index", True
    yield layer, "use_pass_normal", bool(wanted & {"normals", "normals_world"})
    yield layer, "use_pass_diffuse_color", "albedo" in wanted


@contextmanager
def _shading(scene: bpy.types.Scene, wanted: set[str]) -> Iterator[None]:
    """Leave the materials out where nothing wanted depends on them, which makes a render three times as fast."""
    layer = view_layer(scene)
    if bpy.app.version < _QUIET_OVERRIDE or wanted & _SHADED or not shaders.all_opaque(layer):
        with shaders.clear_air():
            yield
        return
    with shaders.shining() as material, changed([(layer, "material_override", material)]):
        yield


def _channels(scene: bpy.types.Scene, scratch: Path) -> dict[str, npt.NDArray[np.float32]]:
    """Render; return the view layer's channels by name ("Depth.Z"), each (H, W)."""
    path = scratch / "geometry.exr"
    try:
        bpy.ops.render.render()
        bpy.data.images["Render Result"].save_render(str(path), scene=scene)
    except RuntimeError as error:
        raise JobError(f"Cycles cannot render this scene's passes: {' '.join(str(error).split())}") from None
    channels = formats.read_exr(path.read_bytes())
    path.unlink()
    layer = f"{view_layer(scene).name}."
    return {name[len(layer) :]: array for name, array in channels.items() if name.startswith(layer)}


def _arrays(channels: dict[str, npt.NDArray[np.float32]], wanted: set[str]) -> dict[str, npt.NDArray[Any]]:
    """The arrays of `Geometry` out of Cycles' passes."""
    index = next(channels[f"{name}.X"] for name in _INDEX_NAMES if f"{name}.X" in channels).astype(np.uint16)
    nothing = index == 0
    arrays: dict[str, npt.NDArray[Any]] = {
        "index": index,
        "depth": np.where(nothing, np.float32(np.inf), channels["Depth.Z"]),
    }
    if wanted & {"normals", "normals_world"}:
        normals = np.stack([channels[f"Normal.{axis}"] for axis in "XYZ"], axis=-1)
        lengths = np.linalg.norm(normals, axis=-1, keepdims=True)
        normals = np.divide(normals, lengths, out=np.zeros_like(normals), where=lengths > 0)
        arrays["normals"] = np.where(nothing[..., None], np.float32(0), normals)
    if "albedo" in wanted:
        name = next(name for name in _ALBEDO_NAMES if f"{name}.R" in channels)
        colours = np.stack([channels[f"{name}.{channel}"] for channel in "RGB"], axis=-1)
        arrays["albedo"] = np.where(nothing[..., None], np.float32(0), colours)
    return arrays
