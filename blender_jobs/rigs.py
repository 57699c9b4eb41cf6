"""Kinematic chains of rigid links: robot arms, fingers, grippers, excavators, cranes.

A chain is a list of `Joint`s. Geometry, poses and keypoints all come from it: a link's mesh, its place in Blender and
what a picture is labelled with cannot disagree. Metres, degrees; frames as in URDF: a joint's frame is at its
`offset` in the frame of the link that it moves on, turned by `rotation`, and its link moves in it along or about
`axis`::

    ARM = [
        rigs.Joint("shoulder", axis=(0, 0, 1), offset=(0, 0, 0.3), limits=(-170, 170)),
        rigs.Joint("elbow", axis=(0, 1, 0), offset=(0, 0, 0.5), limits=(-20, 120)),
        rigs.Joint("wrist", axis=(0, 1, 0), offset=(0, 0, 0.4), limits=(-90, 90), points={"tool": (0, 0, 0.2)}),
    ]

    self.arm = rigs.chain("arm", ARM)
    self.arm.randomize(rng)
    view.describe(self.arm.root, "arm", self.arm.keypoints(view), self_tolerance_m=0.1)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import bpy  # noqa: F401 - brings mathutils
import numpy as np
import numpy.typing as npt
from mathutils import Matrix

from blender_jobs import meshes, parts, stage
from blender_jobs._render import animation
from blender_jobs._vision.camera import FloatArray, transform
from blender_jobs.job import Category, JobError
from blender_jobs.stage import Interpolation, Range, Triple

if TYPE_CHECKING:
    from blender_jobs.view import View

__all__ = ["Chain", "Joint", "category", "chain", "forward", "keypoint_names"]

Kind = Literal["revolute", "prismatic", "fixed"]
"""URDF's joint types: one that turns about its axis, one that slides along it, one that does neither."""

BASE = "base"
"""The link that the first joint moves on, and the keypoint at its origin."""

_SIDES = 32


@dataclass(frozen=True)
class Joint:
    """One joint, and the link that moves with it."""

    name: str
    """Of the joint, its link and the keypoint at its origin."""
    axis: Triple = (0.0, 0.0, 1.0)
    """(3,), in the joint's frame, of any length: what it turns about (by the right-hand rule) or slides along."""
    offset: Triple = (0.0, 0.0, 0.0)
    """(3,), where its frame is in the frame of the link that it moves on, metres."""
    limits: Range = (-180.0, 180.0)
    """Lowest and highest value, both included: degrees; metres for a prismatic joint, which has to say them."""
    kind: Kind = "revolute"
    rotation: Triple = (0.0, 0.0, 0.0)
    """(3,), degrees: how its frame is turned in that link's, about x, then y, then z of the latter (URDF's rpy)."""
    parent: str = ""
    """The joint whose link it moves on, an earlier one, or ``base``; empty: the one before it."""
    points: Mapping[str, Triple] = field(default_factory=dict)
    """More keypoints by their names, fixed to its link: (3,) in the joint's frame, metres."""

    def motion(self, value: float) -> FloatArray:
        """Return the joint's own motion, (4, 4), for a value in degrees or metres."""
        moved = np.eye(4)
        axis = _unit(self.axis)
        if self.kind == "prismatic":
            moved[:3, 3] = axis * value
        elif self.kind == "revolute":
            moved[:3, :3] = _about(axis, value)
        return moved

    def rest(self) -> FloatArray:
        """Return its frame in the frame of the link that it moves on, (4, 4)."""
        frame = np.eye(4)
        x, y, z = (_about(axis, angle) for axis, angle in zip(np.eye(3), self.rotation, strict=True))
        frame[:3, :3], frame[:3, 3] = z @ y @ x, self.offset
        return frame


