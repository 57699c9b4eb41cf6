"""2D boxes, silhouettes and 3D boxes against the pixels that a picture shows of a thing, whatever its shape comes from.

A red thing stands alone before a blue sky, so that its extent is that of the red pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import in_blender
from tests.blender_jobs.labels.judging import eroded
from tests.blender_jobs.labels.playing import keep, kept
from tests.in_blender import needs_bpy, scene

pytestmark = [needs_bpy, pytest.mark.slow]

SIZE = (96, 72)
APART = 1.6
"""Pixels that an edge of a box may be from that of the red pixels, which are counted whole."""
FINE = {"hair": 2.6, "hair_children": 2.6, "hair_curves": 2.0, "skin": 2.0}

SHAPES: dict[str, Callable[[], Any]] = {}
SURFACELESS: dict[str, Callable[[], Any]] = {}


def shape(function: Callable[[], Any]) -> Callable[[], Any]:
    SHAPES[function.__name__] = function
    return function


def surfaceless(function: Callable[[], Any]) -> Callable[[], Any]:
    SURFACELESS[function.__name__] = function
    return function


def red_cube(size: float = 1.0, at: tuple[float, float, float] = (0, 0, 0)) -> Any:
    from tests.blender_jobs.labels import things

    return things.cube("target", at, things.glow(things.RED), size)


def red(made: Any) -> Any:
    from tests.blender_jobs.labels import things

    made.data.materials.append(things.glow(things.RED))
    return made


# --- Shapes ---------------------------------------------------------------------------------------------------


@shape
def cube() -> Any:
    return red_cube()


@shape
def smooth_in_renders() -> Any:
    made = red_cube(2.0)
    modifier = made.modifiers.new("smooth", "SUBSURF")
    modifier.levels, modifier.render_levels = 0, 3
    return made


@shape
def smooth_in_the_viewport() -> Any:
    made = red_cube(1.5)
    modifier = made.modifiers.new("smooth", "SUBSURF")
    modifier.levels, modifier.render_levels = 3, 0
    return made


@shape
def multires() -> Any:
    import bpy

    made = red_cube(2.0)
    bpy.context.view_layer.objects.active = made
    modifier = made.modifiers.new("sculpted", "MULTIRES")
    for _ in range(2):
        bpy.ops.object.multires_subdivide(modifier=modifier.name)
    modifier.levels, modifier.sculpt_levels, modifier.render_levels = 0, 0, 2
    return made


@shape
def row_in_renders() -> Any:
    made = red_cube(0.6, (-0.8, 0, 0))
    modifier = made.modifiers.new("row", "ARRAY")
    modifier.count, modifier.show_viewport = 3, False
    return made


@shape
def row_in_the_viewport() -> Any:
    made = red_cube(0.6, (-0.8, 0, 0))
    modifier = made.modifiers.new("row", "ARRAY")
    modifier.count, modifier.show_render = 3, False
    return made


@shape
def masked_in_renders() -> Any:
    """Its upper half is left out of renders."""
    made = red_cube(1.5)
    made.vertex_groups.new(name="low").add([n for n, v in enumerate(made.data.vertices) if v.co.z < 0], 1.0, "ADD")
    modifier = made.modifiers.new("mask", "MASK")
    modifier.vertex_group, modifier.show_viewport = "low", False
    return made


@shape
def thickened() -> Any:
    from tests.blender_jobs.labels import things

    made = things.wall("target", (0, 0, 0), things.glow(things.RED))
    made.rotation_euler = (0, 0, 1.0)
    modifier = made.modifiers.new("thick", "SOLIDIFY")
    modifier.thickness, modifier.offset = 0.6, 1.0
    return made


@shape
def displaced() -> Any:
    made = red_cube()
    made.modifiers.new("away", "DISPLACE").strength = 0.5
    return made


@shape
def displaced_by_its_shader() -> Any:
    """Only the pixels can tell."""
    made = red_cube()
    material = made.data.materials[0]
    tree = material.node_tree
    away = tree.nodes.new("ShaderNodeDisplacement")
    away.inputs["Height"].default_value, away.inputs["Scale"].default_value = 1.0, 1.0
    output = next(node for node in tree.nodes if node.type == "OUTPUT_MATERIAL")
    tree.links.new(away.outputs[0], output.inputs["Displacement"])
    material.displacement_method = "DISPLACEMENT"
    return made


@shape
def wire() -> Any:
    made = red_cube(1.5)
    made.modifiers.new("wire", "WIREFRAME").thickness = 0.3
    return made


@shape
def skin() -> Any:
    import bpy

    data = bpy.data.meshes.new("bones")
    data.from_pydata([(-0.8, 0, 0), (0, 0, 0.5), (0.8, 0, 0)], [(0, 1), (1, 2)], [])
    from tests.blender_jobs.labels import things

    made = red(things.linked("target", data))
    bpy.context.view_layer.objects.active = made
    made.modifiers.new("skin", "SKIN")
    return made


@shape
def hair() -> Any:
    from tests.blender_jobs.labels import things

    return things.particle_hair("target", (0, 0, 0), things.glow(things.RED)).owner


@shape
def hair_children() -> Any:
    from tests.blender_jobs.labels import things

    made = things.particle_hair("target", (0, 0, 0), things.glow(things.RED)).owner
    settings = made.particle_systems[0].settings
    settings.count, settings.child_type, settings.rendered_child_count, settings.child_percent = 20, "SIMPLE", 20, 0
    made.rotation_euler = (0, 0, 1.2)
    return made


@shape
def hair_curves() -> Any:
    from tests.blender_jobs.labels import things

    return things.hair_curves("target", (0, 0, 0), things.glow(things.RED)).owner


@shape
def point_cloud() -> Any:
    from tests.blender_jobs.labels import things

    return things.points("target", (0, 0, 0), things.glow(things.RED)).owner


@shape
def metaball_family() -> Any:
    """The first of a family has the surface of all."""
    import bpy

    from tests.blender_jobs.labels import things

    mother = things.metaball("ball", (-0.7, 0, 0), things.glow(things.RED)).owner
    for number, x in enumerate((0.2, 1.0), 1):
        data = bpy.data.metaballs.new(f"ball.00{number}")
        data.elements.new().radius = 1.0
        things.linked(f"ball.00{number}", data, (x, 0, 0.2))
    return mother


@shape
def loose_vertices() -> Any:
    """A box is around what can be seen."""
    made = red_cube(0.8)
    made.data.vertices.add(2)
    made.data.vertices[8].co, made.data.vertices[9].co = (1.5, 0, 0), (0, 0, -1.2)
    made.data.edges.add(1)
    made.data.edges[-1].vertices = (0, 8)
    return made


@shape
def curve_with_a_profile() -> Any:
    import bpy

    from tests.blender_jobs.labels import things

    data = bpy.data.curves.new("path", "CURVE")
    data.dimensions, data.bevel_depth, data.resolution_u, data.render_resolution_u = "3D", 0.15, 2, 24
    spline = data.splines.new("BEZIER")
    spline.bezier_points.add(1)
    for point, x in zip(spline.bezier_points, (-0.9, 0.9), strict=True):
        point.co, point.handle_left, point.handle_right = (x, 0, 0), (x, 0, 1.6), (x, 0, 1.6)
    return red(things.linked("target", data))


@shape
def filled_curve() -> Any:
    import bpy

    bpy.ops.curve.primitive_bezier_circle_add(radius=0.8, rotation=(math.pi / 2, 0, 0))
    bpy.context.object.data.dimensions, bpy.context.object.data.fill_mode = "2D", "BOTH"
    return red(bpy.context.object)


@shape
def text() -> Any:
    from tests.blender_jobs.labels import things

    made = things.text("target", (0, 0, 0), things.glow(things.RED)).owner
    made.data.body = "Ag"
    return made


@shape
def nurbs_surface() -> Any:
    from tests.blender_jobs.labels import things

    return things.nurbs_surface("target", (0, 0, 0), things.glow(things.RED)).owner


@shape
def shape_key() -> Any:
    made = red_cube()
    made.shape_key_add(name="Basis")
    key = made.shape_key_add(name="high")
    for point in key.data:
        point.co.z *= 1.8
    key.value = 1.0
    return made


@shape
def bent_by_bones() -> Any:
    import bpy

    from tests.blender_jobs.labels import things

    data = bpy.data.armatures.new("rig")
    rig = things.linked("rig", data)
    bpy.context.view_layer.objects.active = rig
    bpy.ops.object.mode_set(mode="EDIT")
    bone = data.edit_bones.new("bone")
    bone.head, bone.tail = (0, 0, 0), (0, 0, 1)
    bpy.ops.object.mode_set(mode="OBJECT")
    made = red_cube()
    made.vertex_groups.new(name="bone").add(range(8), 1.0, "ADD")
    made.modifiers.new("rig", "ARMATURE").object = rig
    rig.pose.bones["bone"].location = (0.7, 0.3, 0)
    rig.pose.bones["bone"].rotation_mode = "XYZ"
    rig.pose.bones["bone"].rotation_euler = (0, 0.6, 0.4)
    return made


@shape
def sheared_by_its_parent() -> Any:
    from tests.blender_jobs.labels import things

    parent = things.linked("parent", None)
    parent.scale = (2.0, 1.0, 0.6)
    made = red_cube(0.8)
    made.parent, made.rotation_euler = parent, (0.3, 0.7, 0.4)
    return made


@shape
def mirrored() -> Any:
    made = red_cube(0.6, (0.8, 0, 0.2))
    made.scale = (-1.5, 1, 1)
    return made


@shape
def copies_made_real() -> Any:
    from tests.blender_jobs.labels import things

    maker = things.dots("target", [(-1, 0, 0), (0.9, 0, 0.4)])
    tree, entry, output = things.node_group(maker)
    part = things.cube("part", things.AWAY, things.glow(things.RED), 0.5)
    copies = things.spread(tree, entry, output, "GeometryNodeObjectInfo", "Object", part)
    real = tree.nodes.new("GeometryNodeRealizeInstances")
    tree.links.new(copies.outputs[0], real.inputs[0])
    tree.links.new(real.outputs[0], output.inputs[0])
    return maker


@shape
def mesh_beside_its_copies() -> Any:
    """Nodes that keep the mesh and put copies beside it: the box is the mesh's, copies are for themselves."""
    from tests.blender_jobs.labels import things

    made = red_cube(0.8)
    tree, entry, output = things.node_group(made)
    part = things.cube("part", things.AWAY, things.glow(things.GREEN), 0.4)
    copies = things.spread(tree, entry, output, "GeometryNodeObjectInfo", "Object", part)
    join = tree.nodes.new("GeometryNodeJoinGeometry")
    for out in (entry.outputs[0], copies.outputs[0]):
        tree.links.new(out, join.inputs[0])
    tree.links.new(join.outputs[0], output.inputs[0])
    return made


