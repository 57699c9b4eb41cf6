"""The passes, held against sums done by hand, Blender's own ray casts and each other.

Each scene is built inside Blender, which returns arrays. The tests judge those.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blender_jobs._render.geometry import Geometry, Label, members
from blender_jobs._vision.camera import Camera, rigid, transform
from blender_jobs.passes import PASSES
from tests.in_blender import needs_bpy, play, scene

ROOT = Path(__file__).parents[2]
WIDTH, HEIGHT = 96, 72
ALL_BUT_ALPHA = [name for name in PASSES if name not in ("alpha", "flow")]
UNIT_BOX = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])

pytestmark = needs_bpy
Arrays = dict[str, np.ndarray]

# --- The scenes, built inside Blender -------------------------------------------------------------------------


def arrays_of(function: Callable[[], Arrays]) -> Callable[[], Arrays]:
    """Mark a scene that returns arrays: they come back in a file."""

    @functools.wraps(function)
    def play_and_keep(folder: Path) -> None:
        np.savez(folder / "arrays", **function())

    scene(play_and_keep)
    return function


def staged(engine: str = "BLENDER_WORKBENCH") -> Any:
    """An empty scene of the tests' size."""
    import bpy

    from blender_jobs import stage
    from blender_jobs._render import properties, render

    stage.clear()
    made = bpy.context.scene
    properties.apply(made, render.DEFAULTS)
    made.render.engine = engine
    made.render.resolution_x, made.render.resolution_y, made.render.resolution_percentage = WIDTH, HEIGHT, 100
    made.render.threads_mode, made.render.threads = "FIXED", 1
    made.render.image_settings.file_format, made.render.image_settings.color_mode = "PNG", "RGB"
    made.display.render_aa = "OFF"
    made.cycles.samples, made.cycles.use_denoising = 2, False
    return made


def camera_now() -> Camera:
    """The scene's camera, by the formulas of the pinhole and Blender's world matrix alone."""
    import bpy

    obj = bpy.context.scene.camera.evaluated_get(bpy.context.evaluated_depsgraph_get())
    matrix = np.array([row[:] for row in obj.matrix_world], dtype=np.float64) @ np.diag([1.0, -1, -1, 1])
    scale = (obj.data.ortho_scale if obj.data.type == "ORTHO" else obj.data.sensor_width / obj.data.lens) / WIDTH
    K = np.array([[1 / scale, 0, WIDTH / 2], [0, 1 / scale, HEIGHT / 2], [0, 0, 1]])
    return Camera("camera", obj.data.type, WIDTH, HEIGHT, K, matrix, 0.1, 100.0)


def rendered(*wanted: str) -> Geometry:
    import bpy

    from blender_jobs._render.geometry_render import render_geometry

    with tempfile.TemporaryDirectory() as scratch:
        return render_geometry(bpy.context.scene, wanted, Path(scratch))


def image() -> bytes:
    """The image's pixels."""
    import bpy

    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "frame.bmp"
        bpy.ops.render.render()
        settings = bpy.context.scene.render.image_settings
        settings.file_format = "BMP"
        bpy.data.images["Render Result"].save_render(str(path), scene=bpy.context.scene)
        settings.file_format = "PNG"
        return path.read_bytes()


def state() -> Any:
    import bpy

    from blender_jobs._render import snapshot

    return snapshot.take(bpy.context.scene, faces=True)


def passes_of(wanted: Sequence[str], geometry: Geometry, camera: Camera, labels: dict[str, Label]) -> Arrays:
    """The passes of objects and all their copies, labelled by the objects' names."""
    from blender_jobs._render.segments import Segments

    segments = Segments(geometry, state()) if geometry.index is not None else None

    def numbers(values: Sequence[int]) -> np.ndarray:
        assert segments is not None
        by_name = dict(zip(labels, values, strict=True))
        return segments.numbers({(b.owner, b.key): by_name.get(b.owner, 0) for b in segments.bodies})

    return members(wanted, geometry, camera, labels.values(), numbers, {})


def matrix(name: str) -> np.ndarray:
    import bpy

    obj = bpy.data.objects[name].evaluated_get(bpy.context.evaluated_depsgraph_get())
    return np.array([row[:] for row in obj.matrix_world], dtype=np.float64)


def index_of(geometry: Geometry, name: str) -> np.ndarray:
    return geometry.index == geometry.objects.index(name) + 1


