"""What a render of a scene needs: the data-blocks that are reached from what is shown, by the ways that Blender takes.

Where in doubt a data-block counts as needed: an image in a material that no face uses, for one. Not followed are nodes
that lead to no output, modifiers and objects that renders leave out, background images of cameras, brushes, the
compositor and the sequencer.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import bpy

from blender_jobs._render import animation

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
_OUTPUTS = frozenset(
    ["OUTPUT_MATERIAL", "OUTPUT_WORLD", "OUTPUT_LIGHT", "OUTPUT_LINESTYLE", "OUTPUT_AOV", "GROUP_OUTPUT"]
)
_OF_PHYSICS = frozenset(["COLLISION", "FLUID", "DYNAMIC_PAINT"])
_DEPTH = 3
"""How many structures within structures are looked into."""


def needed(scene: bpy.types.Scene) -> set[bpy.types.ID]:
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


def image_users() -> Iterator[tuple[Any, Any]]:
    """Yield each image with the settings by which something of what is loaded chooses its frame."""
    trees = [block.node_tree for kind in (bpy.data.materials, bpy.data.worlds, bpy.data.lights) for block in kind]
    for tree in [*trees, *bpy.data.node_groups]:
        for node in tree.nodes if tree else ():
            if getattr(node, "image", None) is not None and hasattr(node, "image_user"):
                yield node.image, node.image_user
    for texture in bpy.data.textures:
        if getattr(texture, "image", None) is not None:
            yield texture.image, texture.image_user


def reached_nodes(tree: bpy.types.NodeTree) -> list[bpy.types.Node]:
    """Return the nodes of a tree that its outputs depend on."""
    behind: dict[Any, list[Any]] = {}
    for link in tree.links:
        if not getattr(link, "is_muted", False):
            behind.setdefault(link.to_node, []).append(link.from_node)
    outputs = [node for node in tree.nodes if node.type in _OUTPUTS]
    active = [node for node in outputs if getattr(node, "is_active_output", True)]
    zones = {node.paired_output_node: node for node in tree.nodes if getattr(node, "paired_output_node", None)}
    found: dict[Any, None] = {}
    ahead = active or outputs
    while ahead:
        node = ahead.pop()
        if node not in found:
            found[node] = None
            ahead += behind.get(node, [])
            ahead += [zones[node]] if node in zones else []
    return list(found)


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
    for node in reached_nodes(tree):
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
