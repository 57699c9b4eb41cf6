"""Make the models that the examples load: a car, a sheep, a tree and a house, and toys in four formats in toys/.

python examples/assets/make_models.py [FOLDER]

Metres, z up in Blender; the car and the sheep face along x, with their feet on the ground.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import bpy
import numpy as np

from blender_jobs import materials, meshes, stage

Points = Sequence[Sequence[float]]

RIGHT_ANGLE = np.pi / 2


def look(name: str, rgb: Sequence[float], roughness: float, metallic: float = 0.0) -> Any:
    """Return the material of this name; one for each file."""
    return bpy.data.materials.get(name) or materials.principled(name, rgb, metallic, roughness)


def piece(obj: Any, material: Any, at: Sequence[float] = (0, 0, 0), turn: Sequence[float] = (0, 0, 0)) -> Any:
    """Give an object its material and its place."""
    materials.assign(obj, material)
    obj.location, obj.rotation_euler = at, turn
    return obj


def rounded(obj: Any, width_m: float, segments: int = 2) -> Any:
    """Round the object's edges."""
    bevel = obj.modifiers.new("round", "BEVEL")
    bevel.width, bevel.segments = width_m, segments
    return smooth(obj)


def smooth(obj: Any, subdivisions: int = 0) -> Any:
    """Shade the object smooth; subdivide its surface."""
    obj.data.polygons.foreach_set("use_smooth", [True] * len(obj.data.polygons))
    if subdivisions:
        obj.modifiers.new("smooth", "SUBSURF").levels = subdivisions
    return obj


def blob(name: str, balls: Points, fineness_m: float, share: float = 1.0) -> Any:
    """Return a mesh around balls (x, y, z, radius) that flow into one another; `share` of its faces are kept."""
    data = bpy.data.metaballs.new(name)
    data.resolution = data.render_resolution = fineness_m
    for x, y, z, radius in balls:
        ball = data.elements.new()
        ball.co, ball.radius = (x, y, z), 1.6 * radius  # the surface is well within a ball's reach
    made = stage.link(bpy.data.objects.new(name, data))
    bpy.context.view_layer.update()
    mesh = bpy.data.meshes.new_from_object(made.evaluated_get(bpy.context.evaluated_depsgraph_get()))
    bpy.data.objects.remove(made)
    made = stage.link(bpy.data.objects.new(name, mesh))
    made.modifiers.new("fewer", "DECIMATE").ratio = share
    return smooth(made)


def car() -> list[Any]:
    """Return a saloon of 4.5 m: the body's rings along x, a cabin, wheels and lights."""
    paint, glass = look("paint", (0.5, 0.02, 0.02), 0.25), look("window", (0.01, 0.012, 0.015), 0.05)
    tyre, rim = look("tyre", (0.015, 0.015, 0.015), 0.8), look("rim", (0.6, 0.6, 0.62), 0.3, 1.0)
    stations = [  # x, half a width, lowest and highest z
        (-2.25, 0.72, 0.42, 0.78), (-2.1, 0.86, 0.26, 0.9), (-1.4, 0.91, 0.22, 0.94), (0.3, 0.92, 0.22, 0.92),
        (1.2, 0.9, 0.22, 0.86), (2.0, 0.84, 0.26, 0.74), (2.25, 0.66, 0.4, 0.62),
    ]  # fmt: skip
    ring = [(0.9, 0.0), (1.0, 0.25), (1.0, 0.7), (0.86, 1.0), (-0.86, 1.0), (-1.0, 0.7), (-1.0, 0.25), (-0.9, 0.0)]
    points = [(x, half * y, low + z * (high - low)) for x, half, low, high in stations for y, z in ring]
    at = np.arange(len(points)).reshape(len(stations), len(ring))
    on = np.roll(at, -1, axis=1)
    sides = np.stack([at[:-1], at[1:], on[1:], on[:-1]], axis=2).reshape(-1, 4).tolist()
    body = smooth(stage.mesh("body", points, [*sides, at[0].tolist(), at[-1, ::-1].tolist()]), 2)
    low, high = ((-1.75, 0.78, 0.84), (0.95, 0.8, 0.84)), ((-1.2, 0.6, 1.42), (0.05, 0.6, 1.44))
    corners = [(x, sign * half, z) for end in (low, high) for x, half, z in end for sign in (-1, 1)]
    faces = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 2, 6, 4), (1, 5, 7, 3), (0, 4, 5, 1), (2, 3, 7, 6)]
    cabin = rounded(stage.mesh("cabin", corners, faces), 0.09)
    made = [piece(body, paint), piece(cabin, glass)]
    roof = rounded(meshes.boxes("roof", [(-0.58, 0, 1.43)], [(1.3, 1.16, 0.05)]), 0.02)
    made.append(piece(roof, paint))
    for x in (-1.4, 1.4):
        for y in (-0.82, 0.82):
            wheel = meshes.cylinder("wheel", 0.33, 0.24, 20)
            hub = meshes.cylinder("hub", 0.2, 0.26, 12)
            made += [piece(part, m, (x, y, 0.33), (RIGHT_ANGLE, 0, 0)) for part, m in ((wheel, tyre), (hub, rim))]
    lamps = rounded(meshes.boxes("lamps", [(2.08, y, 0.62) for y in (-0.56, 0.56)], (0.2, 0.34, 0.1)), 0.03)
    rear = rounded(meshes.boxes("rear", [(-2.12, y, 0.76) for y in (-0.62, 0.62)], (0.16, 0.3, 0.09)), 0.03)
    bumpers = rounded(meshes.boxes("bumpers", [(x, 0, 0.4) for x in (-2.17, 2.12)], (0.16, 1.5, 0.12)), 0.04)
    looks = look("lamp", (0.9, 0.9, 0.85), 0.1), look("rear lamp", (0.45, 0.01, 0.01), 0.15), tyre
    return made + [piece(part, m) for part, m in zip((lamps, rear, bumpers), looks, strict=True)]