def cubes() -> None:
    """A ground, a light, a camera, and cubes at odd angles."""
    from blender_jobs import stage

    rng = np.random.default_rng(5)
    stage.ground(4.0)
    stage.sun()
    stage.sky()
    stage.camera((5, -5, 4))
    for number in range(6):
        cube = stage.cube(f"cube{number}")
        cube.location, cube.rotation_euler = rng.uniform(-1.2, 1.2, 3), rng.uniform(0, 3, 3)
        stage.paint(cube, rng.uniform(0, 1, 3))


def plane_and_ball(kind: str) -> Arrays:
    """A plane through the origin, and a fine smooth ball of radius 1 on it."""
    import bpy
    import bmesh

    from blender_jobs import stage

    staged()
    stage.ground(3.0)
    stage.camera((5, -4, 3.5), (0, 0, 0.5), lens_mm=60)
    bpy.context.scene.camera.data.type = kind
    bpy.context.scene.camera.data.ortho_scale = 5.0
    form = bmesh.new()
    bmesh.ops.create_icosphere(form, subdivisions=6, radius=1.0)
    data = bpy.data.meshes.new("ball")
    form.to_mesh(data)
    data.polygons.foreach_set("use_smooth", [True] * len(data.polygons))
    ball = bpy.data.objects.new("ball", data)
    ball.location.z = 1.0
    bpy.context.scene.collection.objects.link(ball)
    stage.paint(bpy.data.objects["ground"], (0.25, 0.5, 0.75), matte=True)
    stage.paint(ball, (0.75, 0.5, 0.25), matte=True)
    bpy.context.view_layer.update()
    camera = camera_now()
    geometry = rendered(*ALL_BUT_ALPHA)
    labels = {"ground": Label(7, 3, matrix("ground"), UNIT_BOX), "ball": Label(65535, 2, matrix("ball"), 2 * UNIT_BOX)}
    return {
        **passes_of(ALL_BUT_ALPHA, geometry, camera, labels),
        **{f"expected_{name}": array for name, array in traced(camera).items()},
    }


def traced(camera: Camera) -> Arrays:
    """Each pixel's ray against the plane and the ball, by the formulas."""
    rows, columns = np.divmod(np.arange(WIDTH * HEIGHT), WIDTH)
    near, far = (
        camera.unproject(np.stack([columns + 0.5, rows + 0.5, np.full(len(rows), depth)], axis=1))
        for depth in (1.0, 2.0)
    )
    ray = far - near  # of depth 1, so that lengths along it count as depth
    to_plane = -near[:, 2] / ray[:, 2]
    at_plane = near + to_plane[:, None] * ray
    to_plane[(np.abs(at_plane[:, :2]) > 1.5).any(axis=1)] = np.inf
    a, b = (ray**2).sum(axis=1), (ray * (near - [0, 0, 1])).sum(axis=1)
    c = ((near - [0, 0, 1]) ** 2).sum(axis=1) - 1
    with np.errstate(invalid="ignore"):
        to_ball = (-b - np.sqrt(b * b - a * c)) / a
    to_ball[np.isnan(to_ball)] = np.inf
    first = np.minimum(to_plane, to_ball)
    number = np.where(np.isinf(first), 0, np.where(to_ball < to_plane, 2, 1))
    at = near + np.where(number > 0, first, 0)[:, None] * ray
    normals = np.select(
        [number[:, None] == 2, number[:, None] == 1], [at - [0, 0, 1], np.tile([0.0, 0, 1], (len(at), 1))]
    )
    steepness = np.abs((normals * ray).sum(axis=1)) / np.sqrt(a)
    return {
        "number": number.reshape(HEIGHT, WIDTH),
        "depth": (first + 1).reshape(HEIGHT, WIDTH),
        "length": np.sqrt(a).reshape(HEIGHT, WIDTH),
        "normals": normals.reshape(HEIGHT, WIDTH, 3),
        "steepness": steepness.reshape(HEIGHT, WIDTH),
        "rotation": camera.cam_to_world[:3, :3],
    }


@arrays_of
def perspective() -> Arrays:
    return plane_and_ball("PERSP")


@arrays_of
def orthographic() -> Arrays:
    return plane_and_ball("ORTHO")


