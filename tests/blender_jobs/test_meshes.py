"""Whatever the format, a file becomes one mesh of the right size, the right way up; shapes are closed and sized."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import in_blender
from tests.in_blender import scene

pytestmark = in_blender.needs_bpy

FORMATS = ("obj", "ply", "stl", "fbx", "glb", "gltf", "blend")
FACES = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]


def export(folder: Path) -> None:
    """Two bricks, 1 x 2 x 3 standing on the ground at (1, 2, 0), turned, and a mirrored one beside it; one red."""
    import bpy

    from blender_jobs import stage

    stage.clear()
    corners = [(x, y, z) for x in (-0.5, 0.5) for y in (-1, 1) for z in (0, 3)]
    brick = stage.mesh("brick", corners, FACES)
    brick.location, brick.rotation_euler = (1, 2, 0), (0, 0, math.pi / 2)
    stage.paint(brick, (1, 0, 0))
    other = stage.cube("other")
    other.location, other.scale = (5, 0, 0.5), (-1, 1, 1)
    stage.camera(at=(1, 1, 1))
    bpy.context.scene.render.fps = 7
    to = str(folder / "bricks.")
    bpy.ops.wm.obj_export(filepath=to + "obj")
    bpy.ops.wm.ply_export(filepath=to + "ply")
    bpy.ops.wm.stl_export(filepath=to + "stl")
    bpy.ops.export_scene.fbx(filepath=to + "fbx")
    bpy.ops.export_scene.gltf(filepath=to + "glb")
    bpy.ops.export_scene.gltf(filepath=to + "gltf", export_format="GLTF_SEPARATE")
    bpy.data.objects.remove(other)
    bpy.ops.wm.save_as_mainfile(filepath=to + "blend")


def extent(obj: Any) -> list[list[float]]:
    points = np.array([obj.matrix_world @ vertex.co for vertex in obj.data.vertices])
    return [points.min(axis=0).tolist(), points.max(axis=0).tolist()]


def volume(obj: Any) -> float:
    """Signed: below zero where faces look inwards."""
    import bmesh

    mesh = bmesh.new()
    mesh.from_mesh(obj.data)
    found: float = mesh.calc_volume(signed=True)
    mesh.free()
    return found


@scene
def imported(folder: Path) -> Any:
    import bpy

    from blender_jobs import assets, meshes, stage

    export(folder)
    assets.begin(folder)
    found = {}
    for kind in FORMATS:
        stage.clear()
        stage.cube("brick")  # whose name is the file's object's as well
        made = meshes.load(f"bricks.{kind}", "model")
        scaled = meshes.load(f"bricks.{kind}", "scaled", scale=0.001, use_materials=False)
        turned = meshes.load(f"bricks.{kind}", "turned", up="Y" if kind in ("ply", "stl", "blend") else "Z")
        unit = meshes.load(f"bricks.{kind}", "unit", normalize=2.0)
        found[kind] = {
            "extent": extent(made),
            "volume": volume(made),
            "scaled": extent(scaled),
            "turned": extent(turned),
            "unit": extent(unit),
            "dimensions": list(unit.dimensions),
            "looks": [[slot.name for slot in obj.material_slots if slot.material] for obj in (made, scaled)],
            "objects": [obj.name for obj in bpy.data.objects],
            "meshes": [mesh.name for mesh in bpy.data.meshes],
            "scene": [bpy.context.scene.camera, bpy.context.scene.render.fps],
        }
    return {"found": found, "used": [path.name for path in assets.used()]}


@scene
def refused(folder: Path) -> Any:
    import bpy

    from blender_jobs import _mesh_files, assets, meshes, stage
    from blender_jobs.job import JobError

    assets.begin(folder)
    stage.clear()
    for at in range(2):
        stage.cube(f"cube{at}")
    bpy.ops.wm.save_as_mainfile(filepath=str(folder / "two.blend"))
    stage.clear()
    for kind in FORMATS:
        (folder / f"broken.{kind}").write_text("nothing")
    face = "v 0 0 0\nv 1 0 0\nv 0 1 0\nusemtl red\nf 1 2 3\n"
    (folder / "lost.obj").write_text("mtllib lost.mtl\n" + face)
    (folder / "pale.obj").write_text("mtllib pale.mtl\n" + face)
    (folder / "pale.mtl").write_text("newmtl red\nmap_Kd pale.png\n")
    (folder / "point.obj").write_text("v 0 0 0\nv 0 0 0\nv 0 0 0\nf 1 2 3\n")
    attempts: dict[str, Callable[[], Any]] = {
        "choice": lambda: meshes.load("two.blend", "one"),
        "name": lambda: meshes.load("two.blend", "one", object_name="cube7"),
        "name elsewhere": lambda: meshes.load("lost.obj", "one", object_name="cube7"),
        "format": lambda: meshes.load("pale.mtl", "one"),
        "material": lambda: meshes.load("lost.obj", "one"),
        "texture": lambda: meshes.load("pale.obj", "one"),
        "extent": lambda: meshes.load("point.obj", "one", normalize=1.0),
        **{f"broken {kind}": lambda kind=kind: meshes.load(f"broken.{kind}", "one") for kind in FORMATS},
    }
    said = {}
    for name, attempt in attempts.items():
        with pytest.raises(JobError) as error:
            attempt()
        said[name] = str(error.value)
    _mesh_files.FORMATS[".stl"] = _mesh_files.Format([("import_mesh.no_such", {})], "Z", "io_no_such")
    with pytest.raises(JobError) as error:
        meshes.load("broken.stl", "one")
    said["importer"] = str(error.value)
    plain = meshes.load("lost.obj", "plain", use_materials=False)
    chosen = meshes.load("two.blend", "chosen", object_name="cube1")
    return {"said": said, "plain": len(plain.data.polygons), "chosen": len(chosen.data.polygons)}


@scene
def shapes(folder: Path) -> Any:
    from blender_jobs import meshes, stage

    stage.clear()
    made = {
        "sphere": meshes.sphere("sphere", 1.0, 64, 32),
        "fine sphere": meshes.sphere("fine sphere", 1.0, 700, 700),
        "cylinder": meshes.cylinder("cylinder", 1.0, 3.0, 64),
        "cone": meshes.cone("cone", 1.0, 0.0, 3.0, 64),
        "torus": meshes.torus("torus", 1.0, 0.25, 64, 32),
    }
    return {name: (volume(obj), extent(obj), all_closed(obj)) for name, obj in made.items()}


def all_closed(obj: Any) -> bool:
    import bmesh

    mesh = bmesh.new()
    mesh.from_mesh(obj.data)
    closed = all(edge.is_manifold and edge.is_contiguous for edge in mesh.edges)
    mesh.free()
    return closed


@scene
def spheres(folder: Path) -> Any:
    """One that Blender's operator builds, and others from arrays: what of them must be alike; each built twice."""
    from blender_jobs import meshes, stage

    stage.clear()
    found = []
    for segments, rings in ((32, 16), (33, 16), (128, 64)):
        made = meshes.sphere(f"{segments}", 2.0, segments, rings)
        again = meshes.sphere(f"{segments} again", 2.0, segments, rings)
        data = made.data
        lengths = [vertex.co.length for vertex in data.vertices]
        uvs = np.array([loop.uv[:] for loop in data.uv_layers.active.data])
        loops = np.array([data.vertices[loop.vertex_index].co[:] for loop in data.loops])
        found.append(
            {
                "counts": [len(data.vertices), len(data.edges), len(data.polygons)],
                "radii": [min(lengths), max(lengths)],
                "smooth": all(face.use_smooth for face in data.polygons),
                "sharp": any(edge.use_edge_sharp for edge in data.edges),
                "uv": [uvs.min(axis=0).tolist(), uvs.max(axis=0).tolist()],
                "rises": float(np.corrcoef(uvs[:, 1], np.arcsin(loops[:, 2] / 2))[0, 1]),
                "volume": volume(made),
                "repeats": [loop.vertex_index for loop in data.loops]
                == [loop.vertex_index for loop in again.data.loops],
            }
        )
    return found


