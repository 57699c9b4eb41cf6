"""The jobs of the gallery, made small, and their labels checked by arithmetic of the tests' own, with numpy alone."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.commands import TINY, annotations, compiled, decoded, digests, ok

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
README = (ROOT / "README.md").read_text(encoding="utf-8")
DATASET_PAGE = (ROOT / "docs" / "reference" / "dataset.md").read_text(encoding="utf-8")

JOBS = sorted(path.stem for path in EXAMPLES.glob("*.py") if "(Job):" in path.read_text(encoding="utf-8"))

Array = npt.NDArray[Any]
Sample = dict[str, Any]


def test_each_job_is_read_in_a_minute_and_shown_in_the_gallery() -> None:
    """A file below 60 lines, a line in the README, and a picture that is small enough to be in git."""
    assert {"bin_picking", "conveyor", "drone", "glassware", "herd", "mixed_meshes"} < set(JOBS)
    assert {"number_plates", "robot_arm", "six_cameras"} < set(JOBS)
    for name in JOBS:
        assert len((EXAMPLES / f"{name}.py").read_text(encoding="utf-8").splitlines()) < 60, name
        assert f"(examples/{name}.py)" in README
        shown = re.findall(rf"\(docs/images/{name}\.(png|jpg)\)", README)
        assert len(shown) == 1, name
        assert (ROOT / "docs" / "images" / f"{name}.{shown[0]}").stat().st_size < (
            100_000 if shown == ["jpg"] else 350_000
        )


def in_camera(camera: Mapping[str, Any], points: npt.ArrayLike) -> Array:
    """Points (N, 3) of the world in the camera's frame."""
    pose = np.array(camera["cam_to_world"])
    return (np.asarray(points) - pose[:3, 3]) @ pose[:3, :3]


def pixels(camera: Mapping[str, Any], points: npt.ArrayLike) -> Array:
    """Points (N, 3) of the camera's frame, as pixels (N, 2): OpenCV's model, written anew."""
    x, y, z = np.asarray(points, dtype=np.float64).T
    x, y = x / z, y / z
    k1, k2, p1, p2 = (*camera["distortion"], 0, 0, 0, 0)[:4]
    r2 = x * x + y * y
    radial = 1 + k1 * r2 + k2 * r2 * r2
    moved = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x), y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
    return (np.array(camera["K"]) @ np.stack([*moved, np.ones_like(x)]))[:2].T


def lifted(camera: Mapping[str, Any], depth: Array, mask: Array) -> Array:
    """The surface points (N, 3) in the camera's frame that the pixels of a mask show, from their depths."""
    rows, columns = np.nonzero(mask)
    rays = np.linalg.inv(camera["K"]) @ np.stack([columns + 0.5, rows + 0.5, np.ones(len(rows))])
    return (rays * depth[mask]).T


def own(entry: Mapping[str, Any], points: npt.ArrayLike) -> Array:
    """Points (N, 3) of the camera's frame in the object's own, by its pose."""
    pose = np.array(entry["pose"])
    return (np.asarray(points) - pose[:3, 3]) @ pose[:3, :3]


def keypoints(entry: Mapping[str, Any]) -> Array:
    """(K, 2), pixels."""
    return np.array(entry["keypoints"]).reshape(-1, 3)[:, :2]


def check_boxes(sample: Sample, prefix: str = "") -> None:
    """Each object's pose, 3D box, 2D box, and pixels, if there is a segmentation, say the same."""
    said = sample[f"{prefix}json"]
    camera, size = said["camera"], [said["image"]["width"], said["image"]["height"]]
    assert said["objects"]
    for entry in said["objects"]:
        corners = in_camera(camera, entry["box3d"])
        matrix = np.array(entry["matrix_world"])
        assert np.allclose(in_camera(camera, matrix[None, :3, 3])[0], np.array(entry["pose"])[:3, 3], atol=1e-4)
        inside = own(entry, corners)
        assert np.allclose(np.ptp(inside, axis=0), entry["dimensions"], rtol=1e-3, atol=1e-4)
        if corners[:, 2].min() > camera["clip_start"]:
            around = pixels(camera, corners) if not camera["distortion"] else None
            x, y, width, height = entry["bbox_unclipped"]
            if around is not None:
                assert (around.min(axis=0) <= np.array([x, y]) + 0.01).all()
                assert (around.max(axis=0) >= np.array([x + width, y + height]) - 0.01).all()
        x, y, width, height = entry["bbox"]
        assert x >= 0
        assert y >= 0
        assert x + width <= size[0] + 1e-6
        assert y + height <= size[1] + 1e-6
        if f"{prefix}segmentation.npy" in sample:
            _check_pixels(sample, prefix, entry, corners)