@arrays_of
def segmentation() -> Arrays:
    """Cubes, and a collection of one cube that two empties show: copies are the object that they are copies of."""
    import bpy

    staged()
    cubes()
    bpy.context.scene.collection.objects.unlink(bpy.data.objects["cube5"])
    shown = bpy.data.collections.new("shown")
    shown.objects.link(bpy.data.objects["cube5"])
    for place in ((-1.5, 0, 1.5), (1.5, 0, 1.5)):
        empty = bpy.data.objects.new("empty", None)
        empty.instance_type, empty.instance_collection, empty.location = "COLLECTION", shown, place
        bpy.context.scene.collection.objects.link(empty)
    bpy.data.objects["cube0"].pass_index = 99
    geometry = rendered("segmentation")
    depsgraph, camera = bpy.context.evaluated_depsgraph_get(), camera_now()
    eye = camera.cam_to_world[:3, 3]
    cast = np.zeros(WIDTH * HEIGHT, dtype=np.uint16)
    for pixel in range(WIDTH * HEIGHT):
        y, x = divmod(pixel, WIDTH)
        to = camera.unproject(np.array([[x + 0.5, y + 0.5, 1.0]]))[0]
        hit, *_, obj, _ = bpy.context.scene.ray_cast(depsgraph, eye.tolist(), (to - eye).tolist())
        cast[pixel] = geometry.objects.index(obj.name_full) + 1 if hit else 0
    labels = {name: Label(number, 1, np.eye(4), UNIT_BOX) for number, name in enumerate(geometry.objects, 1)}
    made = passes_of(["segmentation"], geometry, camera, labels)["segmentation.npy"]
    return {"made": made, "cast": cast.reshape(HEIGHT, WIDTH), "copies": index_of(geometry, "cube5")}


@arrays_of
def cut_out() -> Arrays:
    """A sheet before a cube; its material's alpha is 0 where x < 0, in its own frame, and 0.3 elsewhere."""
    import bpy

    from blender_jobs import stage

    staged()
    stage.camera((0, -5, 0))
    stage.cube("cube", 2.0).location.y = 2.0
    sheet = stage.mesh("sheet", [(-1, 0, -1), (1, 0, -1), (1, 0, 1), (-1, 0, 1)], [(0, 1, 2, 3)])
    stage.paint(sheet, (1, 1, 1))
    tree = sheet.data.materials[0].node_tree
    place, parts, step, faint = (
        tree.nodes.new(f"ShaderNode{kind}") for kind in ("TexCoord", "SeparateXYZ", "Math", "Math")
    )
    faint.operation, faint.inputs[1].default_value = "MULTIPLY", 0.3
    step.operation, step.inputs[1].default_value = "GREATER_THAN", 0.0
    tree.links.new(place.outputs["Object"], parts.inputs[0])
    tree.links.new(parts.outputs["X"], step.inputs[0])
    tree.links.new(step.outputs[0], faint.inputs[0])
    tree.links.new(faint.outputs[0], next(n for n in tree.nodes if n.type == "BSDF_PRINCIPLED").inputs["Alpha"])
    bpy.context.view_layer.update()
    geometry = rendered("depth", "segmentation")
    return {"sheet": index_of(geometry, "sheet"), "cube": index_of(geometry, "cube"), "depth": geometry.depth}


@arrays_of
def with_and_without_materials() -> Arrays:
    """Cubes: what is where, rendered with their materials and, as nothing depends on them, without."""
    import bpy

    staged()
    cubes()
    fast = [rendered("depth"), rendered("alpha")]
    sheer = bpy.data.materials.new("sheer")
    if bpy.app.version < (5, 0):
        sheer.use_nodes = True
    sheer.node_tree.nodes.new("ShaderNodeBsdfTransparent")  # from now on, materials may let something through
    names = ("fast_depth", "fast_index", "fast_alpha", "depth", "index", "alpha")
    geometries = [*fast, rendered("depth"), rendered("alpha")]
    arrays = [array for g in geometries for array in (g.depth, g.index, g.alpha) if array is not None]
    return {**dict(zip(names, arrays, strict=True)), "materials": np.array(sorted(m.name for m in bpy.data.materials))}


@arrays_of
def coverage() -> Arrays:
    """A sheet parallel to the image, turned a little, so that its area in pixels is known."""
    from blender_jobs import stage

    staged()
    stage.camera((0, 0, 10), lens_mm=36)
    sheet = stage.mesh("sheet", [(-2, -1, 0), (2, -1, 0), (2, 1, 0), (-2, 1, 0)], [(0, 1, 2, 3)])
    sheet.rotation_euler.z = 0.2
    geometry = rendered("alpha")
    return passes_of(["alpha"], geometry, camera_now(), {})


