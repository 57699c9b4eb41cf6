"""Rigid bodies come to rest where physics says, exactly so again, and nothing that does not is passed over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import in_blender
from tests.in_blender import scene

pytestmark = in_blender.needs_bpy


def said(attempt: Any) -> str:
    from blender_jobs.job import JobError

    with pytest.raises(JobError) as error:
        attempt()
    return str(error.value)


def tumble(seed: int = 0, count: int = 5) -> dict[str, Any]:
    """Cubes dropped from above, anyhow turned; where they rest."""
    import bpy

    from blender_jobs import physics, scatter, stage

    rng = np.random.default_rng(seed)
    stage.clear()
    stage.ground(size_m=50)
    cubes = [stage.cube(f"cube{at}", physics="active") for at in range(count)]
    for at, cube in enumerate(cubes):
        cube.location, cube.rotation_euler = (0.3 * at, 0, 1.2 + 1.8 * at), scatter.rotation(rng)
        physics.randomize_body(rng, cube)
    settled = physics.settle()
    matrices = np.array([cube.matrix_world for cube in cubes])
    return {
        "frames": settled.frames,
        "hex": matrices.tobytes().hex(),
        "matrices": matrices.tolist(),
        "frame": bpy.context.scene.frame_current,
        "kinds": [cube.rigid_body.type for cube in cubes],
    }


@scene
def settled(folder: Path) -> Any:
    return tumble()


@scene
def settled_again(folder: Path) -> Any:
    tumble(seed=1)
    return tumble()


@scene
def stays(folder: Path) -> Any:
    """The frames that a job may go on with after settling."""
    import bpy

    tumble()
    before = [np.array(obj.matrix_world).tolist() for obj in bpy.data.objects]
    for frame in range(1, 6):
        bpy.context.scene.frame_set(frame)
    return before, [np.array(obj.matrix_world).tolist() for obj in bpy.data.objects]


@scene
def restless(folder: Path) -> Any:
    from blender_jobs import physics, stage

    def drop() -> Any:
        stage.clear()
        stage.ground(size_m=4)
        on, off = stage.cube("on", physics="active"), stage.cube("off", physics="active")
        on.location, off.location = (0, 0, 1), (9, 0, 1)
        return on

    drop()
    fell = physics.settle(must_rest=False)
    drop()
    errors = {"fell": said(physics.settle)}
    drop().location.z = 50
    fast = physics.settle(max_frames=20, must_rest=False)
    drop().location.z = 50
    errors["moving"] = said(lambda: physics.settle(max_frames=20))
    stage.clear()
    errors["no bodies"] = said(physics.settle)
    errors["no body"] = said(lambda: physics.randomize_body(np.random.default_rng(), stage.cube("plain")))
    return {"fell": vars(fell), "fast": vars(fast), "errors": errors}


@scene
def some_only(folder: Path) -> Any:
    """Settle one of two bodies, the other one standing in the air below it; then the other."""
    from blender_jobs import physics, stage

    stage.clear()
    stage.ground()
    high, low = stage.cube("high", physics="active"), stage.cube("low", physics="active")
    high.location, low.location = (0, 0, 8), (0, 0, 4)
    physics.settle([high])
    first = [high.matrix_world.translation.z, low.matrix_world.translation.z]
    physics.settle([low])
    second = [high.matrix_world.translation.z, low.matrix_world.translation.z]
    return first, second, [high.rigid_body.type, low.rigid_body.type]


@scene
def fields(folder: Path) -> Any:
    """Weightless: a wind along x moves a ball that way."""
    import bpy

    from blender_jobs import physics, stage

    stage.clear()
    cube = stage.cube("cube", physics="active")
    physics.gravity((0, 0, 0))
    physics.force("wind", (-5, 0, 0), 50, towards=(0, 0, 0))
    for frame in range(1, 25):
        bpy.context.scene.frame_set(frame)
    return list(cube.matrix_world.translation)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return in_blender.play(__name__, tmp_path_factory.mktemp("seen"))


def test_cubes_rest_on_the_ground_and_on_one_another(seen: dict[str, Any]) -> None:
    """After settling the lowest corners are on the ground, to a millimetre, and no cube is below it."""
    corners = np.array([(x, y, z, 1) for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
    lowest = (np.array(seen["settled"]["matrices"]) @ corners.T)[:, 2].min(axis=1)
    assert lowest.min() == pytest.approx(0, abs=1e-3)
    assert seen["settled"]["kinds"] == ["PASSIVE"] * 5
    assert seen["settled"]["frame"] == 1
    assert 10 < seen["settled"]["frames"] < 250


def test_settling_repeats_to_the_last_bit(seen: dict[str, Any], tmp_path: Path) -> None:
    """The same scene settles to the same floats in a fresh process and after another episode in the same one."""
    fresh = in_blender.play(__name__, tmp_path, ["settled"])["settled"]
    assert fresh == seen["settled"]
    assert seen["settled_again"] == seen["settled"]


def test_what_settled_stays(seen: dict[str, Any]) -> None:
    """Later frames leave settled bodies where they are."""
    before, after = seen["stays"]
    assert after == before


def test_bodies_that_do_not_come_to_rest_are_named(seen: dict[str, Any]) -> None:
    """A body that falls out of the world, or is still under way at the end, is an error or in what is returned."""
    restless = seen["restless"]
    assert restless["fell"]["fallen"] == ["off"]
    assert restless["fell"]["moving"] == []
    assert restless["fast"]["frames"] == 20
    assert restless["fast"]["moving"] == ["on"]
    errors = restless["errors"]
    assert "off is fallen past all passive bodies" in errors["fell"]
    assert "after 20 frames on is still moving" in errors["moving"]
    assert "no active rigid body" in errors["no bodies"]
    assert "'plain' is not a rigid body" in errors["no body"]


def test_only_the_bodies_named_settle(seen: dict[str, Any]) -> None:
    """Bodies that are not named stand still meanwhile, where they stop others, and are active afterwards."""
    first, second, kinds = seen["some_only"]
    assert first == pytest.approx([5, 4], abs=2e-3)
    assert second == pytest.approx([5, 0.5], abs=2e-3)
    assert kinds == ["PASSIVE", "PASSIVE"]


def test_wind_blows_where_it_is_pointed(seen: dict[str, Any]) -> None:
    """Without gravity a body moves along the wind and nowhere else."""
    x, y, z = seen["fields"]
    assert x > 0.1
    assert (y, z) == pytest.approx((0, 0), abs=1e-4)