def _check_pixels(sample: Sample, prefix: str, entry: Mapping[str, Any], corners: Array) -> None:
    mask = sample[f"{prefix}segmentation.npy"] == entry["segmentation_id"]
    assert mask.sum() == entry["visible_pixels"] <= entry["silhouette_pixels"]
    if not mask.any():
        return
    assert entry["visible_fraction"] == pytest.approx(mask.sum() / entry["silhouette_pixels"], abs=1e-5)
    rows, columns = np.nonzero(mask)
    x, y, width, height = entry["bbox"]
    assert x <= columns.min() + 0.5 <= columns.max() + 0.5 <= x + width
    assert y <= rows.min() + 0.5 <= rows.max() + 0.5 <= y + height
    if f"{prefix}depth.npy" in sample:
        depths = sample[f"{prefix}depth.npy"][mask]
        assert corners[:, 2].min() - 1e-3 <= depths.min() <= depths.max() <= corners[:, 2].max() + 1e-3


@pytest.mark.slow
def test_conveyor_moves_what_its_flow_says(tmp_path: Path) -> None:
    """An item's pixels, lifted by their depth and moved as its pose moved, are where the flow says; ids stay."""
    args = ["--set", "frames=5:7", "--passes", "segmentation,flow,depth"]
    first, second = compiled(EXAMPLES / "conveyor.py", tmp_path / "out", 2, *args)
    compared = 0
    for before, after in zip(first["json"]["objects"], second["json"]["objects"], strict=True):
        assert (before["name"], before["segmentation_id"]) == (after["name"], after["segmentation_id"])
        step = np.array(after["matrix_world"])[:3, 3] - np.array(before["matrix_world"])[:3, 3]
        assert 2 * 0.2 / 48 - 1e-5 < step[0] < 2 * 0.5 / 48 + 1e-5
        assert np.abs(step[1:]).max() < 1e-5
        camera = first["json"]["camera"]
        for sample, flow, sign in ((first, "flow_forward.npy", 1), (second, "flow_backward.npy", -1)):
            mask = sample["segmentation.npy"] == before["segmentation_id"]
            if mask.any():
                here = lifted(camera, sample["depth.npy"], mask)
                moved = here + sign * step @ np.array(camera["cam_to_world"])[:3, :3]
                assert np.allclose(pixels(camera, moved) - pixels(camera, here), sample[flow][mask], atol=0.02)
                compared += int(mask.sum())
    assert compared > 200
    for sample in (first, second):
        check_boxes(sample)