@arrays_of
def coordinates() -> Arrays:
    """Cubes scaled and turned: the normalized coordinates, and what leads back from them to the image."""
    import bpy

    from blender_jobs import stage

    staged()
    stage.ground(4.0)
    stage.camera((4, -5, 4))
    for name, x in (("brick", -1.0), ("mirrored", 1.0)):
        made = stage.cube(name)
        made.location, made.rotation_euler, made.scale = (x, 0, 0.6), (0.3, 0.2, 0.5), (1.5, 0.7, 0.4)
    bpy.data.objects["mirrored"].scale.x = -1.0
    bpy.context.view_layer.update()
    labels = {name: Label(number, 1, matrix(name), UNIT_BOX) for number, name in enumerate(("brick", "mirrored"), 1)}
    camera = camera_now()
    result = passes_of(["nocs", "segmentation"], rendered("nocs", "segmentation"), camera, labels)
    for name, label in labels.items():
        seen = result["segmentation.npy"] == label.segmentation_id
        size = np.abs(np.array(bpy.data.objects[name].scale))
        own = (result["nocs.npy"][seen].astype(np.float64) - 0.5) * np.linalg.norm(size)
        result[f"{name}_pixels"] = camera.project(transform(rigid(label.matrix_world), own))[:, :2]
        result[f"{name}_centres"] = np.argwhere(seen)[:, ::-1] + 0.5
        result[f"{name}_reach"] = np.abs(own).max(axis=0) / size
    return result


def flown(change: Callable[[], None]) -> tuple[Geometry, Camera, Camera, Arrays]:
    """What is seen now, the cameras, and the flow to what `change` makes of the scene; and from there back, too."""
    import bpy

    from blender_jobs._render.segments import Segments
    from blender_jobs._worker.motion import flow

    bpy.context.view_layer.update()
    camera, now, geometry = camera_now(), state(), rendered("flow")
    change()
    bpy.context.view_layer.update()
    camera_then, then, later = camera_now(), state(), rendered("flow")
    flows = {
        "flow_forward": flow(geometry, Segments(geometry, now), camera, now, camera_then, then),
        "flow_backward": flow(later, Segments(later, then), camera_then, then, camera, now),
    }
    return geometry, camera, camera_then, flows


