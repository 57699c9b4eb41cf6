"""Rigid bodies: random properties, gravity and fields, and letting them come to rest before anything is rendered.

`stage.rigid_body` makes an object one. World axes as Blender: z up, metres; seconds as the scene's frame rate counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import bpy
import numpy as np
from mathutils import Matrix, Vector

from blender_jobs.job import JobError
from blender_jobs.stage import Range, Triple, point_at

__all__ = ["Settled", "force", "gravity", "randomize_body", "settle", "take_part"]


def randomize_body(
    rng: np.random.Generator,
    obj: Any,
    mass_kg: Range = (0.5, 2.0),
    friction: Range = (0.3, 0.9),
    restitution: Range = (0.0, 0.5),
) -> None:
    """Draw how heavy, rough and bouncy a rigid body is, each uniform in its range.

    Raises:
        JobError: `obj` is not a rigid body.
    """
    body = _body(obj)
    body.mass, body.friction, body.restitution = (rng.uniform(*limits) for limits in (mass_kg, friction, restitution))


def gravity(m_s2: Triple = (0.0, 0.0, -9.81)) -> None:
    """Set the scene's gravity: an acceleration (3,) in the world."""
    bpy.context.scene.gravity = m_s2


def force(kind: str, at: Triple, strength: float, towards: Triple | None = None) -> Any:
    """Return a new force field at `at`; `kind` and `strength` as Blender's effectors: WIND, FORCE, VORTEX, TURBULENCE.

    A WIND blows along the field's z axis: up, or to `towards`.
    """
    bpy.ops.object.effector_add(type=kind.upper(), location=tuple(at))
    made = bpy.context.object
    made.field.strength = strength
    if towards is not None:
        point_at(made, 2 * Vector(at) - Vector(towards))  # which turns -z away from it
    return made


def take_part(obj: Any, part: bool) -> None:
    """Take a rigid body out of the simulation, or put it back; its properties stay."""
    members = bpy.context.scene.rigidbody_world.collection.objects
    if part != (obj.name in members):
        (members.link if part else members.unlink)(obj)
        obj.update_tag()  # without it Blender 4 goes on with the old list


@dataclass(frozen=True)
class Settled:
    """How `settle` ended."""

    frames: int
    """Frames simulated."""
    moving: tuple[str, ...] = ()
    """Names of the bodies that were not at rest at the end, in the order given."""
    fallen: tuple[str, ...] = ()
    """Names of the bodies that fell past all that could have stopped them."""


def settle(
    objects: Sequence[Any] | None = None,
    max_frames: int = 250,
    still_frames: int = 5,
    linear_m_s: float = 0.05,
    angular_rad_s: float = 0.1,
    must_rest: bool = True,
) -> Settled:
    """Simulate rigid bodies until they rest, and leave them there as passive bodies, back in frame 1.

    A job then renders one frame of the settled scene, however long that took. The simulation starts from where the
    bodies are now and steps through every frame from 1. What falls past the lowest passive body, along gravity, is
    no longer waited for.

    Args:
        objects: the bodies to settle, by default all active ones in the simulation. Named ones become active first;
            active ones that are not named rest meanwhile.
        max_frames: when to give up.
        still_frames: how many frames in a row all bodies must be still.
        linear_m_s: the speed below which a body's origin counts as still.
        angular_rad_s: the speed of turning below which it counts as still.
        must_rest: bodies that fell, or still move after `max_frames`, are an error. Otherwise they are only named in
            what is returned, and stay where they were last: hide or remove them.

    Raises:
        JobError: there is no rigid body to settle, or `must_rest`.
    """
    scene = bpy.context.scene
    bodies, bystanders = _cast(scene, objects)
    for obj in bodies:
        _become(obj, "ACTIVE")
    for obj in bystanders:
        _become(obj, "PASSIVE")
    with _cache_of(scene, max_frames):
        run = _Run(scene, bodies, linear_m_s, angular_rad_s)
        while run.frame < max_frames and run.still < still_frames:
            run.step()
    scene.frame_set(1)
    for obj, pose in zip(bodies, run.poses, strict=True):
        _become(obj, "PASSIVE")
        obj.matrix_world = pose
    for obj in bystanders:
        _become(obj, "ACTIVE")
    bpy.context.view_layer.update()
    settled = run.result(rest=run.still >= still_frames)
    if must_rest and (settled.moving or settled.fallen):
        raise JobError(_explain(settled))
    return settled


