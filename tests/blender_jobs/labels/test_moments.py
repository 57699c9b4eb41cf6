"""Picture, passes and annotations are of one camera, one view layer and one moment, and see surfaces through fog."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blender_jobs.job import JobError
from tests import in_blender
from tests.blender_jobs.labels.judging import eroded
from tests.blender_jobs.labels.playing import annotations, arrays, play
from tests.in_blender import needs_bpy, scene

pytestmark = needs_bpy

SIZE = (48, 36)
LOW, HIGH = -4.0, 4.0
FROM = {"left": (0.0, -6.0, 0.0), "right": (6.0, 0.0, 0.0), "cutscene": (0.0, 0.0, 9.0)}
"""Where the cameras stand; each looks at the origin."""


Members = list[dict[str, bytes]]


def played_or_told(*args: Any, **more: Any) -> Members | str:
    """The samples, or why there are none."""
    try:
        return play(*args, **more)
    except JobError as error:
        return str(error)


def sample(place: Path, name: str, members: Members | str, at: int = 0, prefix: str = "") -> dict[str, Any]:
    """Leave a sample's arrays in the folder; return its annotations, or why there are none."""
    if isinstance(members, str):
        return {"refused": members}
    np.savez(place / f"{name}.npz", **arrays(members[at], prefix))
    return annotations(members[at], prefix)


# --- Cameras --------------------------------------------------------------------------------------------------


def with_markers() -> Any:
    """Timeline markers bind the camera "cutscene" to the first frame, and "right" to the second."""
    import bpy

    from blender_jobs import stage
    from tests.blender_jobs.labels import things

    made = things.open_stage(world=(0, 0, 0))
    for name, at in FROM.items():
        stage.camera(at=at, name=name)
    for frame, name in ((1, "cutscene"), (2, "right")):
        made.timeline_markers.new(name, frame=frame).camera = bpy.data.objects[name]
    made.camera = bpy.data.objects["left"]
    return things.cube("target", (0, 0, 0), things.place_glow(LOW, HIGH))


def of_the_target(view: Any, target: Any) -> dict[str, Any]:
    import bpy

    return {"objects": [view.describe(target, "cube")], "chosen": bpy.context.scene.camera.name}


@scene
def cameras(place: Path) -> dict[str, Any]:
    pair = played_or_told(with_markers, of_the_target, frames=(1, 2), cameras=("left", "right"))
    alone = played_or_told(with_markers, of_the_target, frames=(1, 2))
    said = {}
    for at, frame in enumerate((1, 2)):
        for name in ("left", "right"):
            said[f"{name}{frame}"] = sample(place, f"{name}{frame}", pair, at, f"{name}.")
        said[f"alone{frame}"] = sample(place, f"alone{frame}", alone, at)
    return said


# --- View layers ----------------------------------------------------------------------------------------------


def two_layers(active: str) -> Callable[[], Any]:
    """Return what makes a scene of two layers: "Front" shows a red cube alone, "Back" a larger green one alone."""

    def build() -> Any:
        import bpy

        from tests.blender_jobs.labels import things

        made = things.open_stage()
        for name, rgb, size in (("red", things.RED, 1.0), ("green", things.GREEN, 2.0)):
            home = bpy.data.collections.new(f"of {name}")
            made.collection.children.link(home)
            cube = things.cube(name, (0, 0, 0), things.glow(rgb), size)
            made.collection.objects.unlink(cube)
            home.objects.link(cube)
        front = made.view_layers[0]
        front.name = "Front"
        back = made.view_layers.new("Back")
        front.layer_collection.children["of green"].exclude = True
        back.layer_collection.children["of red"].exclude = True
        if active:
            bpy.context.window.view_layer = made.view_layers[active]

    return build


def of_both(view: Any, _: Any) -> dict[str, Any]:
    """The cube that is described, and why the other one is not."""
    import bpy

    said: dict[str, Any] = {"objects": [], "unseen": {}}
    for name in ("red", "green"):
        try:
            said["objects"].append(view.describe(bpy.data.objects[name], "cube"))
        except ValueError as error:
            said["unseen"][name] = str(error)
    return said


@scene
def layers(place: Path) -> dict[str, Any]:
    said: dict[str, Any] = {}
    for name in ("Front", "Back"):
        said[f"active.{name}"] = sample(place, f"active.{name}", played_or_told(two_layers(name), of_both))
        named = played_or_told(two_layers(""), of_both, layer=name)
        said[f"named.{name}"] = sample(place, f"named.{name}", named)
    return said


# --- Handlers -------------------------------------------------------------------------------------------------