@pytest.mark.slow
def test_robot_arm_is_bent_as_its_joints_say(tmp_path: Path) -> None:
    """Each joint's keypoint is where its pose is; from link to link the pose turns by the joint's value."""
    samples = compiled(EXAMPLES / "robot_arm.py", tmp_path / "out", 2)
    axes = {"waist": (0, 0, 1), "shoulder": (0, 1, 0), "elbow": (0, 1, 0), "wrist": (0, 1, 0)}
    for sample in samples:
        check_boxes(sample)
        said, arm = sample["json"], sample["json"]["objects"][0]
        joints = {joint["name"]: joint for joint in said["joints"]}
        above = np.array(arm["pose"])
        for name, axis in axes.items():
            pose = np.array(joints[name]["pose"])
            at = pixels(said["camera"], pose[None, :3, 3])[0]
            assert np.allclose(at, keypoints(arm)[arm["keypoint_names"].index(name)], atol=0.01)
            turn, angle = above[:3, :3].T @ pose[:3, :3], np.radians(joints[name]["value"])
            assert np.allclose(turn @ axis, axis, atol=1e-4)
            assert np.trace(turn) == pytest.approx(1 + 2 * np.cos(angle), abs=1e-4)
            assert turn[0, 1 if name == "waist" else 2] * (-1 if name == "waist" else 1) == pytest.approx(
                np.sin(angle), abs=1e-4
            )
            above = pose
        for jaw, tip, sign in (("jaw1", "tip1", 1), ("jaw2", "tip2", -1)):
            opened = np.array([0, sign * joints[jaw]["value"], 0.2 + 0.1])
            at = pixels(said["camera"], (above[:3, :3] @ opened + above[:3, 3])[None])[0]
            assert np.allclose(at, keypoints(arm)[arm["keypoint_names"].index(tip)], atol=0.01)
    values = [[joint["value"] for joint in sample["json"]["joints"]] for sample in samples]
    assert not np.allclose(*values, atol=1)


@pytest.mark.slow
def test_glassware_is_in_mask_depth_and_normals_though_light_passes_it(tmp_path: Path) -> None:
    """A pixel of a glass has the depth of the glass, not of the table behind it, and a normal towards the camera."""
    sample = compiled(EXAMPLES / "glassware.py", tmp_path / "out", 1)[0]
    check_boxes(sample)
    camera, depth, normals = sample["json"]["camera"], sample["depth.npy"], sample["normals.npy"].astype(np.float64)
    mask = sample["segmentation.npy"] > 0
    assert {entry["category"] for entry in sample["json"]["objects"]} == {"tumbler", "goblet", "carafe", "flask"}
    assert mask.sum() > 100
    places = lifted(camera, depth, mask)
    world = places @ np.array(camera["cam_to_world"])[:3, :3].T + np.array(camera["cam_to_world"])[:3, 3]
    assert world[:, 2].min() > -1e-4
    assert (world[:, 2] > 0.02).mean() > 0.7
    assert np.allclose(np.linalg.norm(normals[mask], axis=1), 1, atol=2e-3)
    assert ((normals[mask] * places).sum(axis=1) < 0.01).all()


@pytest.mark.slow
def test_number_plates_have_their_glyphs_on_them_from_left_to_right(tmp_path: Path) -> None:
    """Lifted by their depths into the plate's frame, corners are on the plate, and glyphs in order, as high as said."""
    for sample in compiled(EXAMPLES / "number_plates.py", tmp_path / "out", 2):
        check_boxes(sample)
        plate, text = sample["json"]["objects"]
        assert plate["text"] == text["text"]
        assert re.fullmatch(r"[A-Z]{2} \d{3} [A-Z]{2}", plate["text"])
        found = []
        for entry in (plate, text):
            rays = (
                np.c_[keypoints(entry), np.ones(len(entry["keypoint_names"]))]
                @ np.linalg.inv(sample["json"]["camera"]["K"]).T
            )
            found.append(own(plate, rays * np.array(entry["keypoint_depths"])[:, None]))
        corners = [(-0.26, 0.057, 0.003), (0.26, 0.057, 0.003), (0.26, -0.057, 0.003), (-0.26, -0.057, 0.003)]
        assert np.allclose(found[0], corners, atol=2e-4)
        glyphs = found[1].reshape(7, 4, 3)  # top left, top right, bottom right, bottom left
        assert np.abs(glyphs[..., 0]).max() < 0.26
        assert np.allclose(glyphs[..., 2], 0.0041, atol=3e-4)
        assert (glyphs[:, 1, 0] > glyphs[:, 0, 0] + 0.005).all()
        assert (glyphs[1:, 0, 0] > glyphs[:-1, 0, 0] + 0.01).all()
        heights = glyphs[:, 0, 1] - glyphs[:, 3, 1]
        assert 0.07 < heights.min() < heights.max() < 0.11, "J and Q reach below the line"
        assert np.median(heights) == pytest.approx(0.075, abs=0.003)