def expected(
    geometry: Geometry, cameras: tuple[Camera, Camera], move: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """The flow (H, W, 2) of a surface in the plane z = 0 whose world points `move` to others."""
    camera, then = cameras
    rows, columns = np.divmod(np.arange(WIDTH * HEIGHT), WIDTH)
    centres = np.stack([columns + 0.5, rows + 0.5], axis=1)
    near, far = (camera.unproject(np.column_stack([centres, np.full(len(rows), depth)])) for depth in (1.0, 2.0))
    ray = far - near
    at = near - (near[:, 2] / ray[:, 2])[:, None] * ray
    return (then.project(move(at))[:, :2] - centres).reshape(HEIGHT, WIDTH, 2)


@arrays_of
def rigid_flow() -> Arrays:
    """A sheet slides and turns out of the plane z = 0, the camera moves, and the ground beneath stands still."""
    import bpy

    from blender_jobs import stage

    staged()
    stage.camera((3, -4, 5))
    sheet = stage.mesh("sheet", [(-1, -1, 0), (1, -1, 0), (1, 1, 0), (-1, 1, 0)], [(0, 1, 2, 3)])
    stage.ground(6.0).location.z = -0.5
    sheet.rotation_euler.z = 0.3
    before = []

    def change() -> None:
        before.append(matrix("sheet"))
        sheet.location, sheet.rotation_euler = (0.2, -0.1, 0.15), (0.1, -0.05, 0.5)
        bpy.context.scene.camera.location.x += 0.1
        bpy.context.scene.camera.rotation_euler.z += 0.02

    geometry, *cameras, flows = flown(change)
    motion = matrix("sheet") @ np.linalg.inv(before[0])
    ground = np.array([0, 0, 0.5])
    lowered = [
        Camera("", c.type, WIDTH, HEIGHT, c.K, c.cam_to_world + np.pad(ground[:, None], ((0, 1), (3, 0))), 0.1, 100)
        for c in cameras
    ]
    return {
        **flows,
        "sheet": index_of(geometry, "sheet"),
        "sheet_flow": expected(geometry, (cameras[0], cameras[1]), lambda at: transform(motion, at)),
        "ground": index_of(geometry, "ground"),
        "ground_flow": expected(geometry, (lowered[0], lowered[1]), lambda at: at),
        "nothing": geometry.index == 0,
    }


def bent_sheet(by_python: bool) -> Arrays:
    """A fine sheet that a shape key, or the job itself, bends: a point at x goes up by 0.2 x x and aside by 0.1 x."""
    from blender_jobs import stage

    staged()
    stage.camera((2, -3, 4))
    line = np.linspace(-1, 1, 41)
    grid = [(x, y, 0) for y in line.tolist() for x in line.tolist()]
    corners = [row * 41 + column for row in range(40) for column in range(40)]
    sheet = stage.mesh("sheet", grid, [(at, at + 1, at + 42, at + 41) for at in corners])
    bent = np.array([(x + 0.1 * x, y, 0.2 * x * x) for x, y, _ in grid])
    if not by_python:
        sheet.shape_key_add(name="basis")
        key = sheet.shape_key_add(name="bent")
        key.value = 0.0
        key.data.foreach_set("co", bent.ravel())

    def change() -> None:
        if by_python:
            sheet.data.vertices.foreach_set("co", bent.ravel())
            sheet.data.update()
        else:
            key.value = 1.0

    geometry, *cameras, flows = flown(change)
    bend = lambda at: np.column_stack([1.1 * at[:, 0], at[:, 1], 0.2 * at[:, 0] ** 2])  # noqa: E731
    return {
        **flows,
        "sheet": index_of(geometry, "sheet"),
        "sheet_flow": expected(geometry, (cameras[0], cameras[1]), bend),
        "nothing": geometry.index == 0,
    }


@arrays_of
def flow_by_shape_key() -> Arrays:
    return bent_sheet(by_python=False)


@arrays_of
def flow_by_python() -> Arrays:
    return bent_sheet(by_python=True)


@arrays_of
def flow_of_copies() -> Arrays:
    """Two empties show one sheet and move apart; a third sheet vanishes while the camera moves."""
    import bpy

    from blender_jobs import stage

    staged()
    stage.camera((0, 0, 6))
    square = [(-0.5, -0.5, 0), (0.5, -0.5, 0), (0.5, 0.5, 0), (-0.5, 0.5, 0)]
    sheet, gone = (stage.mesh(name, square, [(0, 1, 2, 3)]) for name in ("sheet", "gone"))
    gone.location.y = 1.2
    shown = bpy.data.collections.new("shown")
    bpy.context.scene.collection.objects.unlink(sheet)
    shown.objects.link(sheet)
    empties = []
    for x in (-1.0, 1.0):
        empty = bpy.data.objects.new("empty", None)
        empty.instance_type, empty.instance_collection, empty.location.x = "COLLECTION", shown, x
        bpy.context.scene.collection.objects.link(empty)
        empties.append(empty)

    def change() -> None:
        empties[0].location.x -= 0.2
        empties[1].location.x += 0.3
        bpy.context.scene.camera.location.y += 0.1
        bpy.data.objects.remove(gone)

    geometry, camera, _, flows = flown(change)
    left = index_of(geometry, "sheet") & (np.arange(WIDTH) < WIDTH / 2)
    right = index_of(geometry, "sheet") & ~left
    pixels = camera.K[0, 0] / 6
    return {**flows, "left": left, "right": right, "gone": index_of(geometry, "gone"), "pixels": np.array(pixels)}


@arrays_of
def flow_of_changes() -> Arrays:
    """The camera passes one sheet and comes nearer to another, which moves and gets other faces."""
    import bpy

    from blender_jobs import stage

    staged()
    stage.camera((0, 0, 6))
    square = [(-1, -1, 0), (1, -1, 0), (1, 1, 0), (-1, 1, 0)]
    cut = stage.mesh("cut", square, [(0, 1, 2, 3)])
    passed = stage.mesh("passed", square, [(0, 1, 2, 3)])
    passed.location, passed.scale = (0.55, 0.35, 4.0), (0.1, 0.1, 0.1)

    def change() -> None:
        cut.data = bpy.data.meshes.new("cut")
        cut.data.from_pydata([*square, (0, 0, 0.3)], [], [(0, 1, 4), (1, 2, 4), (2, 3, 4), (3, 0, 4)])
        cut.location.x = 0.2
        bpy.context.scene.camera.location.z = 3.0

    geometry, *cameras, flows = flown(change)
    slid = np.eye(4)
    slid[0, 3] = 0.2
    moved = expected(geometry, (cameras[0], cameras[1]), lambda at: transform(slid, at))
    return {**flows, "cut": index_of(geometry, "cut"), "cut_flow": moved, "passed": index_of(geometry, "passed")}


def values(owner: Any) -> dict[str, str]:
    """All that is set in a piece of Blender's data, as text."""
    return {
        name: repr(getattr(owner, name)[:] if getattr(prop, "is_array", False) else getattr(owner, name))
        for name, prop in owner.bl_rna.properties.items()
        if prop.type in ("BOOLEAN", "INT", "FLOAT", "STRING", "ENUM") and name != "name_full"
    }


def everything() -> dict[str, dict[str, str]]:
    import bpy

    made = bpy.context.scene
    owners = {
        "render": made.render,
        "file": made.render.image_settings,
        "cycles": made.cycles,
        "dof": made.camera.data.dof,
        **{f"layer {layer.name}": layer for layer in made.view_layers},
        **{f"object {obj.name}": obj for obj in bpy.data.objects},
        **{f"light {light.name}": light for light in bpy.data.lights},
    }
    return {name: values(owner) for name, owner in owners.items()}


def falling(engine: str, with_passes: bool) -> Arrays:
    """Six cubes fall, three frames of them as images, with passes after each or without."""
    import bpy

    from blender_jobs import stage

    made = staged(engine)
    cubes()
    made.camera.data.dof.use_dof = True
    made.view_layers.new("another")
    for number, obj in enumerate(bpy.data.objects):
        obj.pass_index = number % 3
        if obj.name.startswith("cube"):
            stage.rigid_body(obj)
    images, passes, kept = [], [], True
    for frame in range(1, 4):
        made.frame_set(frame)
        images.append(image())
        if with_passes:
            before = everything()
            geometry = rendered(*PASSES)
            kept = kept and everything() == before
            passes += [
                geometry.mapped(lambda array: array[::2]).depth,
                geometry.alpha,
                geometry.normals,
                geometry.albedo,
                geometry.index,
            ]
    blob = np.frombuffer(b"".join(images), dtype=np.uint8)
    arrays = {f"pass{number}": array for number, array in enumerate(passes)}
    return {"images": blob, "poses": np.array([matrix(f"cube{n}") for n in range(6)]), "kept": np.array(kept), **arrays}


@arrays_of
def workbench_with() -> Arrays:
    return falling("BLENDER_WORKBENCH", with_passes=True)


@arrays_of
def workbench_without() -> Arrays:
    return falling("BLENDER_WORKBENCH", with_passes=False)


@arrays_of
def cycles_with() -> Arrays:
    return falling("CYCLES", with_passes=True)


@arrays_of
def cycles_without() -> Arrays:
    return falling("CYCLES", with_passes=False)


# --- The tests ------------------------------------------------------------------------------------------------


def run(folder: Path) -> dict[str, Arrays]:
    """What each scene's function returned."""
    return {name: dict(np.load(folder / name / "arrays.npz")) for name in play(__name__, folder)}


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Arrays]:
    return run(tmp_path_factory.mktemp("passes"))