@shape
def partly_outside() -> Any:
    return red_cube(1.4, (1.9, 0, 1.2))


@shape
def through_the_camera() -> Any:
    """A beam from behind the camera to before it."""
    from tests.blender_jobs.labels import things

    made = things.cube("target", (0.6, -4, -0.8), things.glow(things.RED), 1.0)
    made.scale = (0.3, 12, 0.3)
    return made


@shape
def cut_by_the_clip_range() -> Any:
    import bpy

    made = red_cube(1.0)
    made.scale = (3, 8, 0.3)
    bpy.context.scene.camera.data.clip_start, bpy.context.scene.camera.data.clip_end = 4.0, 7.0
    return made


@shape
def seen_in_parallel() -> Any:
    import bpy

    bpy.context.scene.camera.data.type, bpy.context.scene.camera.data.ortho_scale = "ORTHO", 4.0
    made = red_cube(1.2)
    made.rotation_euler = (0.4, 0.5, 0.6)
    return made


@shape
def seen_through_a_shifted_lens() -> Any:
    import bpy

    bpy.context.scene.camera.data.shift_x, bpy.context.scene.camera.data.shift_y = 0.2, -0.15
    made = red_cube(1.2)
    made.rotation_euler = (0.4, 0.5, 0.6)
    return made