PROFILES: dict[str, list[tuple[float, float]]] = {
    "cylinder": [(0, -1), (1, -1), (1, 1), (0, 1)],
    "downwards": [(0, 1), (1, 1), (1, -1), (0, -1)],
    "cup": [(0, 0), (1, 0), (1, 2), (0.9, 2), (0.9, 0.1), (0, 0.1)],
    "ring": [(2, 0), (3, 0), (3, 1), (2, 1), (2, 0)],
    "ring inwards": [(2, 0), (2, 1), (3, 1), (3, 0), (2, 0)],
    "tube": [(1, 0), (1, 3)],
    "bead": [(math.sin(at * math.pi / 20), -math.cos(at * math.pi / 20)) for at in range(1, 20)],
}
"""Radius and height; "bead" has its poles put to it."""
TURNED = {"cylinder": 2, "downwards": 2, "cup": 2 - 0.81 * 1.9, "ring": 5, "ring inwards": 5, "bead": 4 / 3}
"""What volume each closed one has, in pi cubic metres."""


@scene
def lathed(folder: Path) -> Any:
    from blender_jobs import meshes, stage
    from blender_jobs.job import JobError

    stage.clear()
    found, said = {}, []
    for name, profile in PROFILES.items():
        made = meshes.lathe(name, [(0, -1), *profile, (0, 1)] if name == "bead" else profile, 96)
        normals = np.array([[*face.center, *face.normal] for face in made.data.polygons])
        found[name] = {
            "volume": volume(made) / math.pi,
            "closed": all_closed(made),
            "sharp": sum(edge.use_edge_sharp for edge in made.data.edges),
            "vertices": len(made.data.vertices),
            "outwards": bool(((normals[:, :2] * normals[:, 3:5]).sum(axis=1) > -1e-6).all()),
            "uvs": len(made.data.uv_layers),
        }
    for profile, segments in (
        ([(0, 0)], 8),
        ([(0, 0), (-1, 0)], 8),
        ([(0, 0), (1, 0), (1, 0)], 8),
        ([(0, 0), (1, 1)], 2),
        (["a", "b"], 8),
        ([(0, 0), (0, 1)], 8),
    ):
        with pytest.raises(JobError) as error:
            meshes.lathe("vase", profile, segments)
        said.append(str(error.value))
    return {"found": found, "said": said}


