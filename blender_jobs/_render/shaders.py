"""Shader nodes: which of them an output depends on, and what a material lets through, without a render."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import bpy

from blender_jobs._vision.surfaces import SOLID, THROUGH, UNSURE

LEAST_ALPHA = 0.05
"""A surface of less is looked through, by passes, keypoints and fractions alike; glass covers whole."""

Range = tuple[float, float]
"""The lowest and the highest alpha that a shader can have."""

_ANY, _FULL = (0.0, 1.0), (1.0, 1.0)
_COVERING = frozenset(
    [
        "BSDF_ANISOTROPIC",  # glossy, before Blender 4.0
        "BSDF_DIFFUSE",
        "BSDF_GLASS",
        "BSDF_GLOSSY",
        "BSDF_HAIR",
        "BSDF_HAIR_PRINCIPLED",
        "BSDF_METALLIC",
        "BSDF_REFRACTION",
        "BSDF_SHEEN",
        "BSDF_TOON",
        "BSDF_TRANSLUCENT",
        "BSDF_VELVET",
        "EMISSION",
        "HOLDOUT",
        "SUBSURFACE_SCATTERING",
    ]
)
"""Types of shader nodes that let nothing through."""

_OUTPUTS = frozenset(
    ["OUTPUT_MATERIAL", "OUTPUT_WORLD", "OUTPUT_LIGHT", "OUTPUT_LINESTYLE", "OUTPUT_AOV", "GROUP_OUTPUT"]
)
"""Types of nodes that a tree's values leave by."""


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


def cover(material: Any) -> int:
    """Return how a material covers what is behind it: `THROUGH`, `SOLID`, or `UNSURE` where only pixels tell."""
    output = _output(material)
    if output is None:
        return SOLID
    surface = _linked(output.inputs["Surface"])
    if surface is None:
        return THROUGH if output.inputs["Volume"].is_linked else SOLID
    low, high = _alpha(surface, 0)
    if high < LEAST_ALPHA:
        return THROUGH
    return SOLID if low >= LEAST_ALPHA else UNSURE


def holds_out(material: Any) -> bool:
    """Whether a material cuts a hole into the picture."""
    output = _output(material)
    surface = None if output is None else _linked(output.inputs["Surface"])
    return surface is not None and surface.node.type == "HOLDOUT"


def displaces(material: Any) -> bool:
    """Whether a material moves the surface itself, and not only its normals."""
    output = _output(material)
    if output is None or not output.inputs["Displacement"].is_linked:
        return False
    owner = material if hasattr(material, "displacement_method") else material.cycles  # before Blender 4.1
    return bool(owner.displacement_method != "BUMP")


def all_opaque(layer: bpy.types.ViewLayer) -> bool:
    """Whether a render of the layer has the same shapes with any other opaque material.

    That is: no material is transparent, a volume or displaced. Errs on the side of no.
    """
    materials = [layer.material_override] if layer.material_override else bpy.data.materials
    return not bpy.data.volumes and all(_is_plain(material) for material in materials)


@contextmanager
def shining() -> Iterator[bpy.types.Material]:
    """A material at which a ray ends, for as long as the context lasts."""
    material = bpy.data.materials.new("shining")
    try:
        if bpy.app.version < (5, 0):
            material.use_nodes = True  # from the start in Blender 5, which deprecates the switch
        tree = material.node_tree
        tree.nodes.clear()
        shader, output = tree.nodes.new("ShaderNodeEmission"), tree.nodes.new("ShaderNodeOutputMaterial")
        tree.links.new(shader.outputs[0], output.inputs["Surface"])
        _never_sampled(material.cycles)
        yield material
    finally:
        bpy.data.materials.remove(material)


