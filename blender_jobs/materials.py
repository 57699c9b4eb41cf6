"""Materials and colours: Blender's Principled BSDF under the same names in every version, and image textures.

Colours are linear RGB from 0 to 1, as everywhere in Blender's Python. `stage.paint` is the short way to a plain one.
"""

from __future__ import annotations

import colorsys
from typing import Any, Literal

import bpy
import numpy as np
import numpy.typing as npt

from blender_jobs import assets
from blender_jobs.job import JobError
from blender_jobs.stage import Range, Triple, use_nodes

__all__ = ["assign", "glass", "linear", "load_image", "principled", "random_color", "random_principled", "texture"]

Mapping = Literal["uv", "box", "generated"]

_DATA = "Non-Color"
"""Blender's colour space of what is no colour."""

_BLENDER_3_NAMES = {
    "Transmission Weight": "Transmission",
    "Specular IOR Level": "Specular",
    "Coat Weight": "Clearcoat",
    "Coat Roughness": "Clearcoat Roughness",
    "Sheen Weight": "Sheen",
    "Subsurface Weight": "Subsurface",
    "Emission Color": "Emission",
}


def principled(
    name: str,
    base_color: Triple = (0.8, 0.8, 0.8),
    metallic: float = 0.0,
    roughness: float = 0.5,
    ior: float = 1.5,
    transmission: float = 0.0,
    alpha: float = 1.0,
    specular: float = 0.5,
    coat: float = 0.0,
    emission: Triple = (0.0, 0.0, 0.0),
    emission_strength: float = 1.0,
) -> Any:
    """Return a new material; all as the sockets of Blender's Principled BSDF, factors from 0 to 1.

    Workbench shows its colour, `metallic`, `roughness` and `alpha`; EEVEE is set to let light through where
    `transmission` or `alpha` ask for it.
    """
    material = bpy.data.materials.new(name)
    use_nodes(material)
    values = {
        "Base Color": (*base_color, 1.0),
        "Metallic": metallic,
        "Roughness": roughness,
        "IOR": ior,
        "Transmission Weight": transmission,
        "Alpha": alpha,
        "Specular IOR Level": specular,
        "Coat Weight": coat,
        "Emission Color": (*emission, 1.0),
        "Emission Strength": emission_strength,
    }
    shader = shader_of(material)
    for socket, value in values.items():
        socket_of(shader, socket).default_value = value
    material.diffuse_color = (*base_color, alpha)
    material.metallic, material.roughness = metallic, roughness
    _let_through(material, refracts=transmission > 0, blends=alpha < 1)
    return material


def glass(name: str, tint: Triple = (1.0, 1.0, 1.0), roughness: float = 0.0, ior: float = 1.45) -> Any:
    """Return new glass: clear, tinted or frosted (`roughness`); water has an `ior` of 1.33, diamond 2.42.

    The mesh must be closed, with faces that look out. Light that meets more surfaces than the scene's bounces allow
    (`scene.cycles.transmission_bounces`, `max_bounces`: 4 unless a job sets them) is lost: raise them where glass is
    seen through glass.
    """
    return principled(name, base_color=tint, roughness=roughness, ior=ior, transmission=1.0)


def shader_of(material: Any) -> Any:
    """Return the material's Principled BSDF node.

    Raises:
        JobError: it has none.
    """
    for node in material.node_tree.nodes if material.node_tree else ():
        if node.type == "BSDF_PRINCIPLED":
            return node
    raise JobError(f"material {material.name!r} has no Principled BSDF")


def socket_of(shader: Any, name: str) -> Any:
    """Return the input of a Principled BSDF that Blender 4 and 5 call `name`, whatever the running version does."""
    return shader.inputs[_BLENDER_3_NAMES.get(name, name) if bpy.app.version < (4, 0) else name]


def assign(obj: Any, material: Any) -> None:
    """Let all faces of `obj` (and of objects that share its mesh) have this material and no other."""
    obj.data.materials.clear()
    obj.data.materials.append(material)


def random_color(
    rng: np.random.Generator,
    hue: Range = (0.0, 1.0),
    saturation: Range = (0.0, 1.0),
    value: Range = (0.0, 1.0),
) -> npt.NDArray[np.float64]:
    """Return a colour (3,), linear RGB: hue, saturation and value drawn as on the screen, from 0 to 1; three draws."""
    return linear(colorsys.hsv_to_rgb(rng.uniform(*hue) % 1.0, rng.uniform(*saturation), rng.uniform(*value)))


