"""Tell whether a scene's materials let nothing through: then one that shines costs a third in where-is-what renders."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import bpy

_OPAQUE = frozenset(
    [
        "ADD_SHADER",
        "BSDF_ANISOTROPIC",  # glossy, before Blender 4.0
        "BSDF_DIFFUSE",
        "BSDF_GLASS",
        "BSDF_GLOSSY",
        "BSDF_PRINCIPLED",
        "EMISSION",
        "MIX_SHADER",
    ]
)
"""Types of shader nodes that cover whatever is behind, or mix what does; for others we do not look further."""


def all_opaque(layer: bpy.types.ViewLayer) -> bool:
    """Whether a render of the layer has the same shapes with any other opaque material.

    That is: no material is transparent, a volume or displaced. Errs on the side of no.
    """
    materials = [layer.material_override] if layer.material_override else bpy.data.materials
    return not bpy.data.volumes and all(_is_opaque(material) for material in materials)


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


def _never_sampled(settings: Any) -> None:
    """No table of the scene's faces as lamps."""
    if hasattr(settings, "emission_sampling"):  # from Blender 3.5
        settings.emission_sampling = "NONE"
    else:
        settings.sample_as_light = False


def _is_opaque(material: bpy.types.Material) -> bool:
    return not material.node_tree or all(_covers(node) for node in material.node_tree.nodes)


def _covers(node: Any) -> bool:
    if node.type == "OUTPUT_MATERIAL":
        return not (node.inputs["Volume"].is_linked or node.inputs["Displacement"].is_linked)
    if node.type == "BSDF_PRINCIPLED":
        alpha = node.inputs["Alpha"]
        return not alpha.is_linked and alpha.default_value >= 1
    return node.type in _OPAQUE or all(socket.type != "SHADER" for socket in node.outputs)