def inner(array: np.ndarray) -> np.ndarray:
    """Where all eight neighbours are equal: away from silhouettes and the image's border."""
    padded = np.pad(array.astype(np.int64), 1, constant_values=-1)
    around = [padded[y : y + array.shape[0], x : x + array.shape[1]] for y in range(3) for x in range(3)]
    same: np.ndarray = np.all([other == array for other in around], axis=0)
    return same


@pytest.mark.parametrize("kind", ["perspective", "orthographic"])
def test_a_plane_and_a_ball_are_where_geometry_has_them(seen: dict[str, Arrays], kind: str) -> None:
    """Depth, distance, normals, ids and albedo at each pixel's centre, against rays intersected by hand."""
    made = seen[kind]
    expected = {name.removeprefix("expected_"): array for name, array in made.items() if name.startswith("expected_")}
    number = expected["number"]
    inside = inner(number)
    ids = np.array([0, 7, 65535])[number]
    for name in ALL_BUT_ALPHA:
        for member, described in PASSES[name].items():
            assert (made[member].dtype, [*made[member].shape]) == (described.dtype, described.shape(HEIGHT, WIDTH))
    assert np.count_nonzero(made["segmentation.npy"] != ids) < 0.005 * number.size
    np.testing.assert_array_equal(made["segmentation.npy"][inside], ids[inside])
    np.testing.assert_array_equal(made["categories.npy"][inside], np.array([0, 3, 2])[number][inside])
    nothing = made["segmentation.npy"] == 0
    assert np.isposinf(made["depth.npy"][nothing]).all()
    assert np.isposinf(made["distance.npy"][nothing]).all()
    for name in ("normals.npy", "normals_world.npy", "albedo.npy", "nocs.npy"):
        assert not made[name][nothing].any(), name
    compared = inside & (number > 0) & (expected["steepness"] > 0.3)
    assert np.count_nonzero(compared & (number == 2)) > 200
    assert np.count_nonzero(compared & (number == 1)) > 200
    depth, length = expected["depth"][compared], expected["length"][compared]
    np.testing.assert_allclose(made["depth.npy"][compared], depth, atol=1e-3)
    np.testing.assert_allclose(made["distance.npy"][compared], depth * length, atol=1e-3)
    normals = expected["normals"][compared]
    np.testing.assert_allclose(made["normals_world.npy"][compared], normals, atol=4e-3)
    np.testing.assert_allclose(made["normals.npy"][compared], normals @ expected["rotation"], atol=4e-3)
    assert np.einsum("ij,ij->i", normals @ expected["rotation"], normals @ expected["rotation"]).min() > 0.999
    colours = np.array([[0.25, 0.5, 0.75], [0.75, 0.5, 0.25]])[number[compared] - 1]
    np.testing.assert_allclose(made["albedo.npy"][compared], colours, atol=2e-3)