def handled(which: str, move: Callable[[Any], None]) -> Callable[[], Any]:
    """Return what makes a scene in which a handler moves the target."""

    def build() -> Any:
        import bpy

        from tests.blender_jobs.labels import things

        things.open_stage()
        target = things.cube("target", (0, 0, 0), things.glow(things.RED), 0.6)

        def handler(*_: Any) -> None:
            if found := bpy.data.objects.get("target"):
                move(found)

        getattr(bpy.app.handlers, which).append(handler)
        return target

    return build


def step_aside(target: Any) -> None:
    target.location.x += 0.1


def draw(target: Any) -> None:
    target.location = (random.uniform(-1.5, 1.5), 0, random.uniform(-1, 1))


def of_its_place(view: Any, target: Any) -> dict[str, Any]:
    said = view.describe(target, "cube", [(0, -0.3, 0)], ["front"])
    return {"objects": [said], "x": float(target.matrix_world.translation.x)}


HANDLERS = {
    f"{name}.{which}": (which, move)
    for name, move in (("counting", step_aside), ("drawing", draw))
    for which in ("frame_change_pre", "frame_change_post")
}
FRAMES = (1, 2, 3)


@scene
def handlers(place: Path) -> dict[str, Any]:
    said: dict[str, Any] = {}
    for name, (which, move) in HANDLERS.items():
        alone = played_or_told(handled(which, move), of_its_place, frames=FRAMES, episodes=(3,))
        after = played_or_told(handled(which, move), of_its_place, frames=FRAMES, episodes=(0, 1, 3))
        said[name] = [sample(place, f"{name}{at}", alone, at) for at in range(len(FRAMES))]
        said[f"{name}.after"] = [sample(place, f"{name}{at}.after", after, at) for at in range(len(FRAMES))]
        said[f"{name}.equal"] = alone == after
    return said


# --- Fog ------------------------------------------------------------------------------------------------------

FOGS = ("none", "world", "around", "before", "dense")


def foggy(fog: str) -> Callable[[], Any]:
    """Return what makes a scene of a cube before a wall, in fog."""

    def build() -> Any:
        from tests.blender_jobs.labels import things

        made = things.open_stage()
        cube = things.cube("target", (0, 0, 0), things.glow(things.RED))
        wall = things.wall("wall", (0, 6, 0), things.glow(things.GREEN), 40.0)
        if fog == "world":
            tree = made.world.node_tree
            outside = next(node for node in tree.nodes if node.type == "OUTPUT_WORLD")
            tree.links.new(tree.nodes.new("ShaderNodeVolumeScatter").outputs[0], outside.inputs["Volume"])
            tree.nodes["Volume Scatter"].inputs["Density"].default_value = 0.1
        elif fog != "none":
            size, at = {"around": (30, (0, 0, 0)), "before": (2, (0, -2.5, 0)), "dense": (2, (0, -2.5, 0))}[fog]
            material = things.glow(things.BLUE)
            tree = material.node_tree
            tree.links.clear()
            scatter = tree.nodes.new("ShaderNodeVolumeScatter")
            scatter.inputs["Density"].default_value = 50.0 if fog == "dense" else 0.1
            output = next(node for node in tree.nodes if node.type == "OUTPUT_MATERIAL")
            tree.links.new(scatter.outputs[0], output.inputs["Volume"])
            things.cube("fog", at, material, size)
        return cube, wall

    return build


def of_cube_and_wall(view: Any, made: Any) -> dict[str, Any]:
    cube, wall = made
    points = [(0, -0.5, 0), (0.4, -0.5, 0.4), (0, 0.5, 0)]
    return {"objects": [view.describe(cube, "cube", points), view.describe(wall, "wall", [(5, 0, 0.3), (0, 0, 0)])]}


@scene
def fogs(place: Path) -> dict[str, Any]:
    return {fog: sample(place, fog, played_or_told(foggy(fog), of_cube_and_wall)) for fog in FOGS}


# --- Edit mode ------------------------------------------------------------------------------------------------


def edited(left_open: bool) -> Callable[[], Any]:
    """A cube before a wall; its mesh is still being edited, or no longer."""

    def build() -> Any:
        import bpy

        made = foggy("none")()
        bpy.context.view_layer.objects.active = made[0]
        bpy.ops.object.mode_set(mode="EDIT")
        bpy.ops.mesh.select_all(action="SELECT")
        bpy.ops.transform.resize(value=(1.5, 1.5, 1.5))
        if not left_open:
            bpy.ops.object.mode_set(mode="OBJECT")
        return made

    return build


@scene
def edits(place: Path) -> dict[str, Any]:
    return {
        name: sample(place, name, played_or_told(edited(name == "open"), of_cube_and_wall))
        for name in ("open", "closed")
    }


# --- What must be so ------------------------------------------------------------------------------------------

Seen = tuple[Path, dict[str, Any]]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    folder = tmp_path_factory.mktemp("moments")
    return folder, in_blender.play(__name__, folder)