def chain(
    name: str,
    joints: Sequence[Joint],
    links: Mapping[str, Any] | None = None,
    radius_m: float = 0.05,
    rgb: Triple = (0.8, 0.3, 0.05),
) -> Chain:
    """Return a new chain, each joint at 0, or at the limit that is nearest to it.

    Links that are not given are built: a drum about each joint's axis, and rods to the joints that move on the link and
    to its `points`.

    Args:
        name: of the base's object; a link's is ``<name> <joint>``.
        joints: each moves on the link of the one before it, unless its `parent` says otherwise.
        links: mesh objects by the names of their joints, ``base`` for what does not move. Each is modelled in the
            frame of its joint, in metres; the chain takes it over.
        radius_m: of the rods that are built.
        rgb: what they are painted, linear RGB.

    Raises:
        JobError: a joint cannot be as it is said (a name that occurs twice, an axis of no length, limits the wrong
            way round, an unknown parent), or a link is of no joint, no mesh, or moved, turned or scaled.
    """
    _check(name, joints)
    given = dict(links or {})
    if unknown := [key for key in given if key not in (BASE, *(joint.name for joint in joints))]:
        raise JobError(
            f"chain {name!r}: a link for {unknown[0]!r}, which is none of its joints; they are {_list(joints)}"
        )
    for key, obj in given.items():
        _check_link(name, key, obj)
    objects = {
        key: given[key] if key in given else _link(f"{name} {key}", key, joints, radius_m, rgb)
        for key in (BASE, *(joint.name for joint in joints))
    }
    objects[BASE].name = name
    for joint in joints:
        obj = objects[joint.name]
        obj.parent = objects[_parent(joint, joints)]
        obj.matrix_parent_inverse = Matrix(joint.rest().tolist())
        obj.rotation_mode = "AXIS_ANGLE"
    made = Chain(name, tuple(joints), objects)
    made.set({joint.name: min(max(0.0, joint.limits[0]), joint.limits[1]) for joint in made.movable})
    return made


class Chain:
    """A chain in Blender, made by `chain`: what its joints are set to, and what a view sees of it."""

    def __init__(self, name: str, joints: tuple[Joint, ...], objects: Mapping[str, Any]) -> None:
        self.name = name
        self.joints = joints
        self.links = dict(objects)
        """Blender's objects by the names of their joints, ``base`` first; each is its parent link's child."""

    @property
    def root(self) -> Any:
        """The base: move, turn or parent it, and the whole chain follows. All other links are below it."""
        return self.links[BASE]

    @property
    def objects(self) -> list[Any]:
        """All links, the base first."""
        return list(self.links.values())

    @property
    def movable(self) -> list[Joint]:
        """The joints that are not fixed, in their order."""
        return [joint for joint in self.joints if joint.kind != "fixed"]

    @property
    def values(self) -> dict[str, float]:
        """What each movable joint is at in the current frame, degrees or metres, to Blender's precision."""
        return {joint.name: _value(joint, self.links[joint.name]) for joint in self.movable}

    def set(self, values: Mapping[str, float] | Sequence[float] | FloatArray) -> None:
        """Set joints, in degrees or metres: by their names, those left out stay; or all `movable` ones in order.

        Raises:
            JobError: there is no such joint, a value is outside its limits, or there are more or fewer values.
        """
        for joint, value in self._checked(values):
            for path, vector in _channels(joint, value).items():
                setattr(self.links[joint.name], path, vector)

    def randomize(self, rng: np.random.Generator) -> dict[str, float]:
        """Set each movable joint to a value that is uniform within its limits, and return them; one draw a joint.

        The links may then reach into one another, or into what is around.
        """
        drawn = {joint.name: float(rng.uniform(*joint.limits)) for joint in self.movable}
        self.set(drawn)
        return drawn

    def move(
        self,
        values: Mapping[int, Mapping[str, float] | Sequence[float] | FloatArray],
        interpolation: Interpolation = "LINEAR",
    ) -> None:
        """Let joints be at these values in these frames, and between them in between; as `stage.move` does.

        Args:
            values: by frame, as `set` takes them.
            interpolation: as `stage.move` has it; joints turn and slide evenly with ``LINEAR``.

        Raises:
            JobError: as `set`; there are no values; or there is no such interpolation.
        """
        stage.check_interpolation(interpolation, f"chain {self.name!r}: move")
        if not values:
            raise JobError(f"chain {self.name!r}: move has no values; give at least one frame's")
        keys: dict[tuple[str, str], dict[int, list[float]]] = {}
        for frame, wanted in values.items():
            for joint, value in self._checked(wanted):
                for path, vector in _channels(joint, value).items():
                    keys.setdefault((joint.name, path), {})[frame] = vector
        for (name, path), vectors in keys.items():
            animation.keyframe(self.links[name], path, vectors, interpolation)

    def keypoints(self, view: View) -> parts.Points:
        """Return the keypoints that `keypoint_names` names, where the picture shows them, for `View.describe`.

        Their owners are all links: `self_tolerance_m` lets these be so far before a joint that lies within.
        """
        places = []
        for key, points in _points(self.joints).items():
            matrix = view.matrix_world(self.links[key])
            places.append(transform(matrix, np.array([(0.0, 0.0, 0.0), *points.values()], dtype=np.float64)))
        return parts.Points(keypoint_names(self.joints), np.concatenate(places), tuple(self.objects))

    def state(self, view: View) -> list[dict[str, Any]]:
        """Return each joint as an annotation, ready for JSON, to be a field of its own: ``joints=arm.state(view)``.

        A list of dicts: `name`, `kind`, `value` (degrees or metres; 0 where it is fixed), `limits`, and `pose`, 4x4
        rigid, the joint's moved frame, which is its link's, to the OpenCV camera frame.
        """
        values = self.values
        return [
            {
                "name": joint.name,
                "kind": joint.kind,
                "value": float(view.lens.rounded(values.get(joint.name, 0.0))),
                "limits": [float(limit) for limit in joint.limits],
                "pose": view.lens.rounded(view.pose(self.links[joint.name])).tolist(),
            }
            for joint in self.joints
        ]

    def _checked(self, values: Mapping[str, float] | Sequence[float] | FloatArray) -> list[tuple[Joint, float]]:
        where = f"chain {self.name!r}"
        movable = {joint.name: joint for joint in self.movable}
        if isinstance(values, Mapping):
            named = {str(name): float(value) for name, value in values.items()}
        elif len(values) == len(movable):
            named = dict(zip(movable, map(float, values), strict=True))
        else:
            raise JobError(f"{where}: {len(values)} values for {len(movable)} joints that move: {_list(self.movable)}")
        for name, value in named.items():
            if name not in movable:
                raise JobError(f"{where} has no joint {name!r} that moves{parts.suggestion(name, movable)}")
            low, high = movable[name].limits
            if not low <= value <= high:
                raise JobError(
                    f"{where}: joint {name!r} at {value:g} {_unit_of(movable[name])}, limits {low:g} to {high:g}"
                )
        return [(movable[name], value) for name, value in named.items()]