def sheep() -> list[Any]:
    """Return a sheep of 1.3 m: a fleece of tufts, a dark head and legs."""
    rng = np.random.default_rng(4)
    wool, skin = look("wool", (0.72, 0.66, 0.55), 0.95), look("skin", (0.03, 0.025, 0.022), 0.6)
    tufts = [(0.42 * a, 0.22 * b, 0.62 + 0.2 * c, rng.uniform(0.1, 0.15)) for a, b, c in _sphere(46)]
    fleece = blob("fleece", [*tufts, (0, 0, 0.62, 0.24), (0.2, 0, 0.64, 0.22), (-0.2, 0, 0.62, 0.22)], 0.05, 0.45)
    head = blob("head", [(0.58, 0, 0.86, 0.1), (0.67, 0, 0.8, 0.085), (0.74, 0, 0.74, 0.07)], 0.04, 0.6)
    ears = [(0.55, side * 0.15, 0.9) for side in (-1, 1)]
    made = [piece(fleece, wool), piece(head, skin)]
    made += [_scaled(piece(meshes.sphere("ear", 0.07, 8, 6), skin, place), (0.6, 1.2, 0.4)) for place in ears]
    for x, y in ((0.27, 0.12), (0.27, -0.12), (-0.27, 0.12), (-0.27, -0.12)):
        made.append(piece(meshes.cone("leg", 0.035, 0.05, 0.46, 8), skin, (x, y, 0.23)))
    return made


def tree() -> list[Any]:
    """Return a tree of 7 m."""
    rng = np.random.default_rng(2)
    balls = [(1.5 * a, 1.5 * b, 4.8 + 1.6 * c, rng.uniform(0.7, 1.1)) for a, b, c in _sphere(30)]
    crown = blob("crown", [*balls, (0, 0, 4.8, 1.5)], 0.4, 0.6)
    trunk = meshes.cone("trunk", 0.28, 0.16, 3.6, 10)
    leaves, bark = look("leaves", (0.06, 0.13, 0.02), 0.9), look("bark", (0.1, 0.06, 0.03), 0.9)
    return [piece(crown, leaves), piece(trunk, bark, (0, 0, 1.8))]


def house() -> list[Any]:
    """Return a house of 11 m by 8 m, three floors and a roof, its windows to both sides of y."""
    panes = [(x, 0, z) for x in (-4.1, -1.4, 1.4, 4.1) for z in (1.7, 4.7, 7.7)]
    walls = meshes.boxes("walls", [(0, 0, 4.75)], (11.2, 8, 9.5))
    frames, glass = meshes.boxes("frames", panes, (1.5, 8.1, 1.9)), meshes.boxes("glass", panes, (1.25, 8.2, 1.65))
    gable = [(x, y, z) for x in (-5.8, 5.8) for y, z in ((-4.4, 9.4), (4.4, 9.4), (0, 12))]
    roof = stage.mesh("roof", gable, [(0, 2, 1), (3, 4, 5), (0, 3, 5, 2), (1, 2, 5, 4), (0, 1, 4, 3)])
    looks = look("plaster", (0.6, 0.5, 0.36), 0.9), look("frame", (0.8, 0.8, 0.78), 0.5)
    looks += look("pane", (0.03, 0.045, 0.06), 0.08), look("tiles", (0.22, 0.07, 0.04), 0.8)
    return [piece(part, made) for part, made in zip((walls, frames, glass, roof), looks, strict=True)]