@shape
def thin() -> Any:
    """Less than a pixel across."""
    from tests.blender_jobs.labels import things

    made = things.cube("target", (0, 0, 0), things.glow(things.RED), 1.0)
    made.scale = (2.0, 0.01, 0.03)
    return made


@shape
def kept_from_the_viewport() -> Any:
    made = red_cube(1.2)
    made.modifiers.new("smooth", "SUBSURF").render_levels = 2
    made.hide_viewport = True
    return made


# --- What has no surface --------------------------------------------------------------------------------------


@surfaceless
def empty() -> Any:
    from tests.blender_jobs.labels import things

    return things.linked("target", None)


@surfaceless
def curve_without_a_profile() -> Any:
    made = curve_with_a_profile()
    made.data.bevel_depth = 0
    return made


@surfaceless
def mesh_without_faces() -> Any:
    from tests.blender_jobs.labels import things

    return things.dots("target", [(0, 0, 0), (1, 0, 0)])


@surfaceless
def mesh_without_anything() -> Any:
    from tests.blender_jobs.labels import things

    return things.dots("target", [])


@surfaceless
def metaball_of_a_family() -> Any:
    import bpy

    metaball_family()
    return bpy.data.objects["ball.001"]


@surfaceless
def volume() -> Any:
    import bpy

    from tests.blender_jobs.labels import things

    return things.linked("target", bpy.data.volumes.new("fog"))


