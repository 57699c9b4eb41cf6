"""The view, held against rendered pixels, Blender's geometry and sums done by hand.

Each scene is built inside Blender, which looks at it and returns plain numbers. The tests judge those.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blender_jobs._vision.camera import rigid
from tests.in_blender import needs_bpy, play, scene

ROOT = Path(__file__).parents[2]

pytestmark = needs_bpy

# --- The scenes, built inside Blender -------------------------------------------------------------------------

# Settings of scene.render ("render."), the camera's data ("data.") and its object ("camera.").
CAMERAS: dict[str, dict[str, Any]] = {
    "plain": {},
    "lens shift": {"data.shift_x": 0.12, "data.shift_y": -0.07},
    "portrait, auto fit": {"render.resolution_x": 150, "render.resolution_y": 200, "data.shift_x": 0.05},
    "portrait, vertical fit": {
        "render.resolution_x": 150,
        "render.resolution_y": 200,
        "data.sensor_fit": "VERTICAL",
        "data.sensor_height": 30.0,
    },
    "landscape, vertical fit": {"data.sensor_fit": "VERTICAL", "data.shift_y": 0.05},
    "wide pixels": {"render.pixel_aspect_x": 1.6},
    "high pixels": {"render.pixel_aspect_y": 1.4, "data.shift_y": 0.05},
    "half resolution": {"render.resolution_x": 401, "render.resolution_y": 301, "render.resolution_percentage": 50},
    "orthographic": {"data.type": "ORTHO", "data.ortho_scale": 5.0},
    "orthographic, shifted, high pixels, portrait": {
        "data.type": "ORTHO",
        "data.ortho_scale": 8.0,
        "data.shift_x": -0.03,
        "data.shift_y": 0.1,
        "render.pixel_aspect_y": 1.5,
        "render.resolution_x": 150,
        "render.resolution_y": 200,
    },
    "scaled": {"camera.scale": (2.0, 0.5, 3.0)},
}
MARKERS = [(0, 0, 0), (-1.4, 0.3, 0.9), (1.2, 1.5, -0.6), (0.4, -1.3, -0.9), (-0.9, 1.1, -0.8), (1.0, -0.4, 1.1)]
ENGINES = {"CYCLES": 0.05, "BLENDER_WORKBENCH": 0.4}
"""And by how many pixels a ball's centroid may miss: Workbench without anti-aliasing counts whole pixels."""
COLOURS = [(1, 0, 0), (0, 1, 0), (0, 0, 1)]


def empty_scene(width: int = 200, height: int = 150) -> Any:
    import bpy

    bpy.ops.wm.read_factory_settings(use_empty=True)
    made = bpy.context.scene
    made.render.film_transparent = True  # a black background with every engine
    made.render.resolution_x, made.render.resolution_y = width, height
    made.render.resolution_percentage = 100
    made.render.image_settings.file_format = "OPEN_EXR"
    made.render.image_settings.color_depth = "32"
    made.display.shading.light = "FLAT"
    made.display.render_aa = "OFF"  # on, it moves the whole picture by up to 0.16 pixels
    made.cycles.samples, made.cycles.use_denoising = 128, False
    return made


def link(name: str, data: Any, at: Any = (0, 0, 0), turn: Any = (0, 0, 0)) -> Any:
    import bpy

    made = bpy.data.objects.new(name, data)
    made.location, made.rotation_euler = at, turn
    bpy.context.scene.collection.objects.link(made)
    return made


def camera(at: Any, look_at: Any = (0, 0, 0), lens: float = 35.0) -> Any:
    import bpy
    from mathutils import Vector

    data = bpy.data.cameras.new("camera")
    data.lens = lens
    made = link("camera", data, at)
    made.rotation_euler = (Vector(look_at) - Vector(at)).to_track_quat("-Z", "Y").to_euler()
    bpy.context.scene.camera = made
    return made


def box(name: str, size: Any = (1, 1, 1), at: Any = (0, 0, 0), turn: Any = (0, 0, 0)) -> Any:
    import bpy

    corners = [[s * c / 2 for s, c in zip(size, signs, strict=True)] for signs in itertools.product((-1, 1), repeat=3)]
    data = bpy.data.meshes.new(name)
    data.from_pydata(corners, [], [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)])
    return link(name, data, at, turn)


def marker(at: Any, colour: Any, radius: float) -> Any:
    """A small glowing ball, as Cycles and Workbench see it."""
    import bpy

    bpy.ops.mesh.primitive_ico_sphere_add(subdivisions=4, radius=radius, location=at)
    made = bpy.context.object
    material = bpy.data.materials.new("glow")
    if bpy.app.version < (5, 0):
        material.use_nodes = True
    nodes = material.node_tree.nodes
    nodes.clear()
    emission, output = nodes.new("ShaderNodeEmission"), nodes.new("ShaderNodeOutputMaterial")
    emission.inputs["Color"].default_value = material.diffuse_color = (*colour, 1)
    material.node_tree.links.new(emission.outputs[0], output.inputs[0])
    made.data.materials.append(material)
    return made


