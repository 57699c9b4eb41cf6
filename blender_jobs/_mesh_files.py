"""Read mesh files with Blender's importers, whatever the version calls them, and leave one mesh of what came in.

`meshes.load` is what jobs call.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

import bpy
import numpy as np

from blender_jobs import _simulations, assets, stage
from blender_jobs.job import JobError

UpAxis = Literal["Y", "Z"]


@dataclass(frozen=True)
class Format:
    """How one format is read: the operators that can, best first, with their options."""

    operators: Sequence[tuple[str, dict[str, Any]]]
    up: UpAxis
    """The axis that is up in such files; those that say it themselves are turned by Blender."""
    add_on: str = ""


_GLTF = Format([("import_scene.gltf", {})], "Y", "io_scene_gltf2")
FORMATS = {
    ".obj": Format([("wm.obj_import", {})], "Y"),
    ".ply": Format([("wm.ply_import", {}), ("import_mesh.ply", {})], "Z", "io_mesh_ply"),
    # The one in C++ is an unfinished experiment before Blender 4.1.
    ".stl": Format(
        [("wm.stl_import", {})] if bpy.app.version >= (4, 1) else [("import_mesh.stl", {})], "Z", "io_mesh_stl"
    ),
    ".fbx": Format(
        [("import_scene.fbx", {"use_anim": False}), ("wm.fbx_import", {"use_anim": False})], "Y", "io_scene_fbx"
    ),
    ".glb": _GLTF,
    ".gltf": _GLTF,
}


class Import:
    """What an import brings into Blender, and how to take out again what is not wanted.

    Importers also change the scene's frame range and rate, camera and world to the file's: these are put back.
    """

    _CONTENT = ("objects", "meshes", "curves", "armatures", "cameras", "lights", "actions", "collections", "worlds")
    _LOOKS = ("materials", "node_groups", "images")  # each is used by those before it

    def __init__(self) -> None:
        self._before = {group: self._pointers(group) for group in (*self._CONTENT, *self._LOOKS)}
        scene = bpy.context.scene
        kept = [(scene, name) for name in ("frame_start", "frame_end", "camera", "world")]
        kept += [(scene.render, name) for name in ("fps", "fps_base")]
        self._kept = [(owner, name, getattr(owner, name)) for owner, name in kept]

    def new(self, group: str) -> list[Any]:
        """Return what has come into a collection of `bpy.data`, sorted by name."""
        return [entry for entry in getattr(bpy.data, group) if entry.as_pointer() not in self._before[group]]

    def remove_all_but(self, obj: Any) -> None:
        """Leave of the import only this object, its mesh, and the materials that it has."""
        for group in self._CONTENT:
            bpy.data.batch_remove([entry for entry in self.new(group) if entry not in (obj, obj.data)])
        for group in self._LOOKS:
            bpy.data.batch_remove([entry for entry in self.new(group) if not entry.users])
        for owner, name, value in self._kept:
            setattr(owner, name, value)

    @staticmethod
    def _pointers(group: str) -> set[int]:
        return {entry.as_pointer() for entry in getattr(bpy.data, group)}


def read(file: Path, suffix: str, use_materials: bool, imported: Import) -> list[Any]:
    """Import a file; return the mesh objects that it is there for."""
    for companion in _companions(file, suffix, use_materials):
        assets.use(companion)
    form = FORMATS[suffix]
    operator, options = _operator(form, suffix)
    try:
        with _numpy_of_old():
            operator(filepath=str(file), **options)
    except RuntimeError as error:
        raise JobError(f"{file}: Blender cannot import it: {_cause(str(error))}") from None
    objects = imported.new("objects")
    shapes = [bone.custom_shape for obj in objects if obj.type == "ARMATURE" for bone in obj.pose.bones]
    return [obj for obj in objects if obj.type == "MESH" and obj not in shapes]


def importers() -> dict[str, bool]:
    """Return for each suffix whether this Blender can load such files."""
    return {suffix: _can_import(suffix) for suffix in sorted(FORMATS)}


def _can_import(suffix: str) -> bool:
    try:
        _operator(FORMATS[suffix], suffix)
    except JobError:
        return False
    return True


def _operator(form: Format, suffix: str) -> tuple[Any, dict[str, Any]]:
    for attempt in ("as it is", "with the add-on"):
        for path, options in form.operators:
            module, name = path.split(".")
            operator = getattr(getattr(bpy.ops, module), name)
            with suppress(KeyError):  # which says that there is none
                operator.get_rna_type()
                return operator, options
        if form.add_on and attempt == "as it is":
            with suppress(RuntimeError):  # there is no such add-on
                bpy.ops.preferences.addon_enable(module=form.add_on)
    raise JobError(
        f"Blender {bpy.app.version_string} cannot import {suffix} files, as this build lacks the add-on "
        f"{form.add_on}: use another format or another Blender"
    )


def _cause(said: str) -> str:
    """The one line that counts in an importer's message, which may hold a traceback."""
    causes = re.findall(r"^[\w.]*(?:[Ee]rror|Exception): .*$", said, re.MULTILINE)
    return str(causes[-1]) if causes else " ".join(said.split())