def test_segmentation_is_what_ray_casts_hit(seen: dict[str, Arrays]) -> None:
    """Equal away from silhouettes, two in a thousand elsewhere at most; copies count as their original."""
    made, cast = seen["segmentation"]["made"], seen["segmentation"]["cast"]
    inside = inner(cast)
    assert len(np.unique(cast)) > 6
    np.testing.assert_array_equal(made[inside], cast[inside])
    assert np.count_nonzero(made != cast) <= 0.002 * cast.size
    assert np.count_nonzero(seen["segmentation"]["copies"]) > 100


def test_a_cut_out_is_looked_through(seen: dict[str, Arrays]) -> None:
    """Where a material's alpha is 0, the passes are those of what is behind; where it is faint, they have no holes."""
    sheet, cube, depth = (seen["cut_out"][name] for name in ("sheet", "cube", "depth"))
    left = np.arange(WIDTH) < WIDTH // 2
    assert sheet.sum() > 500
    assert cube.sum() > 200
    assert not (sheet & left).any()
    assert not (cube & ~left).any()
    rows, columns = np.nonzero(sheet)
    assert sheet[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].all()
    np.testing.assert_allclose(depth[cube], 6.0, atol=1e-4)


def test_leaving_materials_out_changes_no_byte(seen: dict[str, Arrays]) -> None:
    """Of depth, index and alpha of an opaque scene; and no material stays behind."""
    made = seen["with_and_without_materials"]
    for name in ("depth", "index", "alpha"):
        assert made[f"fast_{name}"].tobytes() == made[name].tobytes()
    assert len(np.unique(made["index"])) > 5
    assert made["materials"].tolist() == [*(f"cube{n}" for n in range(6)), "ground", "sheer"]


def test_alpha_is_coverage(seen: dict[str, Arrays]) -> None:
    """The sheet's area in pixels, to a hundredth; whole inside, none outside, and between on its edge."""
    alpha = seen["coverage"]["alpha.npy"]
    assert alpha.dtype == np.uint8
    area = 8 * (WIDTH / 10) ** 2
    assert alpha.sum(dtype=np.int64) / 255 == pytest.approx(area, rel=0.01)
    assert np.count_nonzero(alpha == 255) > 0.8 * area
    assert np.count_nonzero((alpha > 0) & (alpha < 255)) > 50


@pytest.mark.parametrize("name", ["brick", "mirrored"])
def test_normalized_coordinates_lead_back_to_the_pixels(seen: dict[str, Arrays], name: str) -> None:
    """Scaled by the box's diagonal and moved by the rigid pose, they project to where they stand in the image."""
    made = seen["coordinates"]
    assert len(made[f"{name}_pixels"]) > 150
    np.testing.assert_allclose(made[f"{name}_pixels"], made[f"{name}_centres"], atol=0.05)
    np.testing.assert_allclose(made[f"{name}_reach"], 0.5, atol=0.06)
    nocs = made["nocs.npy"].astype(np.float64)
    assert nocs.min() >= 0
    assert nocs.max() <= 1