@surfaceless
def lattice() -> Any:
    import bpy

    from tests.blender_jobs.labels import things

    return things.linked("target", bpy.data.lattices.new("lattice"))


@surfaceless
def armature() -> Any:
    import bpy

    from tests.blender_jobs.labels import things

    return things.linked("target", bpy.data.armatures.new("rig"))


@surfaceless
def lamp() -> Any:
    import bpy

    from tests.blender_jobs.labels import things

    return things.linked("target", bpy.data.lights.new("lamp", "AREA"))


@surfaceless
def masked_away_in_renders() -> Any:
    made = red_cube()
    made.vertex_groups.new(name="none")
    modifier = made.modifiers.new("mask", "MASK")
    modifier.vertex_group, modifier.show_viewport = "none", False
    return made


@surfaceless
def text_without_letters() -> Any:
    import bpy

    from tests.blender_jobs.labels import things

    data = bpy.data.curves.new("nothing", "FONT")
    data.body = ""
    return things.linked("target", data)


@surfaceless
def emitter_that_is_not_shown() -> Any:
    from tests.blender_jobs.labels import things

    return things.particle_copy("target", (0, 0, 0), things.glow(things.RED)).owner


@surfaceless
def parent_of_vertex_copies() -> Any:
    """A mesh with faces that only places copies, as its own surface is not shown."""
    from tests.blender_jobs.labels import things

    return things.face_copy("target", (0, 0, 0), things.glow(things.RED)).owner


# --- Inside Blender -------------------------------------------------------------------------------------------


def described(view: Any, target: Any) -> dict[str, Any]:
    try:
        said = view.describe(target, "thing")
    except ValueError as error:
        return {"refusal": str(error), "sees": view.sees(target) if hasattr(view, "sees") else False}
    covered = np.flatnonzero(view.silhouette(target)).tolist()
    return {"objects": [said], "silhouette": covered, "sees": view.sees(target) if hasattr(view, "sees") else True}


def all_of(place: Path, shapes: dict[str, Callable[[], Any]]) -> dict[str, Any]:
    from tests.blender_jobs.labels import things

    def built(make: Callable[[], Any]) -> Callable[[], Any]:
        def build() -> Any:
            things.open_stage()
            return make()

        return build

    return {name: keep(place, name, built(make), described, size=SIZE, samples=16) for name, make in shapes.items()}


@scene
def shapes(place: Path) -> dict[str, Any]:
    return all_of(place, SHAPES)


@scene
def without_surface(place: Path) -> dict[str, Any]:
    return all_of(place, SURFACELESS)


# --- What must be so ------------------------------------------------------------------------------------------

Seen = tuple[Path, dict[str, Any]]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    folder = tmp_path_factory.mktemp("boxes")
    return folder, in_blender.play(__name__, folder)


def extent(mask: np.ndarray) -> np.ndarray:
    """The outer edges of a mask's pixels: left, top, right, bottom."""
    rows, columns = np.nonzero(mask)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], dtype=float)