def forward(joints: Sequence[Joint], values: Mapping[str, float]) -> dict[str, FloatArray]:
    """Return where each link is in the base's frame, float64 (4, 4) by the joints' names, ``base`` first.

    Forward kinematics, with numpy alone. Joints that `values` leaves out are at 0; limits are not looked at.
    """
    _check("forward", joints)
    found = {BASE: np.eye(4)}
    for joint in joints:
        above = found[_parent(joint, joints)]
        found[joint.name] = above @ joint.rest() @ joint.motion(values.get(joint.name, 0.0))
    return found


def keypoint_names(joints: Sequence[Joint]) -> tuple[str, ...]:
    """Return the names of a chain's keypoints, in order: ``base``, then each joint and the points on its link."""
    return tuple(name for key, points in _points(joints).items() for name in (key, *points))


def category(name: str, joints: Sequence[Joint]) -> Category:
    """Return a category with a chain's keypoints, and a skeleton along its links."""
    _check(name, joints)
    edges = [(_parent(joint, joints), joint.name) for joint in joints]
    edges += [(joint.name, point) for joint in joints for point in joint.points]
    return Category(name, keypoint_names(joints), edges)


def _points(joints: Sequence[Joint]) -> dict[str, Mapping[str, Triple]]:
    return {BASE: {}, **{joint.name: joint.points for joint in joints}}


def _parent(joint: Joint, joints: Sequence[Joint]) -> str:
    at = [entry.name for entry in joints].index(joint.name)
    return joint.parent or (joints[at - 1].name if at else BASE)


def _check(name: str, joints: Sequence[Joint]) -> None:
    """Raise JobError if the joints cannot be a chain."""
    if not joints:
        raise JobError(f"chain {name!r}: no joints; give at least one")
    taken = [BASE]
    for joint in joints:
        where = f"chain {name!r}: joint {joint.name!r}"
        for keypoint in (joint.name, *joint.points):
            if not keypoint or keypoint in taken:
                raise JobError(
                    f"{where}: the name {keypoint!r} is empty or taken; all joints and points need their own"
                )
            taken.append(keypoint)
        _check_numbers(where, joint)
    _check_parents(name, joints)