def apply(settings: dict[str, Any]) -> None:
    import bpy

    made = bpy.context.scene
    owners = {"render": made.render, "data": made.camera.data, "camera": made.camera}
    for path, value in settings.items():
        owner, name = path.split(".")
        setattr(owners[owner], name, value)


def rendered(engine: str = "BLENDER_WORKBENCH") -> np.ndarray:
    """The picture, linear RGB (H, W, 3), first row on top."""
    import bpy

    made = bpy.context.scene
    made.render.engine = engine
    made.render.filepath = str(Path.cwd() / "picture.exr")
    bpy.ops.render.render(write_still=True)
    image = bpy.data.images.load(made.render.filepath)
    width, height = image.size
    pixels = np.empty(width * height * 4, np.float32)
    image.pixels.foreach_get(pixels)
    bpy.data.images.remove(image)
    return pixels.reshape(height, width, 4)[::-1, :, :3]


def centroids(picture: np.ndarray) -> list[list[float]]:
    """Of what is red, green and blue: x and y in pixels, weighted by coverage."""
    rows, columns = np.indices(picture.shape[:2]) + 0.5
    return [[float((at * w).sum() / w.sum()) for at in (columns, rows)] for w in np.moveaxis(picture, 2, 0)]


def edges_of(picture: np.ndarray) -> list[int]:
    """Left, top, right and bottom edge of what is not black."""
    rows, columns = np.nonzero(picture.max(axis=2) > 0.01)
    return [int(edge) for edge in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)]


def view() -> Any:
    import bpy

    from blender_jobs.view import View

    return View(bpy.context.scene)


@scene
def markers(folder: Path) -> dict[str, Any]:
    """Six balls in every camera, three to a picture, each in a colour of its own."""
    seen: dict[str, Any] = {}
    for name, settings in CAMERAS.items():
        empty_scene()
        camera(at=(2, -6.5, 3))
        apply(settings)
        balls = [marker(at, COLOURS[i % 3], 0.06) for i, at in enumerate(MARKERS)]
        look = view()
        seen[name] = {"projected": look.project(MARKERS).tolist(), "size": (look.width, look.height)}
        for engine in ENGINES:
            found = []
            for shown in (balls[:3], balls[3:]):
                for ball in balls:
                    ball.hide_render = ball not in shown
                picture = rendered(engine)
                found += centroids(picture)
            seen[name][engine] = {"found": found, "size": picture.shape[1::-1]}
    return seen


@scene
def by_hand(folder: Path) -> dict[str, Any]:
    """A camera 10 m above the world's origin that looks down, its picture's top towards +y."""
    made = empty_scene(720, 480)
    eye = camera(at=(0, 0, 10))
    eye.rotation_euler = (0, 0, 0)
    eye.data.lens, eye.data.sensor_width, eye.data.shift_x = 50, 36, 0.1
    pole = box("pole", (1, 2, 3), at=(1, 2, 0), turn=(0, 0, np.pi / 2))
    points = [(0, 0, 0), (1, 2, 0), (-1, 0, 5), (0, 0, 10), (0, 0, 11), (3, 1, 25)]
    looks = {}
    for kind in ("PERSP", "ORTHO"):
        eye.data.type, eye.data.ortho_scale = kind, 6
        look = view()
        looks[kind] = {
            "camera": look.camera,
            "points": look.project(points).tolist(),
            "visibility": look.visibility(points).tolist(),
            "pose": look.pose(pole).tolist(),
        }
    assert made.render.resolution_x == look.width
    return looks


@scene
def occlusion(folder: Path) -> dict[str, Any]:
    """A wall at x = 0, a pane right before the camera, nearer than the clip plane; the camera looks along -x."""
    empty_scene()
    eye = camera(at=(5, 0, 0))
    eye.data.clip_start, eye.data.clip_end = 0.5, 20.0
    box("wall", (0.2, 2, 2))
    box("pane", (0.1, 9, 9), at=(4.7, 0, 0))
    points = {
        "in front": (1, 0, 0),
        "on the wall": (0.1, 0.3, 0.3),
        "just inside the wall": (0.09, 0.3, 0.3),
        "behind the wall": (-1, 0.2, 0.2),
        "behind, beside the wall": (-1, 1.5, 0),
        "left of the image": (0, -4, 0),
        "above the image": (0, 0, 4),
        "too near": (4.6, 0, 0),
        "too far": (-16, 3.5, 0),
        "at the camera": (5, 0, 0),
        "behind the camera": (9, 0.1, 0.1),
    }
    flags = {}
    for kind in ("PERSP", "ORTHO"):
        eye.data.type, eye.data.ortho_scale = kind, 7.5
        flags[kind] = dict(zip(points, view().visibility(list(points.values())).tolist(), strict=True))
    return flags


@scene
def lone_cube(folder: Path) -> list[dict[str, Any]]:
    """One cube turned at random, seen from near and from far."""
    empty_scene()
    eye = camera(at=(0, -4, 0), lens=12)
    cube = box("cube")
    rng = np.random.default_rng(0)
    seen = []
    for distance in (1.5, 4.0, 30.0):
        for _ in range(10):
            cube.rotation_euler, eye.location = rng.uniform(-3, 3, 3), (0, -distance, 0)
            look = view()
            seen.append(
                {
                    "turn": [row[:] for row in cube.matrix_world.to_3x3()],
                    "eye": list(eye.location),
                    "corners": look.corners(cube).tolist(),
                    "visibility": look.visibility(look.corners(cube)).tolist(),
                }
            )
    return seen


