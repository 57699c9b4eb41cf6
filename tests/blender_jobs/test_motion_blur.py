"""A blurred picture is blurred about what its labels say; labels, passes and physics are those of a sharp one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import in_blender
from tests.blender_jobs.labels.playing import play
from tests.in_blender import scene

pytestmark = in_blender.needs_bpy

WIDTH, HEIGHT = 96, 72
FRAMES = (5, 9)
SHUTTERS = (0.0, 0.6)
FOCAL = WIDTH * 50 / 36


def build(shutter: float) -> list[Any]:
    """A white bar that moves to the right, a third of a metre a frame; cubes that fall on the ground in the dark."""
    from blender_jobs import materials, stage

    stage.ground()
    stage.camera(at=(0, -8, 1.5), look_at=(0, 0, 1.5))
    bar = stage.cube("bar", 0.5)
    materials.assign(bar, materials.principled("white", (0, 0, 0), emission=(1, 1, 1), specular=0.0))
    stage.move(bar, {1: (-2, 0, 2.5), 13: (2, 0, 2.5)})
    falling = [stage.cube(f"cube{number}", 0.4, physics="active") for number in range(3)]
    for number, cube in enumerate(falling):
        cube.location = (-1 + 0.25 * number, 0.05 * number, 0.3 + 0.41 * number)
    stage.motion_blur(shutter)
    return [bar, *falling]


def annotate(view: Any, objects: list[Any]) -> dict[str, Any]:
    return {"objects": [view.describe(obj, "thing") for obj in objects]}


@scene
def blurred(folder: Path) -> Any:
    import hashlib
    import json

    from blender_jobs import stage
    from blender_jobs.job import JobError
    from tests.blender_jobs.labels.playing import linear

    found = []
    for shutter in SHUTTERS:
        samples = play(
            lambda shutter=shutter: build(shutter), annotate, size=(WIDTH, HEIGHT), samples=16, frames=FRAMES
        )
        found.append(
            [
                {
                    "annotations": json.loads(members["json"]),
                    "passes": {
                        name: hashlib.sha256(content).hexdigest()
                        for name, content in members.items()
                        if name.endswith(".npy")
                    },
                    "row": linear(members["png"])[8:20, :, 1].mean(axis=0).tolist(),
                }
                for members in samples
            ]
        )
    with pytest.raises(JobError) as error:
        stage.motion_blur(-1)
    return {"found": found, "said": str(error.value)}


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    found: dict[str, Any] = in_blender.play(__name__, tmp_path_factory.mktemp("seen"))["blurred"]
    return found


def test_the_blur_reaches_from_the_shutters_opening_to_its_closing(seen: dict[str, Any]) -> None:
    """By arithmetic of its path: half of it before the frame and half after, to a pixel; no blur without."""
    for shutter, shots in zip(SHUTTERS, seen["found"], strict=True):
        for frame, shot in zip(FRAMES, shots, strict=True):
            row = np.array(shot["row"])
            lit = np.flatnonzero(row > 0.03 * row.max())
            opened, closed = (-2 + (frame + side * shutter / 2 - 1) / 3 for side in (-1, 1))
            low, high = (WIDTH / 2 + FOCAL * (x + side) / 7.75 for x, side in ((opened, -0.25), (closed, 0.25)))
            assert (lit[0] + 0.5, lit[-1] + 0.5) == pytest.approx((low, high), abs=1.6), (shutter, frame)


def test_labels_are_of_the_middle_of_the_blur(seen: dict[str, Any]) -> None:
    """The lit pixels' centre of mass is that of the front of the labelled box, to a third of a pixel."""
    for shots in seen["found"]:
        for shot in shots:
            row = np.array(shot["row"])
            bar = shot["annotations"]["objects"][0]
            center = WIDTH / 2 + FOCAL * bar["matrix_world"][0][3] / 7.75
            assert (row * (np.arange(WIDTH) + 0.5)).sum() / row.sum() == pytest.approx(center, abs=0.34)


def test_annotations_and_passes_are_those_of_a_sharp_picture(seen: dict[str, Any]) -> None:
    """To the byte, poses of falling bodies included: opening the shutter moves nothing."""
    sharp, *others = seen["found"]
    assert sharp[0]["annotations"]["objects"][3]["pose"] != sharp[1]["annotations"]["objects"][3]["pose"]
    for shots in others:
        for shot, reference in zip(shots, sharp, strict=True):
            assert shot["annotations"] == reference["annotations"]
            assert shot["passes"] == reference["passes"]
            assert shot["row"] != reference["row"]


def test_a_shutter_below_zero_is_refused(seen: dict[str, Any]) -> None:
    assert seen["said"] == "motion_blur: the shutter is open for -1 frames; give 0 or more"