@pytest.mark.parametrize("kind", ["rigid_flow", "flow_by_shape_key", "flow_by_python"])
def test_flow_is_the_motion_of_the_surface(seen: dict[str, Arrays], kind: str) -> None:
    """Rigid motion, a bending mesh and the camera's motion, to a fiftieth of a pixel."""
    made = seen[kind]
    assert not made["flow_forward"][made["nothing"]].any()
    for name in ("sheet", "ground"):
        if name in made:
            mask = made[name] & inner(made[name])
            assert np.count_nonzero(mask) > 300
            assert np.abs(made[f"{name}_flow"][mask]).max() > 1
            np.testing.assert_allclose(made["flow_forward"][mask], made[f"{name}_flow"][mask], atol=0.02)


@pytest.mark.parametrize("kind", ["rigid_flow", "flow_by_shape_key"])
def test_backward_flow_is_the_way_back(seen: dict[str, Arrays], kind: str) -> None:
    """Taken at the end of the forward flow, it leads to where that began."""
    forward, backward = seen[kind]["flow_forward"], seen[kind]["flow_backward"]
    centres = np.argwhere(seen[kind]["sheet"] & inner(seen[kind]["sheet"]))
    x, y = (centres[:, ::-1] + 0.5 + forward[tuple(centres.T)]).T
    whole = (x > 2) & (x < WIDTH - 2) & (y > 2) & (y < HEIGHT - 2)
    back = backward[y[whole].astype(int), x[whole].astype(int)]
    sums = np.linalg.norm(back + forward[tuple(centres[whole].T)], axis=1)
    assert np.count_nonzero(whole) > 300
    assert np.median(sums) < 0.1  # the backward flow is that of the pixel, not of the very point


def test_flow_follows_copies_and_what_vanishes_stands_still(seen: dict[str, Arrays]) -> None:
    """Each copy has its own motion; the camera's motion is everywhere."""
    made = seen["flow_of_copies"]
    pixels = float(made["pixels"])
    for name, x in (("left", -0.2), ("right", 0.3), ("gone", 0.0)):
        assert made[name].sum() > 50, name
        flow = made["flow_forward"][made[name]]
        np.testing.assert_allclose(flow, np.tile([x * pixels, 0.1 * pixels], (len(flow), 1)), atol=0.01)


def test_flow_where_faces_change_and_where_the_camera_has_passed(seen: dict[str, Arrays]) -> None:
    """A mesh with other faces moves as its object does; what is behind the camera then has no flow."""
    made = seen["flow_of_changes"]
    assert made["cut"].sum() > 300
    np.testing.assert_allclose(made["flow_forward"][made["cut"]], made["cut_flow"][made["cut"]], atol=0.02)
    assert made["passed"].sum() > 30
    assert not made["flow_forward"][made["passed"]].any()


@pytest.mark.parametrize("engine", ["workbench", "cycles"])
def test_passes_leave_no_trace_in_the_images(seen: dict[str, Arrays], engine: str) -> None:
    """With passes after each frame, images and physics are as without them, and every setting is as before."""
    with_passes, without = seen[f"{engine}_with"], seen[f"{engine}_without"]
    np.testing.assert_array_equal(with_passes["images"], without["images"])
    np.testing.assert_array_equal(with_passes["poses"], without["poses"])
    assert with_passes["kept"]


def test_passes_do_not_depend_on_the_images_engine(seen: dict[str, Arrays]) -> None:
    """Workbench's and Cycles' have the same bytes."""
    passes = {name: array for name, array in seen["workbench_with"].items() if name.startswith("pass")}
    assert len(passes) > 5
    for name, array in passes.items():
        assert array.tobytes() == seen["cycles_with"][name].tobytes(), name


def test_another_process_makes_the_same_bytes(seen: dict[str, Arrays], tmp_path: Path) -> None:
    """All arrays of all scenes, bit by bit."""
    for name, arrays in run(tmp_path).items():
        assert arrays.keys() == seen[name].keys()
        for key, array in arrays.items():
            assert array.tobytes() == seen[name][key].tobytes(), (name, key)