BOXES: dict[str, dict[str, Any]] = {
    "inside": {"size": (1, 2, 0.5), "turn": (0.5, 0.3, 1)},
    "out of one side": {"size": (3, 1, 1), "at": (2.5, 0, 0), "turn": (0.3, 0.7, 0.2)},
    "out of a corner": {"size": (2, 2, 2), "at": (2.2, 0, 1.8), "turn": (0.4, 0.7, 0.3)},
    "covers a corner": {"size": (4, 1, 4), "at": (2.5, 0, 2), "turn": (0.1, 0.3, 0.1)},
    "covers all": {"size": (9, 1, 9)},
    "through the near plane": {"size": (0.5, 9, 0.4), "at": (0.6, -2, -0.5), "turn": (0.02, 0.1, 0.1)},
    "floor cut by the near plane": {
        "size": (30, 30, 0.1),
        "at": (0, 0, -0.9),
        "turn": (0.1, 0, 0),
        "near": 2.0,
        "far": 8.0,
    },
    "ceiling cut by the far plane": {"size": (30, 30, 0.1), "at": (0, 9, 0.9), "turn": (-0.03, 0, 0), "far": 8.0},
    "beside": {"size": (1, 1, 1), "at": (6, 0, 0)},
    "behind": {"size": (1, 1, 1), "at": (0, -9, 0.2)},
}


@scene
def rendered_boxes(folder: Path) -> dict[str, Any]:
    """Each box of `BOXES` by itself, from 5 m: its picture's edges, also on a canvas three times as large."""
    seen: dict[str, Any] = {}
    for (name, settings), kind in itertools.product(BOXES.items(), ("PERSP", "ORTHO")):
        made = empty_scene()
        eye = camera(at=(0, -5, 0))
        eye.data.type, eye.data.ortho_scale = kind, 5
        eye.data.clip_start, eye.data.clip_end = settings.get("near", 0.5), settings.get("far", 100.0)
        obj = box("box", settings["size"], settings.get("at", (0, 0, 0)), settings.get("turn", (0, 0, 0)))
        clipped, unclipped = view().bbox(obj)
        entry = {"clipped": clipped, "unclipped": unclipped, "edges": None, "wide edges": None}
        if any(clipped):
            entry["edges"] = edges_of(rendered())
            made.render.resolution_x, made.render.resolution_y = 600, 450
            eye.data.sensor_width, eye.data.ortho_scale = 3 * 36, 3 * 5
            left, top, right, bottom = edges_of(rendered())
            entry["wide edges"] = [left - 200, top - 150, right - 200, bottom - 150]
        else:
            entry["drawn"] = bool(rendered().any())
        seen[f"{name}, {kind}"] = entry
    return seen


@scene
def described(folder: Path) -> dict[str, Any]:
    """A scaled and turned box among points behind, beside and in front; with points of its own, and bare."""
    empty_scene()
    camera(at=(2, -6.5, 3))
    brick = box("brick", (1, 2, 0.5), at=(0.3, 0.2, 0.1), turn=(0.4, 0.2, 1.0))
    brick.scale = (0.5, 1.5, 2.0)
    look = view()
    points = [(0, 0, 0), (0.5, 1, 0.25), (0, -9, 3), (0, 9, 0)]
    bare = look.describe(brick, "brick")
    own = look.describe(brick, "brick", points, ["a", "b", "c", "d"], colour="red", mass_kg=2.5)
    return {
        "camera": look.camera,
        "bare": bare,
        "own": own,
        "pointless": look.describe(brick, "brick", []),
        "bare rows": look.keypoints(brick).tolist(),
        "own rows": look.keypoints(brick, points).tolist(),
        "projected": look.project(bare["box3d"]).tolist(),
        "dtypes": [
            str(array.dtype) for array in (look.project(points), look.visibility(points), look.keypoints(brick))
        ],
    }


@scene
def evaluated(folder: Path) -> dict[str, Any]:
    """Modifiers that Blender's own `bound_box` follows, and one that it does not."""
    empty_scene()
    camera(at=(2, -6.5, 3))
    row, ball = box("row"), box("ball")
    row.modifiers.new("array", "ARRAY").count = 3
    ball.modifiers.new("smooth", "SUBSURF").levels = 3
    look = view()
    bounds = {obj.name: look.corners(obj).tolist() for obj in (row, ball)}
    ball.hide_render, row.hide_render = False, True
    return {**bounds, "bbox": look.bbox(ball)[0], "edges": edges_of(rendered())}