@contextmanager
def clear_air() -> Iterator[None]:
    """Volumes are left out of materials and worlds: rays that scatter in them would never reach a surface.

    What is a volume alone is looked through meanwhile.
    """
    cut, added = [], []
    for owner in (*bpy.data.materials, *bpy.data.worlds):
        tree = owner.node_tree
        for node in list(tree.nodes) if tree else ():
            if node.type in ("OUTPUT_MATERIAL", "OUTPUT_WORLD") and node.inputs["Volume"].is_linked:
                link = node.inputs["Volume"].links[0]
                cut.append((tree, link.from_socket, link.to_socket))
                tree.links.remove(link)
                if node.type == "OUTPUT_MATERIAL" and not node.inputs["Surface"].is_linked:
                    added.append((tree, tree.nodes.new("ShaderNodeBsdfTransparent")))
                    tree.links.new(added[-1][1].outputs[0], node.inputs["Surface"])
    try:
        yield
    finally:
        for tree, node in added:
            tree.nodes.remove(node)
        for tree, source, target in cut:
            tree.links.new(source, target)


def _never_sampled(settings: Any) -> None:
    """No table of the scene's faces as lamps."""
    if hasattr(settings, "emission_sampling"):  # from Blender 3.5
        settings.emission_sampling = "NONE"
    else:
        settings.sample_as_light = False


def _is_plain(material: Any) -> bool:
    output = _output(material)
    if output is None:
        return True
    moved = output.inputs["Displacement"].is_linked or output.inputs["Volume"].is_linked
    holes = any(node.type == "HOLDOUT" for node in material.node_tree.nodes)
    return not (moved or holes) and _alpha_of(output.inputs["Surface"], 0)[0] >= 1


def _output(material: Any) -> Any:
    """Return the output node that Cycles uses; None where the material has no nodes."""
    tree = material.node_tree if material is not None and material.use_nodes else None
    return tree.get_output_node("CYCLES") if tree else None


def _linked(socket: Any) -> Any:
    """Return the output socket that an input is linked to, reroutes skipped; None for nothing."""
    while socket.is_linked and socket.links:
        link = socket.links[0]
        if link.is_muted:
            return None
        socket = link.from_socket
        if link.from_node.type != "REROUTE":
            return socket
        socket = link.from_node.inputs[0]
    return None


def _alpha_of(socket: Any, depth: int) -> Range:
    """Return the alpha of the shader at an input; nothing there is black, which covers."""
    source = _linked(socket)
    return _FULL if source is None else _alpha(source, depth)


def _alpha(source: Any, depth: int) -> Range:
    """Return the alpha of the shader at an output socket."""
    node = source.node
    if node.mute or depth > 50:
        return _ANY
    if node.type == "BSDF_TRANSPARENT":
        colour = node.inputs["Color"]
        alpha = 1 - sum(colour.default_value[:3]) / 3
        return _ANY if colour.is_linked else (alpha, alpha)
    if node.type == "BSDF_PRINCIPLED":
        alpha = node.inputs["Alpha"]
        return _ANY if alpha.is_linked else (float(alpha.default_value),) * 2
    if node.type == "MIX_SHADER":
        return _mixed(node.inputs[0], _alpha_of(node.inputs[1], depth + 1), _alpha_of(node.inputs[2], depth + 1))
    if node.type == "ADD_SHADER":
        (a, b), (c, d) = (_alpha_of(entry, depth + 1) if _linked(entry) else _FULL for entry in node.inputs)
        return max(0.0, a + c - 1), max(0.0, b + d - 1)
    if node.type == "GROUP" and node.node_tree:
        return _alpha_of_group(node, source, depth)
    return _FULL if node.type in _COVERING else _ANY


def _mixed(factor: Any, first: Range, second: Range) -> Range:
    if factor.is_linked:
        return min(first[0], second[0]), max(first[1], second[1])
    f = min(max(float(factor.default_value), 0.0), 1.0)
    return (1 - f) * first[0] + f * second[0], (1 - f) * first[1] + f * second[1]


def _alpha_of_group(node: Any, source: Any, depth: int) -> Range:
    """Return the alpha at a group's output; what comes in through the group's inputs may be anything."""
    for inner in node.node_tree.nodes:
        if inner.type == "GROUP_OUTPUT" and inner.is_active_output:
            for socket in inner.inputs:
                if socket.identifier == source.identifier:
                    return _alpha_of(socket, depth + 1)
    return _ANY