@scene
def boxed(folder: Path) -> Any:
    from blender_jobs import meshes, stage
    from blender_jobs.job import JobError

    stage.clear()
    table = meshes.boxes("table", [(0, 0, 1), (1, 1, 0.45)], [(3, 3, 0.1), (0.1, 0.2, 0.9)])
    pair = meshes.boxes("pair", [(0, 0, 0), (5, 0, 0)], (1, 2, 3))
    said = []
    for centers, sizes in (([(0, 0)], (1, 1, 1)), ([(0, 0, 0)], (1, 0, 1)), ([(0, 0, 0)], [(1, 1, 1)] * 2)):
        with pytest.raises(JobError) as error:
            meshes.boxes("box", centers, sizes)
        said.append(str(error.value))
    return {
        "extents": [extent(table), extent(pair)],
        "volumes": [volume(table), volume(pair)],
        "closed": [all_closed(table), all_closed(pair)],
        "said": said,
    }


@scene
def tubed(folder: Path) -> Any:
    from blender_jobs import meshes, stage
    from blender_jobs.job import JobError

    stage.clear()
    rack = meshes.tubes("rack", [(0, 0, 0), (5, 0, 0)], [(0, 0, 3), (5, 2, 0)], [(1, 1), (0.5, 0.25)], 64)
    slanted = meshes.tubes("slanted", [(1, 2, 3)], [(2, 4, 5)], 0.5, 64)
    ends = [np.array(vertex.co) - (1, 2, 3) for vertex in slanted.data.vertices]
    axis = np.array([1, 2, 2]) / 3
    said = []
    for starts, stops, radii, segments in (
        ([(0, 0)], [(1, 1)], 1, 8),
        ([(0, 0, 0)], [(0, 0, 0)], 1, 8),
        ([(0, 0, 0)], [(0, 0, 1)], (1, 0), 8),
        ([(0, 0, 0)], [(0, 0, 1)], [(1, 0)], 8),
        ([(0, 0, 0)], [(0, 0, 1)], 1, 2),
        ([("a", "b", "c")], [(0, 0, 1)], 1, 8),
    ):
        with pytest.raises(JobError) as error:
            meshes.tubes("rod", starts, stops, radii, segments)
        said.append(str(error.value))
    return {
        "volumes": [volume(rack), volume(slanted)],
        "closed": [all_closed(rack), all_closed(slanted)],
        "extent": extent(rack),
        "along": [float(end @ axis) for end in ends],
        "off": [float(np.linalg.norm(end - (end @ axis) * axis)) for end in ends],
        "sharp": [sum(edge.use_edge_sharp for edge in obj.data.edges) for obj in (rack, slanted)],
        "said": said,
    }


