"""Where surfaces and cameras are from frame to frame, and the optical flow between two frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import bpy
import numpy as np
import numpy.typing as npt

from blender_jobs._render import flow, snapshot
from blender_jobs._vision.surfaces import Snapshot
from blender_jobs._worker import capture, viewpoint
from blender_jobs._worker.loading import blame
from blender_jobs.orders import Render

State = Mapping[str, Snapshot]
"""One frame, by the names in `Described.cameras`, or under the empty name for the scene's own camera."""


def present(order: Render) -> State:
    """Return the state of the present frame.

    Raises:
        JobError: a camera is missing, or cannot be described.
    """
    states = {}
    for name in order.described.cameras or [""]:
        viewpoint.aim(name, order.job.path)
        with blame(order.job.path, "camera"):
            states[name] = snapshot.take(bpy.context.scene, faces=True)
    return states


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
        segments, now, after = shot.segments(), self.now[shot.camera], then[shot.camera]
        return flow.flow(segments.geometry, segments, now.camera, now, after.camera, after)