@scene
def curved(folder: Path) -> dict[str, Any]:
    """A text and a thick curve, whose bounding boxes are larger than what they show."""
    import bpy

    found = {}
    for name, add in (("text", bpy.ops.object.text_add), ("circle", bpy.ops.curve.primitive_bezier_circle_add)):
        empty_scene()
        camera(at=(0.5, -4, 0.5), look_at=(0.5, 0, 0.5))
        add(rotation=(1.2, 0.5, 0.7))
        made = bpy.context.object
        if name == "circle":
            made.data.bevel_depth = 0.1
        look = view()
        covered, drawn = look.silhouette(made), rendered().max(axis=2) > 0.01
        found[name] = {
            "bbox": look.bbox(made)[0],
            "edges": edges_of(rendered()),
            "pixels": [int(covered.sum()), int(drawn.sum()), int((covered != drawn).sum())],
        }
    return found


@scene
def falling(folder: Path) -> dict[str, Any]:
    """A cube let go at 5 m, 24 frames a second, half a second later."""
    import bpy

    made = empty_scene()
    camera(at=(0, -12, 3), look_at=(0, 0, 3))
    cube = box("cube", at=(0, 0, 5))
    bpy.ops.rigidbody.world_add()
    with bpy.context.temp_override(object=cube, active_object=cube, selected_objects=[cube]):
        bpy.ops.rigidbody.object_add(type="ACTIVE")
    made.render.fps = 24
    for frame in range(1, 14):
        made.frame_set(frame)
    look = view()
    return {
        "height": float(look.corners(cube)[:, 2].mean()),
        "box3d": look.describe(cube, "cube")["box3d"],
        "projected": look.project(look.corners(cube)).tolist(),
        "keypoints": look.keypoints(cube).tolist(),
        "matrix_world": look.describe(cube, "cube")["matrix_world"],
    }


@scene
def poses(folder: Path) -> dict[str, Any]:
    """Scaled, mirrored and sheared objects."""
    empty_scene()
    camera(at=(2, -6.5, 3))
    turn = (0.4, 0.2, 1.0)
    objects = {name: box(name, at=(1, 2, 3), turn=turn) for name in ("plain", "scaled", "mirrored", "sheared")}
    objects["scaled"].scale = (2, 0.5, 3)
    objects["mirrored"].scale = (-2, 2, 2)
    parent = link("parent", None)
    parent.scale = (1, 1.3, 1)
    objects["sheared"].parent = parent
    look = view()
    seen: dict[str, Any] = {name: look.pose(obj).tolist() for name, obj in objects.items()}
    seen["world_to_cam"] = np.linalg.inv(look.camera["cam_to_world"]).tolist()
    seen["mirrored rotation"] = [r[:] for r in objects["mirrored"].matrix_world.decompose()[1].to_matrix()]
    return seen


CATEGORIES = [
    {"id": 1, "name": "lamp", "keypoints": [], "skeleton": [], "colors": []},
    {"id": 2, "name": "stick", "keypoints": ["foot", "head"], "skeleton": [[1, 2]], "colors": []},
]


@scene
def truncated(folder: Path) -> dict[str, Any]:
    """Cubes and edges that are seen as points: in, half in and out of the image, and behind the camera."""
    empty_scene()
    eye = camera(at=(0, -10, 0))
    eye.data.type, eye.data.ortho_scale = "ORTHO", 4
    places = {
        "inside": 0,
        "half out": 2,
        "three quarters out": (2, 0, 1.5),
        "out": 9,
        "around": 0,
        "behind": (0, -20, 0),
    }
    looks = {}
    for name, at in places.items():
        size = (8, 1, 3) if name == "around" else (1, 1, 1)
        obj = box(name, size, at if isinstance(at, tuple) else (at, 0, 0))
        looks[name] = obj
    spots = {"point inside": box("spot", (0, 1, 0), (1, 0, 0)), "point out": box("far spot", (0, 1, 0), (9, 0, 0))}
    look = view()
    return {name: look.describe(obj, "thing", [])["truncation"] for name, obj in {**looks, **spots}.items()}


@scene
def declared(folder: Path) -> dict[str, Any]:
    """Objects described under declared categories: what is taken, and what is said to the rest."""
    import bpy

    from blender_jobs.parts import Points
    from blender_jobs.view import View

    empty_scene()
    camera(at=(0, -5, 0))
    stick, lamp = box("stick"), box("lamp", at=(1, 0, 0))
    look = View(bpy.context.scene, categories=CATEGORIES)
    ends = [(0, 0, -0.5), (0, 0, 0.5)]
    taken = [
        look.describe(stick, "stick", ends),
        look.describe(lamp, "lamp"),
        look.describe(stick, "stick", Points(["foot", "head"], np.zeros((2, 3)))),
        look.describe(lamp, "lamp", ends, ["a", "b"]),
    ]
    said = {}

    def note(name: str, *args: Any) -> None:
        try:
            look.describe(*args)
        except ValueError as error:
            said[name] = str(error)

    note("undeclared", lamp, "lampp")
    note("too few", stick, "stick", ends[:1])
    note("corners for a template", stick, "stick")
    note("other order", stick, "stick", ends, ["head", "foot"])
    note("points of other names", stick, "stick", Points(["foot", "hat"], np.zeros((2, 3))))
    note("two categories", stick, "lamp")
    labels = {
        name: [
            label.segmentation_id,
            label.category_id,
            label.matrix_world.tolist(),
            np.ptp(label.box, axis=0).tolist(),
        ]
        for (name, _), label in look.labels.items()
    }
    return {"taken": taken, "said": said, "labels": labels}