@scene
def strewn(folder: Path) -> Any:
    import bpy

    from blender_jobs import meshes, stage

    def strew(seed: int) -> Any:
        stage.clear()
        made = meshes.distractors(np.random.default_rng(seed), 12, (-1, -2, 0), (1, 2, 3))
        bpy.context.view_layer.update()
        return [
            {
                "name": obj.name,
                "matrix": np.array(obj.matrix_world).tolist(),
                "vertices": len(obj.data.vertices),
                "color": list(obj.data.materials[0].diffuse_color),
            }
            for obj in made
        ]

    return [strew(0), strew(0), strew(1)]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return in_blender.play(__name__, tmp_path_factory.mktemp("seen"))


def test_each_format_gives_back_what_was_exported(seen: dict[str, Any]) -> None:
    """One mesh, where it stood, z up, in metres, to 1e-5; nothing else comes in or changes."""
    assert seen["imported"]["found"].keys() == set(FORMATS)
    for kind, found in seen["imported"]["found"].items():
        alone = kind == "blend"
        low, high = [0, 1.5, 0], [2 if alone else 5.5, 2.5, 3]
        if not alone:
            low[1] = -0.5
        assert np.array(found["extent"]) == pytest.approx(np.array([low, high]), abs=1e-5), kind
        assert np.array(found["scaled"]) == pytest.approx(np.array([low, high]) / 1000, abs=1e-5), kind
        assert found["volume"] == pytest.approx(6 if alone else 5 if kind == "ply" else 7, abs=1e-4), kind
        assert found["objects"] == ["brick", "model", "scaled", "turned", "unit"], kind
        assert found["meshes"] == found["objects"], kind
        assert found["scene"] == [None, 24], kind
        expected = [] if kind in ("ply", "stl") else ["brick"]
        assert found["looks"] == [expected, []], kind


def test_normalized_meshes_have_unit_size_about_the_origin(seen: dict[str, Any]) -> None:
    """The longest side is as long as asked, the bounding box centred, and Blender knows (`dimensions`)."""
    for kind, found in seen["imported"]["found"].items():
        low, high = np.array(found["unit"])
        assert low == pytest.approx(-high, abs=1e-6), kind
        assert (high - low).max() == pytest.approx(2, abs=1e-5), kind
        assert found["dimensions"] == pytest.approx(high - low, abs=1e-5), kind