def cell(played: Seen, name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    folder, seen = played
    said = seen["shapes"][name]
    assert "refused" not in said, said.get("refused")
    assert "refusal" not in said, said.get("refusal")
    return said, kept(folder / "shapes", name)


each_shape = pytest.mark.parametrize("name", list(SHAPES))


@each_shape
def test_the_box_is_around_the_pixels(played: Seen, name: str) -> None:
    """Neither cuts it any off, nor is it far from them."""
    said, arrays = cell(played, name)
    entry, picture = said["objects"][0], arrays["picture"]
    red = picture[..., 0] > (0.1 if name == "thin" else 0.5)
    assert red.sum() > 20, "the picture shows next to nothing"
    x, y, width, height = entry["bbox"]
    apart = np.array([x, y, x + width, y + height]) - extent(red)
    assert np.abs(apart).max() < FINE.get(name, APART), f"edges are {apart} pixels from the picture's"
    own = arrays["segmentation"] == entry["segmentation_id"]
    assert own[eroded(picture[..., 0] > 0.95)].all(), "the segmentation misses red pixels"
    assert not own[eroded(picture[..., 0] < 0.05)].any(), "the segmentation is where nothing is red"
    if own.any():
        left, top, right, bottom = extent(own) + np.array([0.5, 0.5, -0.5, -0.5])  # to the pixels' centres
        inside = [left >= x - 0.01, top >= y - 0.01, right <= x + width + 0.01, bottom <= y + height + 0.01]
        assert all(inside), f"pixels {[left, top, right, bottom]} outside the box {entry['bbox']}"


@pytest.mark.parametrize("name", [name for name in SHAPES if name != "mesh_beside_its_copies"])
def test_the_silhouette_is_the_pixels(played: Seen, name: str) -> None:
    """A thing that stands alone is all visible: its silhouette is what the segmentation shows."""
    said, arrays = cell(played, name)
    entry = said["objects"][0]
    own = arrays["segmentation"] == entry["segmentation_id"]
    covered = np.zeros(own.shape, dtype=bool)
    covered.flat[said["silhouette"]] = True
    assert entry["silhouette_pixels"] == int(covered.sum())
    apart = int((own ^ covered).sum())
    rough = 0.25 if name in FINE else 0.06 if name in ("point_cloud", "masked_in_renders") else 0.03
    assert apart <= 3 + rough * own.sum(), f"{apart} of {int(own.sum())} pixels are otherwise"
    assert entry["visible_fraction"] >= (1 - rough - 0.03 if own.any() else 0)


@pytest.mark.parametrize("name", [name for name in SHAPES if name != "displaced_by_its_shader"])
def test_the_box_in_space_holds_every_surface_that_is_seen(played: Seen, name: str) -> None:
    """Depth, taken back into space, lies within the oriented box."""
    said, arrays = cell(played, name)
    entry, camera = said["objects"][0], said["camera"]
    own = arrays["segmentation"] == entry["segmentation_id"]
    rows, columns = np.nonzero(own)
    depth = arrays["depth"][own].astype(float)
    rays = np.linalg.inv(camera["K"]) @ np.stack([columns + 0.5, rows + 0.5, np.ones(len(rows))])
    if camera["type"] == "PERSP":
        rays *= depth
    rays[2] = depth
    world = np.array(camera["cam_to_world"]) @ np.vstack([rays, np.ones(len(rows))])
    box = np.array(entry["box3d"])
    axes = (box[[4, 3, 1]] - box[0]).T  # a box may be sheared, and it may be flat
    lengths = np.linalg.norm(axes, axis=0)
    from_corner = world[:3] - box[0][:, None]
    along = np.linalg.pinv(axes) @ from_corner
    away = np.linalg.norm(from_corner - axes @ along, axis=0)
    slack = 0.02 + 0.02 / np.maximum(lengths, 0.05)[:, None]
    outside = int((((along < -slack) | (along > 1 + slack)).any(axis=0) | (away > 0.03)).sum())
    assert outside == 0, f"{outside} of {own.sum()} pixels' surfaces lie outside"


@pytest.mark.parametrize("name", list(SURFACELESS))
def test_what_has_no_surface_is_refused(played: Seen, name: str) -> None:
    """In one line that names it."""
    said = played[1]["without_surface"][name]
    assert "refused" not in said, said.get("refused")
    assert said.get("refusal"), "it was described"
    assert not said["sees"]
    assert "\n" not in said["refusal"]
    assert ("ball.001" if name == "metaball_of_a_family" else "target") in said["refusal"]