def cell(played: Seen, scene_name: str, name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    folder, seen = played
    said = seen[scene_name][name]
    assert "refused" not in said, said["refused"]
    with np.load(folder / scene_name / f"{name}.npz") as found:
        return said, dict(found)


@pytest.mark.parametrize("frame", [1, 2])
@pytest.mark.parametrize("name", ["left", "right", "alone"])
def test_the_camera_chosen_takes_the_picture(played: Seen, name: str, frame: int) -> None:
    """A marker on the timeline that binds another does not: neither the picture, nor passes, nor annotations."""
    said, seen = cell(played, "cameras", f"{name}{frame}")
    camera = "left" if name == "alone" else name
    assert said["camera"]["name"] == said["chosen"] == camera
    assert np.allclose(np.array(said["camera"]["cam_to_world"])[:3, 3], FROM[camera], atol=1e-5)
    lit = eroded(seen["segmentation"] == 1)
    assert lit.sum() > 60
    assert seen["depth"][lit] == pytest.approx(5.5, abs=1e-3)
    facing, world = int(np.argmax(np.abs(FROM[camera]))), seen["picture"][lit] * (HIGH - LOW) + LOW
    assert np.median(world[:, facing]) == pytest.approx(np.sign(FROM[camera][facing]) * 0.5, abs=0.06)
    x, y, width, height = said["objects"][0]["bbox"]
    assert (x + width / 2, y + height / 2) == pytest.approx((SIZE[0] / 2, SIZE[1] / 2), abs=0.1)


@pytest.mark.parametrize("layer", ["Front", "Back"])
@pytest.mark.parametrize("how", ["active", "named"])
def test_picture_passes_and_annotations_are_of_one_view_layer(played: Seen, how: str, layer: str) -> None:
    said, seen = cell(played, "layers", f"{how}.{layer}")
    name, channel, depth = ("red", 0, 5.5) if layer == "Front" else ("green", 1, 5.0)
    shown = eroded(seen["picture"][..., channel] > 0.9)
    assert shown.sum() > 60
    assert seen["picture"][..., 1 - channel].max() < 0.1
    assert [entry["name"] for entry in said["objects"]] == [name]
    assert list(said["unseen"]) == [{"red": "green", "green": "red"}[name]]
    assert (seen["segmentation"][shown] == 1).all()
    assert seen["depth"][shown] == pytest.approx(depth, abs=1e-3)


@pytest.mark.parametrize("name", list(HANDLERS))
def test_a_handler_moves_the_scene_once_a_frame(played: Seen, name: str) -> None:
    """What is annotated is where the picture shows it, whatever the handler does with each frame."""
    folder, seen = played
    places = []
    for at, said in enumerate(seen["handlers"][name]):
        assert "refused" not in said, said["refused"]
        with np.load(folder / "handlers" / f"{name}{at}.npz") as found:
            picture, segmentation = found["picture"], found["segmentation"]
        entry = said["objects"][0]
        x, y, flag = entry["keypoints"]
        assert picture[int(y), int(x), 0] > 0.9, "the keypoint is where nothing is red"
        assert flag == 2
        red = eroded(picture[..., 0] > 0.9)
        assert red.any()
        assert (segmentation[red] == 1).all()
        assert entry["matrix_world"][0][3] == pytest.approx(said["x"], abs=1e-5)
        places.append(said["x"])
    if name.startswith("counting"):
        assert np.diff(places) == pytest.approx([0.1, 0.1], abs=1e-5)


@pytest.mark.parametrize("name", list(HANDLERS))
def test_a_handler_does_not_outlive_its_episode(played: Seen, name: str) -> None:
    """An episode alone is the episode after others."""
    said = played[1]["handlers"]
    assert [entry["refused"] for entry in said[name] if "refused" in entry] == []
    assert [entry["x"] for entry in said[name]] == [entry["x"] for entry in said[f"{name}.after"]]
    assert said[f"{name}.equal"]


@pytest.mark.parametrize("fog", [fog for fog in FOGS if fog != "none"])
def test_surfaces_are_labelled_through_fog(played: Seen, fog: str) -> None:
    """As without it, however dense it is."""
    said, seen = cell(played, "fogs", fog)
    clear_said, clear = cell(played, "fogs", "none")
    assert np.isfinite(clear["depth"]).all()
    assert np.array_equal(seen["depth"], clear["depth"])
    assert np.array_equal(seen["segmentation"], clear["segmentation"])
    assert said["objects"] == clear_said["objects"]


def test_what_is_being_edited_is_labelled_as_it_is_rendered(played: Seen) -> None:
    """Files are saved in edit mode, and jobs forget to leave it."""
    said, seen = cell(played, "edits", "open")
    closed_said, closed = cell(played, "edits", "closed")
    assert np.count_nonzero(seen["segmentation"] == 1) > 50
    assert np.array_equal(seen["segmentation"], closed["segmentation"])
    assert said["objects"] == closed_said["objects"]