def duck() -> list[Any]:
    """Return a bath duck of 9 cm."""
    yellow, orange = look("rubber", (0.9, 0.55, 0.02), 0.3), look("bill", (0.8, 0.16, 0.01), 0.35)
    body = [(0, 0, 2.6, 2.4), (1.2, 0, 2.4, 2.3), (-1.4, 0, 2.6, 1.9), (-2.9, 0, 3.5, 1.0), (1.3, 0, 4.1, 1.4)]
    head = [(1.5, 0, 6.6, 2.0)]
    made = [piece(blob("body", [*body, *head], 0.5, 0.6), yellow)]
    made.append(_scaled(piece(meshes.sphere("bill", 1.0, 16, 8), orange, (3.3, 0, 6.3)), (1.1, 0.9, 0.35)))
    for y in (-0.95, 0.95):
        made.append(piece(meshes.sphere("eye", 0.3, 10, 6), look("eye", (0.01, 0.01, 0.01), 0.1), (2.9, y, 7.3)))
    return [_scaled(part, 0.01, of_place=True) for part in made]


def mug() -> list[Any]:
    """Return a mug of 10 cm with a handle."""
    glaze = look("glaze", (0.02, 0.16, 0.3), 0.15)
    profile = [(0, 0), (3.6, 0), (4, 0.4), (4, 9.6), (3.8, 9.8), (3.6, 9.6), (3.6, 0.9), (3.2, 0.6), (0, 0.6)]
    body, handle = meshes.lathe("mug", profile, 40), meshes.torus("handle", 2.4, 0.5, 24, 10)
    made = [piece(body, glaze), piece(handle, glaze, (4.3, 0, 5), (RIGHT_ANGLE, 0, 0))]
    return [_scaled(part, 0.01, of_place=True) for part in made]


def rook() -> list[Any]:
    """Return a 45 mm rook of a chess set, in millimetres, as for 3D printing."""
    profile = [(0, 0), (15, 0), (15, 4), (13, 6), (13, 8), (9, 13), (7.5, 30), (8.5, 33), (11, 35), (11, 38), (0, 38)]
    wood, angles = look("wood", (0.5, 0.3, 0.12), 0.5), np.arange(6) * np.pi / 3
    made = [piece(meshes.lathe("rook", profile, 32), wood)]
    for angle in angles:
        merlon = meshes.boxes("merlon", [(9.2, 0, 41)], (3, 5.5, 8))
        made.append(piece(merlon, wood, turn=(0, 0, angle)))
    return made


def knot() -> list[Any]:
    """Return a trefoil knot of 10 cm."""
    t = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    line = np.stack([np.sin(t) + 2 * np.sin(2 * t), np.cos(t) - 2 * np.cos(2 * t), -1.2 * np.sin(3 * t)], 1) / 60
    curve = bpy.data.curves.new("knot", "CURVE")
    curve.dimensions, curve.bevel_depth, curve.bevel_resolution = "3D", 0.0095, 3
    spline = curve.splines.new("POLY")
    spline.points.add(len(line) - 1)
    spline.points.foreach_set("co", np.c_[line, np.ones(len(line))].ravel())
    spline.use_cyclic_u = True
    made = stage.link(bpy.data.objects.new("knot", curve))
    bpy.context.view_layer.update()
    mesh = bpy.data.meshes.new_from_object(made.evaluated_get(bpy.context.evaluated_depsgraph_get()))
    bpy.data.objects.remove(made)
    return [smooth(stage.link(bpy.data.objects.new("knot", mesh)))]


def _sphere(count: int) -> Points:
    """Return this many points on the unit sphere, spread evenly like the seeds of a sunflower."""
    at = np.arange(count) + 0.5
    polar, turn = np.arccos(1 - 2 * at / count), np.pi * (1 + 5**0.5) * at
    return np.stack([np.cos(turn) * np.sin(polar), np.sin(turn) * np.sin(polar), np.cos(polar)], axis=1).tolist()


def _scaled(obj: Any, factor: Any, of_place: bool = False) -> Any:
    obj.scale = factor if isinstance(factor, tuple) else (factor,) * 3
    if of_place:
        obj.location = obj.location * factor
    return obj


def save(path: Path, build: Callable[[], list[Any]]) -> None:
    """Build a model in an empty scene, and write it in the format that the file's name says."""
    stage.clear()
    for part in build():
        part.select_set(True)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".glb":
        bpy.ops.export_scene.gltf(filepath=str(path), use_selection=True, export_apply=True, export_texcoords=False)
    elif path.suffix == ".obj":
        bpy.ops.wm.obj_export(filepath=str(path), apply_modifiers=True, export_uv=False, export_normals=False)
    elif path.suffix == ".stl":
        bpy.ops.wm.stl_export(filepath=str(path), apply_modifiers=True)
    else:
        bpy.ops.wm.ply_export(filepath=str(path), export_normals=False, export_uv=False, export_colors="NONE")


MODELS = {"car.glb": car, "sheep.glb": sheep, "tree.glb": tree, "house.glb": house}
TOYS = {"toys/duck.glb": duck, "toys/mug.obj": mug, "toys/rook.stl": rook, "toys/knot.ply": knot}

if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent).absolute()
    for name, build in {**MODELS, **TOYS}.items():
        save(folder / name, build)