@scene
def mistakes(folder: Path) -> dict[str, str]:
    import bpy

    made = empty_scene()
    said = {}

    def note(name: str, attempt: Callable[[], Any]) -> None:
        try:
            attempt()
        except ValueError as error:
            said[name] = str(error)

    note("no camera", view)
    made.camera = link("lamp", bpy.data.lights.new("lamp", "SUN"))
    note("lamp as camera", view)
    eye = camera(at=(0, -5, 0))
    eye.data.type = "PANO"
    note("panorama", view)
    eye.data.type, eye.scale = "PERSP", (-1, 1, 1)
    note("mirrored camera", view)
    eye.scale = (1, 1, 1)
    cube, hidden, gone = box("cube"), box("hidden"), box("gone")
    hidden.hide_render = True
    empty = link("empty", None)
    stray = bpy.data.objects.new("stray", None)
    bpy.data.objects.remove(gone)
    look = view()
    note("name for object", lambda: look.keypoints("cube"))
    note("removed object", lambda: look.bbox(gone))
    note("object of no scene", lambda: look.bbox(stray))
    note("hidden object", lambda: look.corners(hidden))
    note("empty", lambda: look.describe(empty, "empty", []))
    note("flat points", lambda: look.describe(cube, "cube", [1, 2, 3]))
    note("words for points", lambda: look.keypoints(cube, [["a", "b", "c"]]))
    note("infinite point", lambda: look.keypoints(cube, [[0, 0, np.inf]]))
    note("names", lambda: look.describe(cube, "cube", [[0, 0, 0]], ["a", "b"]))
    note("taken field", lambda: look.describe(cube, "cube", bbox=[1, 2, 3, 4]))
    for slip in ("self_tolerance", "tolerance", "tolerance_m", "part", "keypoint_name", "dimension"):
        note(f"slip {slip}", lambda name=slip: look.describe(cube, "cube", **{name: 1}))  # type: ignore[misc]
    note("other scene", lambda: type(look)(bpy.data.scenes.new("other")))
    return said


# --- The tests ------------------------------------------------------------------------------------------------


@scene
def moments(folder: Path) -> dict[str, Any]:
    """What a view says of its moment in `annotate`, and outside a build."""
    import bpy

    from tests.blender_jobs.labels.playing import annotations, play

    def build() -> None:
        box("cube")
        for name in ("left", "right"):
            camera(at=(3, -3, 2)).name = name

    def annotate(look: Any, _: Any) -> dict[str, Any]:
        return {"own": [look.episode, look.frame, look.camera_name]}

    rig = {"passes": (), "size": (16, 12), "samples": 1, "episodes": (5, 7)}
    taken = play(build, annotate, cameras=("left", "right"), frames=(2, 4), **rig)
    lone = annotations(play(build, annotate, **rig)[0])
    empty_scene()
    camera(at=(3, -3, 2))
    bpy.context.scene.frame_set(9)
    alone = view()
    return {
        "of a rig": [annotations(members, f"{name}.") for members in taken for name in ("left", "right")],
        "of the scene's camera": lone,
        "alone": [alone.episode, alone.frame, alone.camera_name],
    }


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each scene returned."""
    return play(__name__, tmp_path_factory.mktemp("view"))


CORNER_SIGNS = np.array(
    [(-1, -1, -1), (-1, -1, 1), (-1, 1, 1), (-1, 1, -1), (1, -1, -1), (1, -1, 1), (1, 1, 1), (1, 1, -1)]
)
"""Blender's order of a bounding box's corners."""


def sides(box: list[float]) -> np.ndarray:
    """Left, top, right, bottom of [x, y, width, height]."""
    x, y, width, height = box
    return np.array([x, y, x + width, y + height])


def to_image(camera: dict[str, Any], points: Any) -> np.ndarray:
    """World (N, 3) to (N, 3) by what the annotation says, done here anew: x, y, depth."""
    homogeneous = np.c_[points, np.ones(len(points))]
    local = (homogeneous @ np.linalg.inv(camera["cam_to_world"]).T)[:, :3]
    plane = local / local[:, 2:] if camera["type"] == "PERSP" else np.c_[local[:, :2], np.ones(len(local))]
    return np.c_[(plane @ np.array(camera["K"]).T)[:, :2], local[:, 2]]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", CAMERAS)
def test_projected_points_are_where_the_renderers_draw_them(seen: dict[str, Any], name: str, engine: str) -> None:
    case = seen["markers"][name]
    assert case["size"] == case[engine]["size"]
    misses = np.linalg.norm(np.array(case[engine]["found"]) - np.array(case["projected"])[:, :2], axis=1)
    assert misses.max() < ENGINES[engine]


def test_perspective_as_computed_by_hand(seen: dict[str, Any]) -> None:
    """The focal length is f = 720 * 50 / 36 = 1000; a shift of 0.1 moves the principal point by 72 to the left."""
    case = seen["by_hand"]["PERSP"]
    assert case["camera"] == {
        "name": "camera",
        "type": "PERSP",
        "width": 720,
        "height": 480,
        "K": pytest.approx(np.array([[1000, 0, 288], [0, 1000, 240], [0, 0, 1]]), abs=1e-4),
        "cam_to_world": [[1, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 10], [0, 0, 0, 1]],
        "clip_start": 0.1,
        "clip_end": 1000.0,
        "distortion": [],
    }
    expected = [(288, 240, 10), (388, 40, 10), (88, 240, 5), (0, 0, 0), (0, 0, -1), (0, 0, -15)]
    assert case["points"] == pytest.approx(np.array(expected), abs=1e-4)


def test_orthographic_as_computed_by_hand(seen: dict[str, Any]) -> None:
    """6 m over 720 pixels, 120 a metre, at every depth."""
    case = seen["by_hand"]["ORTHO"]
    assert case["camera"]["K"] == pytest.approx(np.array([[120, 0, 288], [0, 120, 240], [0, 0, 1]]), abs=1e-4)
    expected = [(288, 240, 10), (408, 0, 10), (168, 240, 5), (0, 0, 0), (0, 0, -1), (0, 0, -15)]
    assert case["points"] == pytest.approx(np.array(expected), abs=1e-4)


def test_pose_as_computed_by_hand(seen: dict[str, Any]) -> None:
    """The pole's x axis points to the world's y, up in the picture, which is -y in the camera's frame."""
    expected = [[0, -1, 0, 1], [-1, 0, 0, -2], [0, 0, -1, 10], [0, 0, 0, 1]]
    assert seen["by_hand"]["PERSP"]["pose"] == pytest.approx(np.array(expected), abs=1e-6)


