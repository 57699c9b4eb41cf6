"""The files that a scene reads, apart from its ``.blend``: which of them a render needs, and which are lost.

A render needs the data-blocks that are reached from what is shown, by the ways that Blender takes. Where in doubt a
data-block counts as needed: an image in a material that no face uses, for one. Not followed are nodes that lead to no
output, modifiers and objects that renders leave out, background images of cameras, brushes, the compositor and the
sequencer.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bpy

from blender_jobs import assets
from blender_jobs._render import animation, shaders
from blender_jobs._worker.readers import Frames, Reads, files_read, shortened
from blender_jobs.job import JobError

_OF_BLENDER = "datafiles/assets"
"""In the path of what comes with Blender: brushes of the Blender that saved the file, for one."""

_Step = tuple[Any, bool]
"""A data-block, and whether it is seen; if not, it only moves or shapes what is."""

_NOT_FOLLOWED = frozenset(
    [
        "active_texture",
        "animation_data",
        "asset_data",
        "background_images",
        "id_data",
        "library",
        "library_weak_reference",
        "node_tree",
        "original",
        "override_library",
        "parent",
        "preview",
        "rna_type",
        "shape_keys",
    ]
)
_ALIKE = frozenset(["materials", "texture_slots", "bakes", "targets"])
"""Collections that are followed; others may be large."""
_OF_PHYSICS = frozenset(["COLLISION", "FLUID", "DYNAMIC_PAINT"])
_DEPTH = 3
"""How many structures within structures are looked into."""


@dataclass(frozen=True)
class SceneFiles:
    """What all data-blocks of the loaded scenes read."""

    reads: Sequence[Reads]

    def present(self, scene: bpy.types.Scene) -> list[Path]:
        """Return the files that are there, sorted, needed or not: a job may use what the scene does not yet show.

        Without damaged images that a render of the scene, as it is now, does not need.
        """
        files = {file for entry in self.reads for file in entry.present}
        files -= set(self._damaged(scene))
        return sorted(file for file in files if _OF_BLENDER not in file.as_posix())

    def lost(self, scene: bpy.types.Scene) -> list[Path]:
        """Return the files that a render of the scene, as it is now, needs and that are not there; sorted."""
        return sorted({file for entry in self._needed(scene, self._lacking) for file in entry.lost})

    def notes(self, scene: bpy.types.Scene) -> list[str]:
        """Return what the user should know: what is lost and not needed, and what cannot be known."""
        needed = self._needed(scene, self._lacking)
        others = sorted({file for entry in self.reads if entry not in needed for file in entry.lost})
        notes = list(dict.fromkeys(entry.note for entry in self.reads if entry.note))
        if lost := sorted({file for entry in needed for file in entry.lost}):
            notes.append(f"rendered without missing files: {_in_words(lost)}")
        if others:
            notes.append(f"missing, but not needed for rendering: {_in_words(others)}")
        if damaged := self._damaged(scene):
            notes.append(f"damaged, but not needed for rendering: {_in_words(damaged)}")
        return notes

    def check(self, scene: bpy.types.Scene, blend: str) -> None:
        """Make sure that nothing is lost which a render of the scene, as it is now, needs.

        Raises:
            JobError: something is; all of it, in one line.
        """
        files = self.lost(scene)
        if not files:
            return
        where, it = blend or "the scene", "it" if len(files) == 1 else "them"
        what = f"{files[0]}, which is missing" if len(files) == 1 else f"{len(files)} missing files: {_in_words(files)}"
        raise JobError(
            f"{where} uses {what}; put {it} there, or open the file in Blender and use"
            " File > External Data > Find Missing Files; or render without: --missing-files allow"
        )

    @property
    def _lacking(self) -> list[Reads]:
        return [entry for entry in self.reads if entry.lost]

    def _damaged(self, scene: bpy.types.Scene) -> list[Path]:
        """Return the damaged images that a render of the scene does not need, sorted."""
        damaged = {file for entry in self.reads for file in entry.present if assets.damage(file)}
        readers = [entry for entry in self.reads if not damaged.isdisjoint(entry.present)]
        needed = {file for entry in self._needed(scene, readers) for file in entry.present}
        return sorted(damaged - needed)

    def _needed(self, scene: bpy.types.Scene, readers: Sequence[Reads]) -> list[Reads]:
        """Return those of the readers that a render of the scene, as it is now, depends on."""
        if not readers:
            return []
        wanted = _needed_by(scene)
        wanted |= {block.library for block in wanted if block.library is not None}
        return [entry for entry in readers if entry.is_used and entry.owner in wanted]


def collect(frames: Frames) -> SceneFiles:
    """Return what everything that is loaded reads.

    Args:
        frames: those that are rendered.
    """
    return SceneFiles(files_read(frames))


def _in_words(files: Sequence[Path]) -> str:
    return ", ".join(shortened(files))


def _needed_by(scene: bpy.types.Scene) -> set[bpy.types.ID]:
    """Return the data-blocks that a render of the scene as it is now depends on, as far as they may read files."""
    seen: set[Any] = set()
    moving: set[Any] = set()
    ahead = list(_roots(scene))
    while ahead:
        block, is_seen = ahead.pop()
        done = seen if is_seen else moving
        if block is not None and block not in seen and block not in done:
            done.add(block)
            ahead += _used(block, is_seen)
    return seen | moving


def _roots(scene: bpy.types.Scene) -> Iterator[_Step]:
    yield scene.world, True
    for layer in scene.view_layers:
        if layer.use:
            yield layer.material_override, True
            yield getattr(layer, "world_override", None), True
            for obj in _shown(layer.layer_collection):
                yield obj, True
    for obj in scene.objects:
        pushes = obj.rigid_body or any(modifier.type in _OF_PHYSICS for modifier in obj.modifiers)
        if pushes or obj.type == "CAMERA" or (obj.field is not None and obj.field.type != "NONE"):
            yield obj, False
    if scene.background_set is not None:
        yield from _roots(scene.background_set)


def _shown(layer_collection: bpy.types.LayerCollection) -> Iterator[bpy.types.Object]:
    if not layer_collection.exclude and not layer_collection.collection.hide_render:
        yield from filter(_is_rendered, layer_collection.collection.objects)
        for child in layer_collection.children:
            yield from _shown(child)
    elif layer_collection.exclude:  # what lies in it is excluded by itself
        for child in layer_collection.children:
            yield from _shown(child)


def _is_rendered(obj: bpy.types.Object) -> bool:
    """Whether a render shows the object, now or as its animation goes on."""
    return not obj.hide_render or any(curve.data_path == "hide_render" for curve in animation.curves(obj))


def _used(block: Any, is_seen: bool) -> Iterator[_Step]:
    yield from ((target, False) for target in _driving(block))
    if isinstance(block, bpy.types.Object):
        yield from _used_by_object(block, is_seen)
    elif isinstance(block, bpy.types.Collection):
        yield from ((obj, True) for obj in block.objects if _is_rendered(obj))
        yield from ((child, True) for child in block.children if not child.hide_render)
    elif isinstance(block, bpy.types.NodeTree):
        yield from ((found, True) for found in _in_tree(block))
    else:
        if getattr(block, "use_nodes", True) and (tree := getattr(block, "node_tree", None)) is not None:
            yield from ((found, True) for found in _in_tree(tree))
            yield from ((target, False) for target in _driving(tree))
        yield _image_in_workbench(block), True
        found = _pointers(block)
        yield from ((part, is_seen) for part in found if is_seen or not isinstance(part, bpy.types.Material))


def _used_by_object(obj: bpy.types.Object, is_seen: bool) -> Iterator[_Step]:
    yield obj.data, is_seen
    yield obj.parent, False
    yield getattr(obj.field, "texture", None), False
    if is_seen:
        yield from ((slot.material, True) for slot in obj.material_slots)
        if obj.instance_type == "COLLECTION":
            yield obj.instance_collection, True
        elif obj.instance_type in ("VERTS", "FACES"):
            yield from ((child, True) for child in obj.children)
    for modifier in obj.modifiers:
        if modifier.show_render:
            yield from ((found, is_seen) for found in _pointers(modifier))
            values = [value for _, value in modifier.items()] if modifier.type == "NODES" else []
            yield from ((value, True) for value in values if isinstance(value, bpy.types.ID))
    for owner in [obj, *(obj.pose.bones if obj.pose else ())]:
        for constraint in owner.constraints:
            yield from ((found, False) for found in _pointers(constraint) if not constraint.mute)


def _driving(block: Any) -> Iterator[Any]:
    """Yield what the drivers of a data-block read."""
    data = getattr(block, "animation_data", None)
    for driver in data.drivers if data is not None else ():
        for variable in driver.driver.variables:
            yield from (target.id for target in variable.targets if not isinstance(target.id, bpy.types.Scene))


def _in_tree(tree: bpy.types.NodeTree) -> Iterator[Any]:
    for node in shaders.reached_nodes(tree):
        if not node.mute:
            yield from _pointers(node)
            yield getattr(node, "node_tree", None)
            for socket in node.inputs:
                value = getattr(socket, "default_value", None)
                if isinstance(value, bpy.types.ID):
                    yield value


def _image_in_workbench(block: Any) -> Any:
    """Return the image that Workbench shows of a material where it is set to show textures."""
    scene = bpy.context.scene
    shown = scene.render.engine == "BLENDER_WORKBENCH" and scene.display.shading.color_type == "TEXTURE"
    if not shown or not isinstance(block, bpy.types.Material) or block.node_tree is None:
        return None
    return getattr(block.node_tree.nodes.active, "image", None)


def _pointers(struct: Any, depth: int = _DEPTH) -> Iterator[Any]:
    """Yield the data-blocks that a structure, and what is part of it, refers to."""
    kind: Any = type(struct)
    for name, is_collection in _followed(kind):
        value = getattr(struct, name, None)
        for part in (value if is_collection else [value]) or ():
            if isinstance(part, bpy.types.ID):
                yield part
            elif part is not None and depth:
                yield from _pointers(part, depth - 1)


@functools.lru_cache(maxsize=1024)
def _followed(kind: Any) -> list[tuple[str, bool]]:
    """Return the properties of a kind of structure that may refer to data-blocks, and which are collections."""
    entries = [entry for entry in kind.bl_rna.properties if entry.identifier not in _NOT_FOLLOWED]
    single = [(entry.identifier, False) for entry in entries if entry.type == "POINTER"]
    return [*single, *((entry.identifier, True) for entry in entries if entry.identifier in _ALIKE)]