@pytest.mark.slow
def test_drone_boxes_are_turned_as_the_cars_are(tmp_path: Path) -> None:
    """A footprint's corners are where the pose takes them, on the ground, and within the 2D box; cars are small."""
    sample = compiled(EXAMPLES / "drone.py", tmp_path / "out", 1, "--size", "128x96")[0]
    check_boxes(sample)
    camera, cars = sample["json"]["camera"], sample["json"]["objects"]
    assert np.array(camera["cam_to_world"])[2, 3] > 30
    assert len(cars) > 15
    for car in cars:
        pose = np.array(car["pose"])
        corners = np.array([(2.25, 0.95, 0), (2.25, -0.95, 0), (-2.25, -0.95, 0), (-2.25, 0.95, 0)])
        assert np.allclose(pixels(camera, corners @ pose[:3, :3].T + pose[:3, 3]), keypoints(car), atol=0.01)
        assert np.array(car["matrix_world"])[2, 3] == 0
    assert np.median([car["bbox_unclipped"][2:] for car in cars]) < 128 / 8
    assert np.mean([car["keypoints"][2::3] for car in cars]) > 1.6, "corners beneath a car count as seen"


@pytest.mark.slow
def test_herd_has_an_id_a_box_and_a_pose_for_each_copy(tmp_path: Path) -> None:
    """Copies stand on the meadow, apart, upright as it is steep; their masks are their own."""
    sample = compiled(EXAMPLES / "herd.py", tmp_path / "out", 1, "--size", "128x96", "--set", "count=80")[0]
    check_boxes(sample)
    sheep = sample["json"]["objects"]
    assert len(sheep) > 40
    assert len({entry["name"] for entry in sheep}) == len(sheep)
    assert all(re.fullmatch(r"sheep:\d+", entry["name"]) for entry in sheep)
    assert set(np.unique(sample["segmentation.npy"])) <= {0, *(entry["segmentation_id"] for entry in sheep)}
    assert np.mean([entry["visible_pixels"] > 0 for entry in sheep]) > 0.7
    matrices = np.array([entry["matrix_world"] for entry in sheep])
    x, y, z = matrices[:, :3, 3].T
    assert np.allclose(z, 1.6 * np.sin(x / 13) * np.cos(y / 17) + 0.5 * np.sin(x / 5 + y / 7), atol=0.02)
    apart = np.hypot(x[:, None] - x, y[:, None] - y) + 9 * np.eye(len(x))
    assert apart.min() > 0.85
    size = np.linalg.norm(matrices[:, :3, 0], axis=1)
    assert (matrices[:, 2, 2] / size > 0.9).all()
    assert 0.75 < size.min() < size.max() < 1.15


@pytest.mark.slow
def test_six_cameras_are_as_their_file_has_them(tmp_path: Path) -> None:
    """K, distortion and pose are the calibration's, and it alone takes each car's 3D box to its keypoints."""
    sample = compiled(EXAMPLES / "six_cameras.py", tmp_path / "out", 1)[0]
    rig = json.loads((EXAMPLES / "assets" / "six_cameras.json").read_text())
    boxes: dict[str, list[Array]] = {}
    for name, given in rig["cameras"].items():
        said = sample[f"{name}.json"]
        scale = np.array(said["image"]["width"] / rig["size"][0])
        k = np.array(given["K"]) * np.array([[scale], [scale], [1]])
        assert np.allclose(said["camera"]["K"], k, atol=0.01)
        assert np.allclose(said["camera"]["distortion"], given["distortion"], atol=1e-6)
        rotation, shift = _rodrigues(given["R"]), np.array(given["t"])
        pose = np.array(said["camera"]["cam_to_world"])
        assert np.allclose(pose[:3, :3], rotation.T, atol=1e-4)
        assert np.allclose(pose[:3, 3], -rotation.T @ shift, atol=1e-4)
        for car in said["objects"]:
            corners = np.array(car["box3d"]) @ rotation.T + shift
            ahead = (corners[:, 2] > 0.5) & (np.abs(corners[:, :2]).max(axis=1) < 0.9 * corners[:, 2])
            model = {"K": k, "distortion": given["distortion"]}
            assert np.allclose(pixels(model, corners[ahead]), keypoints(car)[ahead], atol=0.05)
            boxes.setdefault(car["name"], []).append(np.array(car["box3d"]))
    assert len(boxes) > 8
    assert sum(len(found) > 1 for found in boxes.values()) > 2, "cars that two cameras see"
    assert all(np.allclose(found[0], box, atol=1e-5) for found in boxes.values() for box in found)