def test_another_axis_can_be_up(seen: dict[str, Any]) -> None:
    """`up` says which axis of the file is up where its format's habit is wrong: a quarter turn about x."""
    for kind, found in seen["imported"]["found"].items():
        corners = np.array(list(itertools.product(*np.array(found["extent"]).T)))
        x, y, z = corners.T
        turned = np.stack([x, -z, y] if kind in ("ply", "stl", "blend") else [x, z, -y], axis=1)
        expected = np.array([turned.min(axis=0), turned.max(axis=0)])
        assert np.array(found["turned"]) == pytest.approx(expected, abs=1e-5), kind


def test_all_files_that_are_read_are_assets(seen: dict[str, Any]) -> None:
    """The files that a mesh file names are used like itself."""
    named = ["bricks.bin", "bricks.mtl", *(f"bricks.{kind}" for kind in FORMATS)]
    assert seen["imported"]["used"] == sorted(named)


def test_files_that_cannot_be_loaded_are_one_clear_line(seen: dict[str, Any]) -> None:
    """Each names the file, or what is missing, and never shows a traceback."""
    said = seen["refused"]["said"]
    ends = {
        "choice": "two.blend: choose one mesh with object_name; it has cube0, cube1",
        "name": "two.blend has no object 'cube7'; it has cube0, cube1",
        "name elsewhere": "lost.obj: object_name chooses among the objects of a .blend; this is another kind of file",
        "format": "cannot load .mtl files; use .fbx, .glb, .gltf, .obj, .ply, .stl or .blend",
        "extent": "point.obj: it has no extent, so it cannot be scaled",
    }
    for name, end in ends.items():
        assert said[name].endswith(end), said[name]
    assert "lost.mtl does not exist" in said["material"]
    assert "pale.png does not exist" in said["texture"]
    for kind in FORMATS:
        assert f"broken.{kind}: " in said[f"broken {kind}"]
    assert all("\n" not in line and "Traceback" not in line for line in said.values())
    assert "cannot import .stl files, as this build lacks the add-on io_no_such" in said["importer"]
    assert (seen["refused"]["plain"], seen["refused"]["chosen"]) == (1, 6)


def test_shapes_are_closed_and_as_large_as_they_say(seen: dict[str, Any]) -> None:
    """Volumes come near those of the round bodies, outside out; all edges join two faces."""
    ball = 4 / 3 * math.pi
    volumes = {
        "sphere": ball,
        "fine sphere": ball,
        "cylinder": 3 * math.pi,
        "cone": math.pi,
        "torus": 2 * math.pi**2 / 16,
    }
    heights = {"sphere": 2, "fine sphere": 2, "cylinder": 3, "cone": 3, "torus": 0.5}
    assert seen["shapes"].keys() == volumes.keys()
    for name, (volume, (low, high), closed) in seen["shapes"].items():
        assert closed, name
        assert volume == pytest.approx(volumes[name], rel=0.02), name
        assert high[2] == pytest.approx(heights[name] / 2, abs=1e-5), name
        assert low == pytest.approx([-value for value in high], abs=1e-5), name


def test_large_spheres_are_like_small_ones(seen: dict[str, Any]) -> None:
    """Poles are one vertex each; all on the sphere; smooth; outside out; their UV map goes up with the latitude.

    And built again, their corners come in the same order.
    """
    for segments, rings, found in zip((32, 33, 128), (16, 16, 64), seen["spheres"], strict=True):
        vertices, faces = segments * (rings - 1) + 2, segments * rings
        assert found["counts"] == [vertices, vertices + faces - 2, faces]
        assert found["radii"] == pytest.approx([2, 2], abs=1e-4)
        assert (found["smooth"], found["sharp"]) == (True, False)
        assert np.array(found["uv"]) == pytest.approx(np.array([[0, 0], [1, 1]]), abs=0.04)
        assert found["rises"] > 0.99
        assert found["repeats"]
        assert found["volume"] == pytest.approx(32 / 3 * math.pi, rel=0.03)