def test_nothing_behind_the_camera_is_in_the_image(seen: dict[str, Any]) -> None:
    for case in seen["by_hand"].values():
        at_or_behind = [depth <= 0 for _, _, depth in case["points"]]
        assert at_or_behind == [False] * 3 + [True] * 3
        assert all((x, y) == (0, 0) for x, y, depth in case["points"] if depth <= 0)
        assert not any(case["visibility"][3:])


@pytest.mark.parametrize("kind", ["PERSP", "ORTHO"])
def test_visibility_tells_outside_occluded_and_visible_apart(seen: dict[str, Any], kind: str) -> None:
    """The pane before the clip plane is not drawn and hides nothing."""
    assert seen["occlusion"][kind] == {
        "in front": 2,
        "on the wall": 2,
        "just inside the wall": 1,
        "behind the wall": 1,
        "behind, beside the wall": 2,
        "left of the image": 0,
        "above the image": 0,
        "too near": 0,
        "too far": 0,
        "at the camera": 0,
        "behind the camera": 0,
    }


def test_a_cube_hides_those_of_its_corners_that_face_away(seen: dict[str, Any]) -> None:
    """A corner is seen if one of its three faces is turned to the eye: 7 of 8 in most views, 4 right before a face."""
    counts = set()
    for case in seen["lone_cube"]:
        turn = np.array(case["turn"])
        assert case["corners"] == pytest.approx(CORNER_SIGNS / 2 @ turn.T, abs=1e-6)
        eye = turn.T @ case["eye"]  # in the cube's frame; a face is turned to an eye beyond its plane
        expected = np.where((eye * CORNER_SIGNS > 0.5).any(axis=1), 2, 1)
        assert case["visibility"] == expected.tolist()
        counts.add(int((expected == 2).sum()))
    assert counts == {4, 6, 7}


@pytest.mark.parametrize("name", [f"{name}, {kind}" for name in BOXES for kind in ("PERSP", "ORTHO")])
def test_boxes_are_those_of_the_rendered_pixels(seen: dict[str, Any], name: str) -> None:
    case = seen["rendered_boxes"][name]
    if case["edges"] is None:
        assert case["clipped"] == [0, 0, 0, 0]
        assert not case["drawn"]
        return
    assert np.abs(sides(case["clipped"]) - case["edges"]).max() < 1
    canvas = [-200, -150, 400, 300]
    whole = np.clip(sides(case["unclipped"]), canvas[:2] * 2, canvas[2:] * 2)
    assert np.abs(whole - case["wide edges"]).max() < 1


def test_what_is_out_of_the_image_or_behind_has_no_clipped_box(seen: dict[str, Any]) -> None:
    beside, behind = (seen["rendered_boxes"][f"{name}, PERSP"] for name in ("beside", "behind"))
    assert beside["clipped"] == behind["clipped"] == behind["unclipped"] == [0.0, 0.0, 0.0, 0.0]
    assert beside["unclipped"][0] > 200


def test_the_annotated_camera_reproduces_the_projection(seen: dict[str, Any]) -> None:
    case = seen["described"]
    again = to_image(case["camera"], case["bare"]["box3d"])
    assert again == pytest.approx(np.array(case["projected"]), abs=1e-9)


