"""Mesh objects: loaded from files, primitive shapes, and random distractors.

World axes as Blender: z up, metres. Whatever a file holds becomes one mesh object with its origin at the world's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import bpy
import bmesh
import numpy as np
import numpy.typing as npt
from mathutils import Matrix, Vector

from blender_jobs import _lettering, _mesh_files, assets, materials, scatter, stage
from blender_jobs._mesh_files import FORMATS, UpAxis
from blender_jobs.job import JobError
from blender_jobs.stage import Range, Triple

__all__ = ["SHAPES", "boxes", "cone", "cylinder", "distractors", "lathe", "load", "sphere", "text", "torus", "tubes"]

_TURN: dict[UpAxis, float] = {"Y": math.pi / 2, "Z": 0.0}
"""What turns the axis up."""

_LARGE = 32 * 16
"""Spheres of more faces are built from arrays: Blender's operator takes the cube of the segments' time, and orders
their corners differently each time. Others keep the order that datasets have been made with."""


def load(
    path: assets.AnyPath,
    name: str,
    normalize: float | None = None,
    scale: float = 1.0,
    up: UpAxis | None = None,
    use_materials: bool = True,
    object_name: str | None = None,
) -> Any:
    """Return one new mesh object with everything that a file shows: .obj, .ply, .stl, .fbx, .glb, .gltf or .blend.

    Modifiers, armatures and transforms are applied; cameras, lamps and animation are left out.

    Args:
        path: the file; relative to the job's folder.
        name: of the object and its mesh.
        normalize: make the longest side of the bounding box this long (metres) and centre it on the origin. By
            default size and place are the file's.
        scale: metres of one unit of the file: 0.001 for an .stl in millimetres.
        up: which axis of the file is up, if not the usual one: y in .obj, .gltf, .glb and .fbx (which may say so
            itself), z in .ply, .stl and .blend.
        use_materials: take over materials and textures. False also spares files that are missing for them.
        object_name: which object of a .blend; may be left out if it holds one mesh.

    Raises:
        JobError: the file, or one that it needs, is missing or not in the plan; Blender cannot read it; or it
            contains no mesh.
    """
    file = assets.use(path)
    suffix = file.suffix.lower()
    if suffix != ".blend" and suffix not in FORMATS:
        raise JobError(f"{file}: cannot load {suffix or 'such'} files; use {', '.join(sorted(FORMATS))} or .blend")
    if suffix != ".blend" and object_name is not None:
        raise JobError(f"{file}: object_name chooses among the objects of a .blend; this is another kind of file")
    imported = _mesh_files.Import()
    objects = (
        _mesh_files.append(file, object_name)
        if suffix == ".blend"
        else _mesh_files.read(file, suffix, use_materials, imported)
    )
    if not objects:
        raise JobError(f"{file}: it contains no mesh")
    made = _mesh_files.joined(objects, name)
    if not use_materials:
        made.data.materials.clear()
    imported.remove_all_but(made)
    _mesh_files.check_images(imported.new("images"))
    made.name = made.data.name = name  # the file's own object may have had it
    usual = FORMATS[suffix].up if suffix in FORMATS else "Z"
    made.data.transform(Matrix.Scale(scale, 4) @ Matrix.Rotation(_TURN[up or usual] - _TURN[usual], 4, "X"))
    if normalize is not None:
        _normalize(file, made.data, normalize)
    made.data.update()
    bpy.context.view_layer.update()  # else `dimensions` are those of before
    return made


def sphere(name: str, radius_m: float = 0.5, segments: int = 32, rings: int = 16) -> Any:
    """Return a new smooth UV sphere around its origin."""
    if segments * rings > _LARGE:
        polar = np.linspace(-np.pi / 2, np.pi / 2, rings + 1)
        profile = radius_m * np.stack([np.cos(polar), np.sin(polar)], axis=1)
        profile[[0, -1], 0] = 0.0
        return _revolved(name, profile, segments)
    return _shape(
        name,
        lambda mesh: bmesh.ops.create_uvsphere(
            mesh, u_segments=segments, v_segments=rings, radius=radius_m, calc_uvs=True
        ),
    )


def cylinder(name: str, radius_m: float = 0.5, depth_m: float = 1.0, segments: int = 32) -> Any:
    """Return a new cylinder around its origin, along z, its side smooth."""
    return cone(name, radius_m, radius_m, depth_m, segments)


def cone(name: str, radius_m: float = 0.5, top_radius_m: float = 0.0, depth_m: float = 1.0, segments: int = 32) -> Any:
    """Return a new cone around the middle of its axis, along z, its side smooth; or, with `top_radius_m`, a frustum."""
    return _shape(
        name,
        lambda mesh: bmesh.ops.create_cone(
            mesh, cap_ends=True, segments=segments, radius1=radius_m, radius2=top_radius_m, depth=depth_m, calc_uvs=True
        ),
    )


def torus(
    name: str, radius_m: float = 0.35, tube_radius_m: float = 0.15, segments: int = 32, tube_segments: int = 16
) -> Any:
    """Return a new smooth torus in the xy plane: `radius_m` from the origin to the middle of the tube."""
    around = np.arange(segments)[:, None] * (2 * math.pi / segments)
    tube = np.arange(tube_segments)[None, :] * (2 * math.pi / tube_segments)
    out = radius_m + tube_radius_m * np.cos(tube)
    points = np.stack(np.broadcast_arrays(out * np.cos(around), out * np.sin(around), tube_radius_m * np.sin(tube)), -1)
    number = np.arange(segments * tube_segments).reshape(segments, tube_segments)
    following = np.roll(number, -1, axis=0)
    faces = np.stack([number, following, np.roll(following, -1, axis=1), np.roll(number, -1, axis=1)], -1)
    made = stage.mesh(name, points.reshape(-1, 3).tolist(), faces.reshape(-1, 4).tolist())
    made.data.polygons.foreach_set("use_smooth", [True] * len(made.data.polygons))
    return made


def lathe(name: str, profile: npt.ArrayLike, segments: int = 64, sharp_angle: float = 30.0) -> Any:
    """Return a new mesh that a profile makes as it turns about the z axis: a vase, a goblet, a wheel.

    A profile that begins and ends on the axis, or where it began, encloses a volume; any other leaves holes. Faces look
    away from what lies between profile and axis, whichever way it runs. The UV map goes once around, and once along
    the profile.

    Args:
        name: of the object and its mesh.
        profile: (N, 2), radius and height of its points, metres.
        segments: how many sides the circle has.
        sharp_angle: degrees; where the profile turns by more, the edge is sharp, and smooth elsewhere.

    Raises:
        JobError: there are fewer than two points or three segments, a radius is negative, or two points in a row are
            the same, or all are on the axis.
    """
    try:
        points = np.array(profile, dtype=np.float64)
    except (TypeError, ValueError):
        raise JobError(f"lathe: the profile of {name!r} must be numbers of shape (N, 2)") from None
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < 2 or not np.isfinite(points).all():
        raise JobError(f"lathe: the profile of {name!r} must be finite, of shape (N, 2), N at least 2")
    if segments < 3:
        raise JobError(f"lathe: {name!r} has {segments} segments; a circle needs 3 or more")
    if (points[:, 0] < 0).any():
        raise JobError(
            f"lathe: the profile of {name!r} has a radius below 0; all points must be on one side of the axis"
        )
    if (points[1:] == points[:-1]).all(axis=1).any():
        raise JobError(f"lathe: the profile of {name!r} has the same point twice in a row; leave one out")
    x, z = points.T
    if not x.any():
        raise JobError(f"lathe: the profile of {name!r} lies on the axis; give it a radius above 0")
    area = ((x[:-1] + x[1:]) * (z[1:] - z[:-1])).sum()  # of what lies between profile and axis, twice
    if area < 0:
        points = points[::-1]
    made = _revolved(name, points, segments)
    _sharpen(made.data, points, segments, math.radians(sharp_angle))
    return made


def boxes(name: str, centers: npt.ArrayLike, sizes: npt.ArrayLike) -> Any:
    """Return one new mesh of several boxes along its axes: a shelf, a table, a gripper.

    Args:
        name: of the object and its mesh.
        centers: (N, 3), metres.
        sizes: (N, 3), the lengths of their sides along x, y and z, metres; or (3,), the same for all.

    Raises:
        JobError: these are not the shapes, or a side is not above 0.
    """
    try:
        middles, sides = np.array(centers, dtype=np.float64), np.array(sizes, dtype=np.float64)
    except (TypeError, ValueError):
        raise JobError(f"boxes: {name!r} needs centers and sizes of three numbers each") from None
    if middles.ndim != 2 or middles.shape[1] != 3 or not np.isfinite(middles).all():
        raise JobError(f"boxes: {name!r} needs finite centers of shape (N, 3), not {middles.shape}")
    if sides.shape not in ((3,), middles.shape):
        raise JobError(f"boxes: {name!r} needs sizes of shape (3,) or {middles.shape}, not {sides.shape}")
    if not (sides > 0).all() or not np.isfinite(sides).all():
        raise JobError(f"boxes: {name!r} has a side that is not above 0")
    sides = np.broadcast_to(sides, middles.shape)
    points = middles[:, None] + sides[:, None] * np.array(stage.CUBE_CORNERS)
    faces = np.array(stage.CUBE_FACES) + len(stage.CUBE_CORNERS) * np.arange(len(middles))[:, None, None]
    return stage.mesh(name, points.reshape(-1, 3).tolist(), faces.reshape(-1, 4).tolist())


def tubes(name: str, starts: npt.ArrayLike, ends: npt.ArrayLike, radii_m: npt.ArrayLike, segments: int = 32) -> Any:
    """Return one new mesh of several round rods with flat ends: a frame, a rack, the links of a robot.

    Args:
        name: of the object and its mesh.
        starts: (N, 3), where their axes begin, metres.
        ends: (N, 3), where these end.
        radii_m: (N, 2), their radii at the start and at the end; or one number for all.
        segments: how many sides each has.

    Raises:
        JobError: these are not the shapes, a rod has no length or a radius that is not above 0, or there are fewer
            than three segments.
    """
    try:
        low, high, radii = (np.array(entry, dtype=np.float64) for entry in (starts, ends, radii_m))
    except (TypeError, ValueError):
        raise JobError(f"tubes: {name!r} needs starts, ends and radii that are numbers") from None
    if low.ndim != 2 or low.shape[1] != 3 or low.shape != high.shape or not np.isfinite([low, high]).all():
        raise JobError(
            f"tubes: {name!r} needs finite starts and ends of shape (N, 3), not {low.shape} and {high.shape}"
        )
    if radii.shape not in ((), (len(low), 2)) or not np.isfinite(radii).all() or not (radii > 0).all():
        raise JobError(f"tubes: {name!r} needs radii above 0, one number or of shape ({len(low)}, 2)")
    if segments < 3:
        raise JobError(f"tubes: {name!r} has {segments} segments; a circle needs 3 or more")
    lengths = np.linalg.norm(high - low, axis=1)
    if not (lengths > 0).all():
        raise JobError(f"tubes: {name!r} has a rod whose end is its start")
    along = (high - low) / lengths[:, None]
    across = np.cross(along, np.eye(3)[np.abs(along).argmin(axis=1)])
    across /= np.linalg.norm(across, axis=1)[:, None]
    angles = np.linspace(0, 2 * np.pi, segments, endpoint=False)[None, :, None]
    ring = np.cos(angles) * across[:, None] + np.sin(angles) * np.cross(along, across)[:, None]
    spread = np.broadcast_to(radii, (len(low), 2))
    rings = [middle[:, None] + spread[:, at, None, None] * ring for at, middle in enumerate((low, high))]
    step = np.arange(segments)
    after = (step + 1) % segments
    sides = np.stack([step, after, after + segments, step + segments], axis=1).tolist()
    faces = [*sides, step[::-1].tolist(), (step + segments).tolist()]
    first = (2 * segments * np.arange(len(low))).tolist()
    made = stage.mesh(
        name,
        np.stack(rings, axis=1).reshape(-1, 3).tolist(),
        [[start + corner for corner in face] for start in first for face in faces],
    )
    _smooth_sides(made.data, np.tile(np.arange(len(faces)) < segments, len(low)))
    return made


def text(
    name: str,
    text: str,
    font: assets.AnyPath | None = None,
    height_m: float = 0.1,
    depth_m: float = 0.0,
    spacing: float = 1.0,
    align: _lettering.Align = "left",
) -> Any:
    """Return a new mesh of text that is read from above (from +z), along x: for number plates, signs, labels.

    The box around its ink is centred on the origin, its back is at z = 0. `parts.glyphs` gives the corners of each
    glyph's box as keypoints. Letters are set one after another: scripts that join or reorder them (Arabic, Devanagari)
    are not shaped.

    Args:
        name: of the object and its mesh.
        text: may have several lines.
        font: a .ttf, .otf or .ttc (its first) file, from the job's folder; by default Blender's own font, which
            borrows from Noto what it lacks.
        height_m: of capital letters (the font's H), metres; of the whole text, if the font has no H.
        depth_m: how thick the letters are; 0: flat. Flat text in a surface's plane flickers: put it a little in front.
        spacing: between characters: 1 as the font has it, 2 twice as much.
        align: how its lines are aligned: left, center or right.

    Raises:
        JobError: the text shows nothing, the font lacks characters of it (which are named), or the file is missing,
            not in the plan, or not such a font.
    """
    return _lettering.build(name, text, font, height_m, depth_m, spacing, align)


SHAPES: Sequence[Callable[[str], Any]] = (stage.cube, sphere, cylinder, cone, torus)
"""Those that `distractors` draws from; each fits a cube of one metre."""


def distractors(
    rng: np.random.Generator,
    count: int,
    low: Triple,
    high: Triple,
    size_m: Range = (0.1, 0.5),
    name: str = "distractor",
) -> list[Any]:
    """Return `count` new random shapes with random materials and rotations, their origins in the box low to high.

    They may overlap one another: `scatter.place_apart` moves them apart. `size_m` is how long the side of the cube
    is that a shape fits before it is turned.
    """
    made = []
    for index in range(count):
        obj = SHAPES[int(rng.integers(len(SHAPES)))](f"{name} {index}")
        size = rng.uniform(*size_m)
        obj.location, obj.rotation_euler, obj.scale = scatter.in_box(rng, low, high), scatter.rotation(rng), [size] * 3
        materials.assign(obj, materials.random_principled(rng, obj.name))
        made.append(obj)
    return made


def _shape(name: str, build: Callable[[Any], object]) -> Any:
    """A mesh object of what `build` adds: sides smooth, flat ends flat, with a UV map."""
    mesh = bmesh.new()
    mesh.loops.layers.uv.new("UVMap")
    build(mesh)
    for face in mesh.faces:
        face.smooth = len(face.verts) <= 4
    for edge in mesh.edges:
        edge.smooth = all(face.smooth for face in edge.link_faces)
    data = bpy.data.meshes.new(name)
    mesh.to_mesh(data)
    mesh.free()
    _obey_sharp_edges(data)
    return stage.link(bpy.data.objects.new(name, data))


def _revolved(name: str, profile: npt.NDArray[np.float64], segments: int) -> Any:
    """A smooth mesh object of a profile (N, 2) of radius and height, from below to above, turned about the z axis.

    Points of radius 0 are one vertex; a profile that ends where it began is a closed one. The UV map goes once around,
    and once along the profile's length.
    """
    on_axis = profile[:, 0] == 0
    sizes = np.where(on_axis, 1, segments)
    first = np.cumsum(sizes) - sizes
    closed = _is_ring(profile)
    if closed:
        first[-1] = 0
    angles = np.linspace(0, 2 * np.pi, segments, endpoint=False)
    rings = [
        [[0.0, 0.0, z]]
        if pole
        else np.stack([r * np.cos(angles), r * np.sin(angles), np.full(segments, z)], 1).tolist()
        for (r, z), pole in zip(
            profile[: len(profile) - closed].tolist(), on_axis[: len(profile) - closed], strict=True
        )
    ]
    step = np.arange(segments)
    lengths = np.hypot(*np.diff(profile, axis=0).T)
    along = np.concatenate([[0.0], np.cumsum(lengths)]) / lengths.sum()
    faces: list[list[int]] = []
    uvs: list[npt.NDArray[np.float64]] = []
    for low in range(len(profile) - 1):
        high = low + 1
        corners = [(low, 0), (low, 1), (high, 1), (high, 0)]  # a ring, and whether a step on: counter-clockwise
        if on_axis[low] and on_axis[high]:
            continue
        if on_axis[low] or on_axis[high]:
            corners.pop(0 if on_axis[low] else 2)
        columns = [first[ring] + (0 if on_axis[ring] else (step + on) % segments) + 0 * step for ring, on in corners]
        faces += np.stack(columns, axis=1).tolist()
        around = [(step + (0.5 if on_axis[ring] else on)) / segments for ring, on in corners]
        heights = [np.full(segments, along[ring]) for ring, _ in corners]
        uvs.append(np.stack([np.stack(around, 1), np.stack(heights, 1)], axis=2).reshape(-1, 2))
    made = stage.mesh(name, [point for ring in rings for point in ring], faces)
    layer = made.data.uv_layers.new(name="UVMap")
    layer.data.foreach_set("uv", np.concatenate(uvs).astype(np.float32).ravel())
    made.data.polygons.foreach_set("use_smooth", [True] * len(faces))
    return made


def _is_ring(profile: npt.NDArray[np.float64]) -> bool:
    """Whether the profile ends where it began."""
    return len(profile) > 2 and bool((profile[0] == profile[-1]).all())


def _sharpen(data: Any, profile: npt.NDArray[np.float64], segments: int, angle: float) -> None:
    """Make those rings of `_revolved` sharp at which the profile turns by more than `angle`, radians."""
    steps = np.diff(profile, axis=0)
    closed = _is_ring(profile)
    before = np.roll(steps, 1, axis=0) if closed else steps[:-1]
    after = steps if closed else steps[1:]
    turns = np.abs(np.arctan2(before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0], (before * after).sum(axis=1)))
    turns = turns if closed else np.pad(turns, 1)
    rings = np.repeat(np.arange(len(turns)), np.where(profile[: len(turns), 0] == 0, 1, segments))
    ends = np.empty(2 * len(data.edges), dtype=np.int32)
    data.edges.foreach_get("vertices", ends)
    ring, other = rings[ends.reshape(-1, 2)].T
    data.edges.foreach_set("use_edge_sharp", (ring == other) & (turns[ring] > angle))
    _obey_sharp_edges(data)


def _smooth_sides(data: Any, smooth: npt.NDArray[np.bool_]) -> None:
    """Let these faces (F,) be smooth, and flat the others, with sharp edges around them."""
    data.polygons.foreach_set("use_smooth", smooth)
    flat = {edge for face in data.polygons if not face.use_smooth for edge in face.edge_keys}
    data.edges.foreach_set("use_edge_sharp", [edge.key in flat for edge in data.edges])
    _obey_sharp_edges(data)


def _obey_sharp_edges(data: Any) -> None:
    if bpy.app.version < (4, 1):
        data.use_auto_smooth, data.auto_smooth_angle = True, math.pi  # sharp edges count only then


def _normalize(file: Path, data: Any, longest_m: float) -> None:
    points = np.empty(3 * len(data.vertices), dtype=np.float32)
    data.vertices.foreach_get("co", points)
    low, high = (end(points.reshape(-1, 3), axis=0).astype(np.float64) for end in (np.min, np.max))
    side = float((high - low).max())
    if not side > 0:
        raise JobError(f"{file}: it has no extent, so it cannot be scaled")
    data.transform(Matrix.Scale(longest_m / side, 4) @ Matrix.Translation(Vector((low + high) / -2)))