def test_a_lathe_turns_profiles_into_bodies(seen: dict[str, Any]) -> None:
    """Closed where the profile is, outside out whichever way it runs; sharp at corners and smooth elsewhere."""
    found = seen["lathed"]["found"]
    for name, volume in TURNED.items():
        assert found[name]["closed"], name
        assert found[name]["volume"] == pytest.approx(volume, rel=0.02), name
    sharp = {"cylinder": 2, "downwards": 2, "cup": 4, "ring": 4, "ring inwards": 4, "tube": 0, "bead": 0}
    assert {name: case["sharp"] for name, case in found.items()} == {name: 96 * rings for name, rings in sharp.items()}
    assert (found["cylinder"]["vertices"], found["ring"]["vertices"]) == (2 * 96 + 2, 4 * 96)
    assert found["tube"]["outwards"]
    assert found["bead"]["outwards"]
    assert {case["uvs"] for case in found.values()} == {1}


def test_profiles_that_cannot_be_turned_are_refused(seen: dict[str, Any]) -> None:
    ends = [
        "N at least 2",
        "on one side of the axis",
        "leave one out",
        "a circle needs 3 or more",
        "shape (N, 2)",
        "above 0",
    ]
    assert len(seen["lathed"]["said"]) == len(ends)
    for line, end in zip(seen["lathed"]["said"], ends, strict=True):
        assert line.startswith("lathe: ")
        assert line.endswith(end)


def test_boxes_are_where_they_should_be(seen: dict[str, Any]) -> None:
    """Each closed, outside out, of its size; what cannot be is one line."""
    found = seen["boxed"]
    table, pair = (np.array(ends) for ends in found["extents"])
    assert table == pytest.approx(np.array([[-1.5, -1.5, 0], [1.5, 1.5, 1.05]]), abs=1e-6)
    assert pair == pytest.approx(np.array([[-0.5, -1, -1.5], [5.5, 1, 1.5]]), abs=1e-6)
    assert found["volumes"] == pytest.approx([0.918, 12], abs=1e-5)
    assert found["closed"] == [True, True]
    assert found["said"] == [
        "boxes: 'box' needs finite centers of shape (N, 3), not (1, 2)",
        "boxes: 'box' has a side that is not above 0",
        "boxes: 'box' needs sizes of shape (3,) or (1, 3), not (2, 3)",
    ]


def test_tubes_run_from_start_to_end(seen: dict[str, Any]) -> None:
    """Closed, outside out, of their radii, flat at both ends; what cannot be is one line."""
    found = seen["tubed"]
    assert found["volumes"] == pytest.approx([math.pi * (3 + 2 * 0.4375 / 3), math.pi * 0.75], rel=0.01)
    assert found["closed"] == [True, True]
    assert np.array(found["extent"]) == pytest.approx(np.array([[-1, -1, -0.5], [5.5, 2, 3]]), abs=0.01)
    assert sorted(found["along"]) == pytest.approx([0] * 64 + [3] * 64, abs=1e-5)
    assert found["off"] == pytest.approx([0.5] * 128, abs=1e-5)
    assert found["sharp"] == [4 * 64, 2 * 64]
    ends = ["(1, 2) and (1, 2)", "whose end is its start", *["of shape (1, 2)"] * 2, "3 or more", "are numbers"]
    for line, end in zip(found["said"], ends, strict=True):
        assert line.startswith("tubes: 'rod'")
        assert line.endswith(end), line


def test_distractors_repeat_and_stay_in_their_box(seen: dict[str, Any]) -> None:
    """The same generator strews the same shapes, of more than one kind, with origins in the box."""
    first, again, other = seen["strewn"]
    assert first == again
    assert first != other
    places = np.array([obj["matrix"] for obj in first])[:, :3, 3]
    assert (np.abs(places - [0, 0, 1.5]) <= [1, 2, 1.5]).all()
    assert len({obj["vertices"] for obj in first}) > 2