def test_pose_and_box_agree_with_the_keypoints(seen: dict[str, Any]) -> None:
    case = seen["described"]
    bare = case["bare"]
    rows = np.array(case["bare rows"])
    assert np.array(case["projected"]) == pytest.approx(rows[:, [0, 1, 3]], abs=1e-3)
    assert bare["dimensions"] == pytest.approx([0.5, 3, 1], abs=1e-6)
    scaled = CORNER_SIGNS * [0.25, 1.5, 0.5]
    in_camera = (np.c_[scaled, np.ones(8)] @ np.array(bare["pose"]).T)[:, :3]
    pixels = in_camera / in_camera[:, 2:] @ np.array(case["camera"]["K"]).T
    assert np.c_[pixels[:, :2], in_camera[:, 2]] == pytest.approx(rows[:, [0, 1, 3]], abs=2e-3)


def test_the_annotation_and_the_rows_are_the_same_numbers(seen: dict[str, Any]) -> None:
    """So that json and keypoints.npy cannot disagree."""
    case = seen["described"]
    assert case["dtypes"] == ["float64", "uint8", "float32"]
    for name in ("bare", "own"):
        annotation = case[name]
        said = np.c_[np.reshape(annotation["keypoints"], (-1, 3)), annotation["keypoint_depths"]]
        assert said.astype(np.float32).tolist() == case[f"{name} rows"]
        assert annotation["num_keypoints"] == sum(row[2] > 0 for row in case[f"{name} rows"])


def test_every_annotation_has_the_same_fields(seen: dict[str, Any]) -> None:
    """Also that of an object without keypoints."""
    bare, own, pointless = (seen["described"][name] for name in ("bare", "own", "pointless"))
    assert own["keypoint_names"] == ["a", "b", "c", "d"]
    assert (own.pop("colour"), own.pop("mass_kg")) == ("red", 2.5)
    assert bare["keypoint_names"] == [f"corner{i}" for i in range(8)]
    assert pointless["keypoint_names"] == pointless["keypoints"] == pointless["keypoint_depths"] == []
    assert bare.keys() == own.keys() == pointless.keys()


def test_floats_are_floats_of_six_decimals(seen: dict[str, Any]) -> None:
    """Hugging Face infers a column's type from the first samples; -0.0 and 0.0 would be different bytes."""

    def leaves(value: Any) -> list[Any]:
        if isinstance(value, (dict, list)):
            return [leaf for item in (value.values() if isinstance(value, dict) else value) for leaf in leaves(item)]
        return [value]

    integers = {"segmentation_id", "num_keypoints", "width", "height"}
    for name in ("bare", "own", "pointless", "camera"):
        fields = seen["described"][name]
        numbers = [leaf for leaf in leaves(fields) if not isinstance(leaf, str)]
        assert [n for n in numbers if isinstance(n, int)] == [fields[key] for key in fields if key in integers]
        assert all(n == round(n, 6) and str(n) != "-0.0" for n in numbers)


def test_boxes_follow_modifiers(seen: dict[str, Any]) -> None:
    """A subdivided cube is smaller than its cage, which Blender's own bound_box does not notice."""
    row, ball = (np.array(seen["evaluated"][name]) for name in ("row", "ball"))
    assert np.ptp(row, axis=0) == pytest.approx([3, 1, 1])
    assert (np.ptp(ball, axis=0) < 0.9).all()
    assert np.abs(sides(seen["evaluated"]["bbox"]) - seen["evaluated"]["edges"]).max() < 1


def test_texts_and_curves_have_the_boxes_and_silhouettes_of_their_surfaces(seen: dict[str, Any]) -> None:
    for case in seen["curved"].values():
        assert np.abs(sides(case["bbox"]) - case["edges"]).max() < 1
        covered, drawn, different = case["pixels"]
        assert covered > 300
        assert covered == pytest.approx(drawn, rel=0.02)
        assert different < 0.02 * drawn


def test_keypoints_follow_physics(seen: dict[str, Any]) -> None:
    """Half a second of free fall is 1.23 m; Bullet's steps and Blender's damping of 4 % make it a little other."""
    case = seen["falling"]
    assert case["height"] == pytest.approx(5 - 9.81 / 2 * 0.5**2, abs=0.1)
    assert case["matrix_world"][2][3] == pytest.approx(case["height"], abs=1e-5)
    assert np.mean(case["box3d"], axis=0)[2] == pytest.approx(case["height"], abs=1e-5)
    assert np.array(case["keypoints"])[:, [0, 1, 3]] == pytest.approx(np.array(case["projected"]), abs=1e-4)


def test_poses_are_rigid_whatever_the_scale(seen: dict[str, Any]) -> None:
    poses = {name: np.array(matrix) for name, matrix in seen["poses"].items()}
    world_to_cam, mirrored = poses.pop("world_to_cam"), poses.pop("mirrored rotation")
    for pose in poses.values():
        assert pose[:3, :3] @ pose[:3, :3].T == pytest.approx(np.eye(3), abs=1e-5)
        assert np.linalg.det(pose) == pytest.approx(1)
    assert poses["scaled"] == pytest.approx(poses["plain"], abs=1e-6)
    assert poses["mirrored"][:3, :3] == pytest.approx(world_to_cam[:3, :3] @ mirrored, abs=1e-6)


