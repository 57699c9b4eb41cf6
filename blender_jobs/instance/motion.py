"""Where surfaces and cameras are from frame to frame, and the optical flow between two frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import bpy
import numpy as np
import numpy.typing as npt

from blender_jobs import lens
from blender_jobs.imaging import flow
from blender_jobs.instance import capture
from blender_jobs.instance.loading import blame
from blender_jobs.orders import Render
from blender_jobs.vision.camera import Camera


@dataclass(frozen=True)
class State:
    """One frame's surfaces and cameras; refers to nothing of Blender's."""

    surfaces: flow.Snapshot
    cameras: Mapping[str, Camera]
    """By the names in `Described.cameras`, or the scene's own under the empty name."""


def present(order: Render, before: State | None) -> State:
    """Return the state of the present frame; what has not changed since `before` is shared with it.

    Raises:
        JobError: a camera is missing, or cannot be described.
    """
    scene, depsgraph = bpy.context.scene, bpy.context.evaluated_depsgraph_get()
    cameras = {}
    for name in order.described.cameras or [""]:
        capture.aim(name, order.job.path)
        with blame(order.job.path, "camera"):
            cameras[name] = lens.scene_camera(scene, depsgraph)
    return State(flow.snapshot(depsgraph, before.surfaces if before else None), cameras)


@dataclass(frozen=True)
class Window:
    """A frame with its neighbours."""

    before: State | None
    """None in an episode's first frame."""
    now: State
    following: State

    def flows(self, shot: capture.Shot) -> dict[str, npt.NDArray[Any]]:
        """Return the members of the pass ``flow`` for a shot of the frame `now`.

        Without a frame before, nothing has moved: the backward flow is zero.
        """
        forward = self._flow(shot, self.following)
        backward = np.zeros_like(forward) if self.before is None else self._flow(shot, self.before)
        return {"flow_forward.npy": forward, "flow_backward.npy": backward}

    def _flow(self, shot: capture.Shot, then: State) -> npt.NDArray[np.float32]:
        now, camera = self.now, shot.camera
        return flow.flow(shot.geometry, now.cameras[camera], now.surfaces, then.cameras[camera], then.surfaces)