def _check_numbers(where: str, joint: Joint) -> None:
    if joint.kind not in get_args(Kind):
        raise JobError(f"{where} is {joint.kind!r}, which must be revolute, prismatic or fixed")
    vectors = {"axis": joint.axis, "offset": joint.offset, "rotation": joint.rotation, **joint.points}
    for what, vector in vectors.items():
        if np.shape(vector) != (3,) or not np.isfinite(np.asarray(vector, dtype=np.float64)).all():
            raise JobError(f"{where}: {what} must be three finite numbers, not {vector!r}")
    if not np.any(np.asarray(joint.axis)):
        raise JobError(f"{where}: its axis has no length")
    low, high = joint.limits
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise JobError(f"{where}: limits {low:g} to {high:g}, which must be finite, the lower one first")
    if joint.kind == "prismatic" and tuple(joint.limits) == Joint.limits:
        raise JobError(f"{where} slides: give its limits in metres")


def _check_parents(name: str, joints: Sequence[Joint]) -> None:
    earlier = [BASE]
    for joint in joints:
        if joint.parent and joint.parent not in earlier:
            raise JobError(
                f"chain {name!r}: joint {joint.name!r} moves on {joint.parent!r}, which is no joint before it:"
                f" {', '.join(earlier)}"
            )
        earlier.append(joint.name)


def _check_link(name: str, key: str, obj: Any) -> None:
    where = f"chain {name!r}: the link of {key!r}"
    if getattr(obj, "type", None) != "MESH":
        raise JobError(f"{where} must be a mesh object, not {obj!r}")
    if obj.parent is not None or obj.matrix_basis != Matrix.Identity(4):
        raise JobError(
            f"{where}, object {obj.name!r}, is moved, turned, scaled or has a parent: model it in its joint's frame"
        )


def _link(name: str, key: str, joints: Sequence[Joint], radius_m: float, rgb: Triple) -> Any:
    """A link's mesh in its joint's frame: its own drum, and rods to what is fixed to it."""
    own = {joint.name: joint for joint in joints}.get(key)
    tubes: list[tuple[FloatArray, FloatArray, float, float]] = []
    axis = np.array([0.0, 0.0, 1.0]) if own is None else _unit(own.axis)
    if own is None or own.kind == "fixed":
        tubes.append((-0.5 * radius_m * axis, 0.5 * radius_m * axis, 1.6 * radius_m, 1.6 * radius_m))
    elif own.kind == "revolute":
        tubes.append((-1.3 * radius_m * axis, 1.3 * radius_m * axis, 1.4 * radius_m, 1.4 * radius_m))
    else:  # long enough to be within what it slides out of
        reach = max(abs(limit) for limit in own.limits) + radius_m
        back = -math.copysign(reach, own.limits[1] + own.limits[0])
        tubes.append((back * axis, math.copysign(radius_m, -back) * axis, 0.7 * radius_m, 0.7 * radius_m))
    ends = [np.array(joint.offset, dtype=np.float64) for joint in joints if _parent(joint, joints) == key]
    ends += [np.array(point, dtype=np.float64) for point in (own.points if own else {}).values()]
    zero = np.zeros(3)
    tubes += [(zero, end, radius_m, 0.75 * radius_m) for end in ends if end.any()]
    starts, stops, first, last = zip(*tubes, strict=True)
    made = meshes.tubes(name, np.array(starts), np.array(stops), np.stack([first, last], axis=1), _SIDES)
    stage.paint(made, rgb)
    return made


def _channels(joint: Joint, value: float) -> dict[str, list[float]]:
    """What the joint's motion is in its link's object: one channel that animation runs along evenly."""
    axis = _unit(joint.axis)
    if joint.kind == "prismatic":
        return {"location": (axis * value).tolist()}
    return {"rotation_axis_angle": [math.radians(value), *axis.tolist()]}


def _value(joint: Joint, obj: Any) -> float:
    if joint.kind == "prismatic":
        return float(_unit(joint.axis) @ np.array(obj.location, dtype=np.float64))
    return math.degrees(obj.rotation_axis_angle[0])


def _unit(axis: Triple) -> FloatArray:
    vector = np.asarray(axis, dtype=np.float64)
    unit: FloatArray = vector / np.linalg.norm(vector)
    return unit


def _about(axis: npt.NDArray[np.floating[Any]], degrees: float) -> FloatArray:
    """A rotation (3, 3) about a unit axis, by Rodrigues' formula."""
    x, y, z = axis.tolist()
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    angle = math.radians(degrees)
    turned: FloatArray = np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * (cross @ cross)
    return turned


def _unit_of(joint: Joint) -> str:
    return "m" if joint.kind == "prismatic" else "degrees"


def _list(joints: Sequence[Joint]) -> str:
    return ", ".join(joint.name for joint in joints)
