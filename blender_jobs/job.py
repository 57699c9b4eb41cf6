"""The interface between a user's scene and Blendshard: a dataclass with three hooks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import numpy as np

    from blender_jobs.view import View


class Job:
    """Base of all jobs: subclass it as a `dataclass` whose fields are the options (``--set count=20``).

    For each episode the worker makes a new instance, empties Blender, and calls `setup`, then `randomize`; then, for
    each frame from the first, `step`; and, on each frame that `frames` names, renders and calls `annotate`.
    """

    frames: Sequence[int] = range(1, 2)
    """Frames of an episode that become samples, ascending. Physics steps through every frame from frame 1."""

    reuse_scene: ClassVar[bool] = False
    """Build the scene once for each shard, not for each episode: for scenes too heavy to rebuild. The shard is then
    what repeats byte for byte, and `randomize` must set everything that it ever changes."""

    def setup(self) -> None:
        """Build what never varies, in an empty scene."""
        raise NotImplementedError(f"{type(self).__name__} has no setup()")

    def randomize(self, rng: np.random.Generator) -> None:
        """Draw one episode: all that is random comes from `rng`."""

    def step(self, rng: np.random.Generator, frame: int) -> None:
        """Change the scene just before Blender moves to `frame` (physics and animation follow)."""

    def annotate(self, view: View) -> dict[str, Any]:
        """Say what one rendered frame shows.

        Returns:
            JSON-ready fields of the sample, the same in every sample. Under ``objects`` a list of
            `View.describe` results; their keypoints also become ``keypoints.npy``.
        """
        return {"objects": []}


class JobError(Exception):
    """The user's job is at fault. The message is one line; `trace` holds the user's own lines of a traceback."""

    def __init__(self, message: str, trace: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.trace = list(trace)