def linear(srgb: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return colours as on the screen, sRGB from 0 to 1, as linear RGB: the transfer function of IEC 61966-2-1."""
    encoded = np.asarray(srgb, dtype=np.float64)
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def random_principled(
    rng: np.random.Generator, name: str = "random", metal: float = 0.25, glass: float = 0.0, coated: float = 0.2
) -> Any:
    """Return a new material that could be one: a metal, glass, or a dielectric with or without a clear coat.

    `metal`, `glass` and `coated` (of the rest) are probabilities. The number of draws is always the same, so that
    what is drawn later does not depend on what came out.
    """
    kind, coat = rng.uniform(size=2)
    saturation, roughness = rng.uniform(size=2)
    hue, value = rng.uniform(), rng.uniform(0.2, 0.95)
    is_metal, is_glass = kind < metal, metal <= kind < metal + glass
    pale = 0.5 if is_metal else 0.25 if is_glass else 0.9  # metals and glass are never deeply coloured
    if is_metal or is_glass:
        value = 0.6 + 0.4 * value
    return principled(
        name,
        base_color=linear(colorsys.hsv_to_rgb(hue, pale * saturation, value)),
        metallic=float(is_metal),
        roughness=0.3 * roughness if is_glass else 0.05 + 0.9 * roughness,
        ior=1.45,
        transmission=float(is_glass),
        coat=float(not (is_metal or is_glass) and coat < coated),
    )


def texture(
    obj: Any,
    base_color: assets.AnyPath,
    roughness: assets.AnyPath | float = 0.5,
    metallic: assets.AnyPath | float = 0.0,
    normal: assets.AnyPath | None = None,
    mapping: Mapping = "uv",
    scale: float = 1.0,
) -> Any:
    """Cover `obj` with image files, and return its new material.

    Args:
        obj: a mesh.
        base_color: image of the colour, sRGB unless the file says otherwise.
        roughness: a number, or an image whose values are data.
        metallic: a number, or such an image.
        normal: a tangent space normal map as OpenGL has it (y up).
        mapping: ``uv``: the mesh's active UV map; ``box``: from six sides along the object's axes, repeating each
            metre of its own frame; ``generated``: the same, once over its bounding box.
        scale: how many times the image repeats where it would be once.

    Raises:
        JobError: a file is missing, not in the plan or not an image; or the mesh has no UV map.
    """
    if mapping not in ("uv", "box", "generated"):
        raise JobError(f"texture: mapping is {mapping!r}, which must be uv, box or generated")
    if mapping == "uv" and not obj.data.uv_layers:
        raise JobError(f"texture: object {obj.name!r} has no UV map; use mapping='box', or unwrap it")
    material = principled(f"{obj.name} texture")
    shader = shader_of(material)
    textures = _Textures(material.node_tree, mapping, scale)
    links = material.node_tree.links
    links.new(textures.color(base_color, is_data=False), shader.inputs["Base Color"])
    for socket, given in (("Roughness", roughness), ("Metallic", metallic)):
        if isinstance(given, int | float):
            shader.inputs[socket].default_value = given
        else:
            links.new(textures.color(given, is_data=True), shader.inputs[socket])
    if normal is not None:
        bump = material.node_tree.nodes.new("ShaderNodeNormalMap")
        links.new(textures.color(normal, is_data=True), bump.inputs["Color"])
        links.new(bump.outputs["Normal"], shader.inputs["Normal"])
    assign(obj, material)
    return material


def load_image(path: assets.AnyPath, is_data: bool = False) -> Any:
    """Return Blender's image of a file; `is_data`: its values are no colours (roughness, normals).

    Raises:
        JobError: the file is missing, unknown to the plan or no image.
    """
    file = assets.use(path)
    for loaded in bpy.data.images:
        if loaded.filepath == str(file) and (loaded.colorspace_settings.name == _DATA) == is_data:
            return loaded
    try:
        image = bpy.data.images.load(str(file))
    except RuntimeError as error:
        raise JobError(f"{file}: Blender cannot read it: {' '.join(str(error).split())}") from None
    if not image.size[0]:  # which makes Blender read it
        raise JobError(f"{file}: Blender cannot read it as an image")
    if is_data:
        image.colorspace_settings.name = _DATA
    return image


class _Textures:
    """Image texture nodes that share one mapping."""

    def __init__(self, tree: Any, mapping: Mapping, scale: float) -> None:
        self._tree, self._flat = tree, mapping == "uv"
        coordinates, self._mapping = tree.nodes.new("ShaderNodeTexCoord"), tree.nodes.new("ShaderNodeMapping")
        output = {"uv": "UV", "box": "Object", "generated": "Generated"}[mapping]
        tree.links.new(coordinates.outputs[output], self._mapping.inputs["Vector"])
        self._mapping.inputs["Scale"].default_value = (scale, scale, scale)

    def color(self, path: assets.AnyPath, is_data: bool) -> Any:
        """Return the colour output of a new image texture."""
        node = self._tree.nodes.new("ShaderNodeTexImage")
        node.image = load_image(path, is_data)
        node.projection = "FLAT" if self._flat else "BOX"
        self._tree.links.new(self._mapping.outputs["Vector"], node.inputs["Vector"])
        return node.outputs["Color"]


def _let_through(material: Any, refracts: bool, blends: bool) -> None:
    """EEVEE's switches; dithered, as blending by depth depends on the order of faces."""
    if bpy.app.version >= (4, 2):
        material.use_raytrace_refraction = refracts
        material.surface_render_method = "DITHERED"
    else:
        material.use_screen_refraction = refracts
        material.blend_method = "HASHED" if blends else "OPAQUE"