class _Run:
    """A simulation under way: `poses` of the bodies, `frame`, and for how many frames none of them moved (`still`)."""

    def __init__(self, scene: Any, bodies: Sequence[Any], linear_m_s: float, angular_rad_s: float) -> None:
        self._scene, self._bodies = scene, bodies
        fps = scene.render.fps / scene.render.fps_base
        self._limits: tuple[float, float] = linear_m_s / fps, angular_rad_s / fps
        self._down = Vector(scene.gravity) if scene.use_gravity else Vector((0, 0, 0))
        self._pulls = bool(self._down.length > 0)
        self.frame, self.still = 1, 0
        scene.frame_set(1)
        self._bottom = self._lowest_support()
        self.poses = self._look()
        self._moving = [True] * len(bodies)
        self._fallen = [False] * len(bodies)

    def step(self) -> None:
        """Go on by one frame."""
        self.frame += 1
        self._scene.frame_set(self.frame)
        before, self.poses = self.poses, self._look()
        self._moving = [self._moved(*pair) for pair in zip(before, self.poses, strict=True)]
        self._fallen = [self._is_past_all(obj) for obj in self._bodies]
        waiting = any(moving and not fallen for moving, fallen in zip(self._moving, self._fallen, strict=True))
        self.still = 0 if waiting else self.still + 1

    def result(self, rest: bool) -> Settled:
        """Say how it ended."""
        fallen = tuple(obj.name for obj, flag in zip(self._bodies, self._fallen, strict=True) if flag)
        moving = tuple(obj.name for obj, flag in zip(self._bodies, self._moving, strict=True) if flag)
        return Settled(self.frame, () if rest else tuple(name for name in moving if name not in fallen), fallen)

    def _look(self) -> list[Matrix]:
        depsgraph = bpy.context.evaluated_depsgraph_get()
        return [obj.evaluated_get(depsgraph).matrix_world.copy() for obj in self._bodies]

    def _moved(self, before: Matrix, after: Matrix) -> bool:
        linear, angular = self._limits
        turned: float = before.to_quaternion().rotation_difference(after.to_quaternion()).angle
        moved: float = (after.translation - before.translation).length
        return moved > linear or min(turned, 2 * math.pi - turned) > angular  # a quaternion may go the long way

    def _lowest_support(self) -> float:
        """How far down, along gravity, passive bodies reach."""
        members = self._scene.rigidbody_world.collection.objects
        depths = [max(self._depths(obj)) for obj in members if obj.rigid_body and obj.rigid_body.type == "PASSIVE"]
        return max(depths, default=-math.inf)

    def _is_past_all(self, obj: Any) -> bool:
        return self._pulls and min(self._depths(obj)) > self._bottom

    def _depths(self, obj: Any) -> list[float]:
        """How far down the corners of the bounding box are."""
        evaluated = obj.evaluated_get(bpy.context.evaluated_depsgraph_get())
        return [self._down.dot(evaluated.matrix_world @ Vector(corner)) for corner in evaluated.bound_box]


def _cast(scene: Any, objects: Sequence[Any] | None) -> tuple[list[Any], list[Any]]:
    """Return the bodies to settle and the other active ones."""
    world = scene.rigidbody_world
    members = [] if world is None else list(world.collection.objects)
    active = [obj for obj in members if obj.rigid_body is not None and obj.rigid_body.type == "ACTIVE"]
    bodies = active if objects is None else list(objects)
    for obj in bodies:
        _body(obj)
        if obj not in members:
            raise JobError(f"settle: object {obj.name!r} takes no part in the simulation (is it hidden?)")
    if not bodies:
        raise JobError(
            "settle: no active rigid body; make some with stage.rigid_body(obj), or name those to settle again"
        )
    return bodies, [obj for obj in active if obj not in bodies]


def _become(obj: Any, kind: str) -> None:
    if obj.rigid_body.type != kind:
        obj.rigid_body.type = kind
        # Else Blender goes on to evaluate it as the old type: setting this makes it look again at what depends on what.
        obj.instance_type = obj.instance_type


def _body(obj: Any) -> Any:
    if obj.rigid_body is None:
        raise JobError(f"object {obj.name!r} is not a rigid body; call stage.rigid_body(obj) first")
    return obj.rigid_body


@contextmanager
def _cache_of(scene: Any, frames: int) -> Iterator[None]:
    """Let the simulation run over so many frames, from the bodies as they are now."""
    world = scene.rigidbody_world
    cache = world.point_cache
    before = cache.frame_start, cache.frame_end
    cache.frame_start, cache.frame_end = 1, max(frames, 2)
    world.substeps_per_frame = world.substeps_per_frame  # drops what was simulated before
    try:
        yield
    finally:
        cache.frame_start, cache.frame_end = before


def _explain(settled: Settled) -> str:
    said = []
    if settled.moving:
        said.append(
            f"after {settled.frames} frames {_some(settled.moving)} still moving: allow more max_frames, or "
            "more obj.rigid_body.angular_damping for what rolls"
        )
    if settled.fallen:
        said.append(f"{_some(settled.fallen)} fallen past all passive bodies: make the ground larger")
    return f"settle: {'; '.join(said)}, or take what is returned with must_rest=False"


def _some(names: Sequence[str]) -> str:
    listed = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return f"{listed} {'is' if len(names) == 1 else 'are'}"