def _rodrigues(vector: Sequence[float]) -> Array:
    """The rotation (3, 3) of a rotation vector: the exponential of its cross product matrix, as a series."""
    x, y, z = vector
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    total, term = np.eye(3), np.eye(3)
    for at in range(1, 40):
        term = term @ cross / at
        total = total + term
    return total


@pytest.mark.slow
def test_mixed_meshes_are_one_size_and_nocs_and_depth_agree(tmp_path: Path) -> None:
    """Whatever a file's format and unit, the longest side is a metre; a pixel is at one place of its object."""
    sample = compiled(EXAMPLES / "mixed_meshes.py", tmp_path / "out", 1, "--passes", "segmentation,nocs,depth")[0]
    check_boxes(sample)
    things = sample["json"]["objects"]
    files = {
        path.stem
        for path in (EXAMPLES / "assets" / "toys").iterdir()
        if path.suffix in (".obj", ".ply", ".stl", ".glb")
    }
    assert len(files) == 4
    assert {thing["file"] for thing in things} == files
    compared = 0
    for thing in things:
        assert max(thing["dimensions"]) == pytest.approx(1, abs=1e-4)
        mask = sample["segmentation.npy"] == thing["segmentation_id"]
        corners = own(thing, in_camera(sample["json"]["camera"], thing["box3d"]))
        seen = own(thing, lifted(sample["json"]["camera"], sample["depth.npy"], mask))
        offsets = (sample["nocs.npy"][mask] - 0.5) * np.linalg.norm(thing["dimensions"])
        assert np.allclose(seen, corners.mean(axis=0) + offsets, atol=0.003)
        compared += int(mask.sum())
    assert compared > 150


@pytest.mark.slow
def test_bin_picking_is_a_pile_at_rest_whoever_renders_it(tmp_path: Path) -> None:
    """The parts lie in the bin and hide one another, and two instances make the bytes of one."""
    command = [EXAMPLES / "bin_picking.py", *TINY, "--shards", 2, "--samples-per-shard", 1, "--set", "parts=14"]
    for instances in (1, 2):
        ok(*command, "--instances", instances, "--out", tmp_path / str(instances))
    assert digests(tmp_path / "1") == digests(tmp_path / "2")
    parts = [entry for sample in annotations(tmp_path / "1") for entry in sample["objects"]]
    fractions = [entry["visible_fraction"] for entry in parts]
    assert len(parts) == 28
    assert {name for name in parts[0] if not re.search(rf"[`.]{name}`", DATASET_PAGE)} == set(), "not in the docs"
    assert min(fractions) < 0.9
    assert max(fractions) > 0.9
    assert np.mean(np.abs(np.array([entry["matrix_world"] for entry in parts])[:, :2, 3]).max(axis=1) < 2.4) > 0.8
    for sample in decoded(tmp_path / "1"):
        check_boxes(sample)
        pose = np.array(sample["json"]["camera"]["cam_to_world"])
        seen = lifted(sample["json"]["camera"], sample["depth.npy"], sample["segmentation.npy"] > 0)
        heights = (seen @ pose[:3, :3].T + pose[:3, 3])[:, 2]
        assert -0.05 < heights.min() < heights.max() < 3, "on the floor, not in it"
