"""One scene from a tenth of a millimetre to 100 km, and from 200 km away: the labels are those of the one in metres.

All lengths are multiplied by one number, places, sizes and clip range alike. Flags and pixels may not change; lengths
change by that number, and nothing else does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import in_blender
from tests.blender_jobs.labels.playing import keep, kept
from tests.in_blender import needs_bpy, scene

pytestmark = needs_bpy

SCALES = {f"{scale:g}": scale for scale in (1e-4, 5e-4, 1e-2, 1.0, 50.0, 1e3, 1e4, 1e5)}
"""Metres that the scene's cube is wide."""
FAR = {"far_1m": (1.0, 2e3), "far_10m": (10.0, 2e4), "far_100m": (100.0, 2e5), "far_1km": (1e3, 2e5)}
"""A cube's size and its distance from a camera with a long lens; metres."""
MOVED = {"moved_10km": 1e4, "moved_100km": 1e5}
"""How far from the world's origin the scene of one metre stands."""


def built(scale: float, distance: float = 6.0, lens: float = 50.0, away: float = 0.0) -> Any:
    """Return what makes the scene: a cube `scale` wide, a screen before its right half, a sheet close to its face."""
    from tests.blender_jobs.labels import things

    def build() -> Any:
        import bpy

        at = (away, -distance * scale, 0)
        made = things.open_stage(at)
        camera = made.camera.data
        camera.lens = lens
        camera.clip_start, camera.clip_end = 0.1 * scale * distance / 6, 100 * scale * distance / 6
        cube = things.cube("target", (away, 0, 0), things.glow(things.RED), scale)
        screen = things.wall("screen", (away + 0.4 * scale, -1.5 * scale, 0), things.glow(things.GREEN), 0.8 * scale)
        # a sheet just before, and one just behind, a part of the cube's face: a fiftieth of its width away
        things.wall("sheet", (away - 0.3 * scale, -0.52 * scale, 0.3 * scale), things.glow(things.GREEN), 0.2 * scale)
        assert bpy.context.scene.camera is made.camera
        return cube, screen

    return build


POINTS = {
    "face": (-0.3, -0.5, 0.0),
    "face_behind_screen": (0.3, -0.5, 0.0),
    "behind_sheet": (-0.3, -0.5, 0.3),
    "on_sheet": (-0.3, -0.52, 0.3),
    "just_before_the_face": (-0.3, -0.51, -0.3),
    "just_within": (-0.3, -0.48, -0.2),
    "centre": (0.0, 0.0, 0.0),
    "front_edge": (-0.5, -0.5, 0.0),
    "front_corner": (-0.5, -0.5, -0.5),
    "back_corner": (-0.5, 0.5, -0.5),
}
EXPECTED = {
    "face": 2,
    "face_behind_screen": 1,
    "behind_sheet": 1,
    "on_sheet": 2,
    "just_before_the_face": 2,
    "just_within": 1,
    "centre": 1,
    "front_edge": 2,
    "front_corner": 2,
    "back_corner": 1,
}
"""Visibility by the scene's geometry."""


def described(view: Any, made: Any) -> dict[str, Any]:
    cube, screen = made
    scale = cube.dimensions[0]
    own = [np.array(point) * scale for point in POINTS.values()]
    return {
        "objects": [
            view.describe(cube, "cube", own, list(POINTS)),
            view.describe(screen, "screen"),
        ]
    }


@scene
def scales(place: Path) -> dict[str, Any]:
    said = {name: keep(place, name, built(scale), described) for name, scale in SCALES.items()}
    for name, (size, distance) in FAR.items():
        said[name] = keep(place, name, built(size, distance / size, 50 * distance / size / 6), described)
    for name, away in MOVED.items():
        said[name] = keep(place, name, built(1.0, away=away), described)
    return said


Seen = tuple[Path, dict[str, Any]]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    folder = tmp_path_factory.mktemp("scales")
    return folder / "scales", in_blender.play(__name__, folder)["scales"]


def cell(played: Seen, name: str) -> dict[str, Any]:
    said: dict[str, Any] = played[1][name]
    assert "refused" not in said, said.get("refused")
    return said


@pytest.mark.parametrize("name", [*SCALES, *FAR])
def test_flags_do_not_depend_on_the_scale(played: Seen, name: str) -> None:
    """A point on a surface is seen, one a fiftieth of a cube behind a surface is not."""
    cube = cell(played, name)["objects"][0]
    flags = dict(zip(cube["keypoint_names"], np.reshape(cube["keypoints"], (-1, 3))[:, 2].astype(int), strict=True))
    assert {key: int(flag) for key, flag in flags.items()} == EXPECTED


@pytest.mark.parametrize("name", list(MOVED))
def test_flags_of_what_is_far_from_the_origin(played: Seen, name: str) -> None:
    """Where single precision still tells a surface from what is a fiftieth of a metre behind it."""
    cube = cell(played, name)["objects"][0]
    flags = dict(zip(cube["keypoint_names"], np.reshape(cube["keypoints"], (-1, 3))[:, 2].astype(int), strict=True))
    sure = ("face", "face_behind_screen", "centre", "back_corner", "just_before_the_face")
    assert {key: int(flags[key]) for key in sure} == {key: EXPECTED[key] for key in sure}


@pytest.mark.parametrize("name", list(SCALES))
def test_pixels_do_not_depend_on_the_scale(played: Seen, name: str) -> None:
    """Boxes, counts of pixels and the segmentation are those of the scene in metres; lengths are in proportion."""
    said, metres, scale = cell(played, name), cell(played, "1"), SCALES[name]
    for entry, like in zip(said["objects"], metres["objects"], strict=True):
        assert entry["bbox"] == pytest.approx(like["bbox"], abs=0.02)
        assert entry["visible_pixels"] == pytest.approx(like["visible_pixels"], abs=2)
        assert entry["silhouette_pixels"] == pytest.approx(like["silhouette_pixels"], abs=2)
        assert entry["visible_fraction"] == pytest.approx(like["visible_fraction"], abs=0.03)
        precise = max(2e-3, 1e-6 / scale)  # annotations have six decimals
        assert np.allclose(np.array(entry["dimensions"]) / scale, like["dimensions"], atol=precise)
        assert np.allclose(np.array(entry["pose"])[:3, 3] / scale, np.array(like["pose"])[:3, 3], atol=precise)
        assert np.allclose(np.array(entry["keypoint_depths"]) / scale, like["keypoint_depths"], atol=precise)
    arrays, like_arrays = kept(played[0], name), kept(played[0], "1")
    assert (arrays["segmentation"] != like_arrays["segmentation"]).sum() <= 4
    seen = (arrays["segmentation"] == like_arrays["segmentation"]) & (arrays["segmentation"] > 0)
    assert seen.sum() > 50
    assert np.allclose(arrays["depth"][seen] / scale, like_arrays["depth"][seen], rtol=2e-3)


@pytest.mark.parametrize("name", [*SCALES, *FAR, *MOVED])
def test_pixels_are_those_of_the_picture(played: Seen, name: str) -> None:
    cube = cell(played, name)["objects"][0]
    arrays = kept(played[0], name)
    red = int((arrays["picture"][..., 0] > 0.5).sum())
    assert red > 40
    assert cube["visible_pixels"] == pytest.approx(red, abs=12)