def test_a_flattened_object_keeps_its_rotation() -> None:
    rng = np.random.default_rng(0)
    for scale in ([0, 1, 2], [3, 0, 1], [1, 1, 0]):
        for _ in range(10):
            turn = np.eye(4)
            turn[:3, :3] = rigid(rng.normal(size=(4, 4)))[:3, :3]
            assert rigid(turn @ np.diag([*scale, 1])) == pytest.approx(turn)


def test_truncation_is_the_part_of_the_box_outside_the_image(seen: dict[str, Any]) -> None:
    """The image shows 4 by 3 m; 1 for what is out of it or behind the camera."""
    assert seen["truncated"] == {
        "inside": 0,
        "half out": pytest.approx(0.5, abs=1e-5),
        "three quarters out": pytest.approx(0.75, abs=1e-5),
        "out": 1,
        "around": pytest.approx(0.5, abs=1e-5),
        "behind": 1,
        "point inside": 0,
        "point out": 1,
    }
    assert {type(value) for value in seen["truncated"].values()} == {float}


def test_described_objects_are_numbered_as_they_come(seen: dict[str, Any]) -> None:
    """One described again keeps its number, so that the number names its pixels."""
    taken = seen["declared"]["taken"]
    assert [entry["segmentation_id"] for entry in taken] == [1, 2, 1, 2]
    shift = [[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    assert seen["declared"]["labels"] == {
        "stick": [1, 2, np.eye(4).tolist(), [1, 1, 1]],
        "lamp": [2, 1, shift, [1, 1, 1]],
    }


def test_declared_categories_name_the_keypoints(seen: dict[str, Any]) -> None:
    """Where a category has keypoints; the fields stay the same, with an id more than without categories."""
    stick, lamp, again, own = seen["declared"]["taken"]
    assert [entry["category_id"] for entry in (stick, lamp, again, own)] == [2, 1, 2, 1]
    assert stick["keypoint_names"] == again["keypoint_names"] == ["foot", "head"]
    assert lamp["keypoint_names"][0] == "corner0"
    assert own["keypoint_names"] == ["a", "b"]
    assert stick.keys() == lamp.keys() == {*seen["described"]["bare"], "category_id"}


def test_what_is_not_as_declared_is_refused_in_one_line(seen: dict[str, Any]) -> None:
    said = seen["declared"]["said"]
    expected = {
        "undeclared": "did you mean 'lamp'?",
        "too few": "category 'stick' has 2 keypoints (foot, head), not 1 (keypoint0)",
        "corners for a template": "not 8 (corner0,",
        "other order": "keypoint 0 is named 'head', but 'foot'",
        "points of other names": "keypoint 1 is named 'hat', but 'head'",
        "two categories": "'stick' is described already",
    }
    assert said.keys() == expected.keys()
    assert {name: part in said[name] for name, part in expected.items()} == dict.fromkeys(expected, True)
    assert not any("\n" in message for message in said.values())


def test_mistakes_are_answered_in_one_line_that_names_them(seen: dict[str, Any]) -> None:
    said = seen["mistakes"]
    expected = {
        "no camera": "scene.camera",
        "lamp as camera": "scene.camera",
        "panorama": "'camera' is PANO",
        "mirrored camera": "'camera' is mirrored",
        "name for object": "str 'cube'",
        "removed object": "removed",
        "object of no scene": "'stray'",
        "hidden object": "'hidden' is hidden in renders",
        "empty": "'empty' (EMPTY) has no surface",
        "flat points": "'cube': keypoints must have the shape (N, 3), not (3,)",
        "words for points": "'cube': keypoints must be numbers",
        "infinite point": "'cube': keypoints must be finite",
        "names": "'cube': 2 keypoint_names for 1 keypoints",
        "taken field": "'cube': 'bbox'",
        "slip self_tolerance": "did you mean its argument 'self_tolerance_m'?",
        "slip tolerance": "did you mean its argument 'self_tolerance_m'",
        "slip tolerance_m": "did you mean its argument 'self_tolerance_m'",
        "slip part": "did you mean its argument 'parts'",
        "slip keypoint_name": "did you mean its argument 'keypoint_names'",
        "slip dimension": "did you mean its field 'dimensions'?",
        "other scene": "'other'",
    }
    assert said.keys() == expected.keys()
    assert {name: part in said[name] for name, part in expected.items()} == dict.fromkeys(expected, True)
    assert not any("\n" in message for message in said.values())


def test_a_view_says_whose_and_when_it_is(seen: dict[str, Any]) -> None:
    """For `annotate`, as the annotations have it."""
    rig = seen["moments"]["of a rig"]
    assert [entry["own"] for entry in rig] == [[7, frame, name] for frame in (2, 4) for name in ("left", "right")]
    for entry in [*rig, seen["moments"]["of the scene's camera"]]:
        assert entry["own"] == [entry["episode"], entry["frame"], entry["camera"]["name"]]
    assert seen["moments"]["of the scene's camera"]["own"] == [7, 1, "right"]
    assert seen["moments"]["alone"] == [0, 9, "camera"]