@contextmanager
def _numpy_of_old() -> Iterator[None]:
    """The glTF add-on of Blender 3.4 needs `numpy.bool`, which the numpy of some distributions' Blender has no more."""
    if "bool" in vars(np):
        yield
        return
    vars(np)["bool"] = bool
    try:
        yield
    finally:
        del vars(np)["bool"]


def _companions(file: Path, suffix: str, use_materials: bool) -> list[Path]:
    """Other files that a file names, textures of materials in files of their own apart."""
    if suffix == ".obj" and use_materials:
        with file.open("rb") as lines:
            named = [line.split(None, 1)[1] for line in lines if line.startswith(b"mtllib ")]
        return [file.parent / name.decode(errors="replace").strip() for name in named]
    if suffix == ".gltf":
        try:
            content = json.loads(file.read_bytes())
            entries = content.get("buffers", []) + (content.get("images", []) if use_materials else [])
            uris = [entry["uri"] for entry in entries if "uri" in entry]
        except (ValueError, AttributeError, TypeError):
            raise JobError(f"{file}: it is not a glTF file") from None
        return [file.parent / unquote(uri) for uri in uris if not uri.startswith("data:")]
    return []


def append(file: Path, object_name: str | None) -> list[Any]:
    """Append from a .blend; return the one mesh object asked for."""
    try:
        with bpy.data.libraries.load(str(file), link=False) as (source, wanted):
            if object_name is not None and object_name not in source.objects:
                raise JobError(
                    f"{file} has no object {object_name!r}; it has {', '.join(sorted(source.objects)) or 'none'}"
                )
            wanted.objects = list(source.objects) if object_name is None else [object_name]
    except OSError as error:
        raise JobError(f"{file}: Blender cannot read it: {' '.join(str(error).split())}") from None
    _simulations.contain_caches()
    found = [obj for obj in wanted.objects if obj.type == "MESH"]
    if len(found) != 1:
        names = ", ".join(sorted(obj.name for obj in found)) or "none"
        raise JobError(f"{file}: choose one mesh with object_name; it has {names}")
    if not bpy.context.scene.collection.all_objects.get(found[0].name):
        stage.link(found[0])
    found[0].hide_viewport = False
    return found


def joined(objects: Sequence[Any], name: str) -> Any:
    """One new object of what the objects are in the world, with modifiers and armatures."""
    bpy.context.view_layer.update()
    depsgraph = bpy.context.evaluated_depsgraph_get()
    parts = []
    for obj in objects:
        evaluated = obj.evaluated_get(depsgraph)
        data = bpy.data.meshes.new_from_object(evaluated, preserve_all_data_layers=True, depsgraph=depsgraph)
        data.transform(evaluated.matrix_world)
        if evaluated.matrix_world.determinant() < 0:
            data.flip_normals()
        if data.uv_layers.active is not None:
            data.uv_layers.active.name = "UVMap"  # layers are joined by name
        parts.append(stage.link(bpy.data.objects.new(name, data)))
    if len(parts) > 1:
        with bpy.context.temp_override(
            object=parts[0], active_object=parts[0], selected_objects=parts, selected_editable_objects=parts
        ):
            bpy.ops.object.join()
    return parts[0]


def check_images(images: Sequence[Any]) -> None:
    """What materials show is of the plan as well: each image that is a file of its own must be there and known.

    Tiles and sequences are looked at with the whole scene.
    """
    for image in images:
        if image.source not in ("SEQUENCE", "TILED") and image.filepath and image.packed_file is None and image.users:
            assets.use(bpy.path.abspath(image.filepath))
