"""The interface between a user's scene and Blendshard: a dataclass with three hooks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import numpy as np

    from blender_jobs.view import View

__all__ = ["Category", "Job", "JobError"]


RGB = tuple[int, int, int]


@dataclass(frozen=True)
class Category:
    """A class of objects. With keypoints, every object of the class has these, in this order."""

    name: str
    keypoints: Sequence[str] = ()
    skeleton: Sequence[tuple[str, str]] = ()
    """Edges to draw: pairs of keypoint names."""
    colors: Sequence[RGB] = ()
    """One for each keypoint, 0 to 255; empty: the tool that draws them chooses."""


class Job:
    """Base of all jobs: subclass it as a `dataclass` whose fields are the options (``--set count=20``).

    For each episode the worker makes a new instance, empties Blender (or opens `blend`), and calls `setup`, then
    `randomize`; then, for each frame from the first, `step`; and, on each frame that `frames` names, renders and calls
    `annotate`. `frames` and the attributes below it may be class attributes, fields, or properties that use fields.
    """

    frames: Sequence[int] = range(1, 2)
    """Frames of an episode that become samples, ascending. Physics steps through every frame from frame 1."""

    cameras: Sequence[str] = ()
    """Names of camera objects: each frame is rendered and annotated with each of them, and the members are named after
    them (``left.png``, ``left.json``, ...). Empty: the scene's camera alone, members without a prefix."""

    view_layer: str = ""
    """The view layer that image, passes and annotations show; empty: the active one."""

    categories: Sequence[Category | str] = ()
    """The classes that `View.describe` may name, with their keypoint templates. Empty: any."""

    passes: Sequence[str] = ()
    """What each sample holds besides the image unless ``--passes`` says otherwise, see `blender_jobs.passes`."""

    blend: Path | None = None
    """The ``.blend`` file in which `setup` runs unless ``--blend`` names another; from the job file's folder."""

    assets: Sequence[Path | str] = ()
    """Files and folders, from the job file's folder, that the job reads: part of the plan by their content. Those in
    fields of type `Path`, and what `setup` loads, need not be named."""

    reuse_scene: ClassVar[bool] = False
    """Build the scene once for each shard, not for each episode: for scenes too heavy to rebuild. The shard is then
    the unit that repeats byte for byte, and `randomize` must set everything that it ever changes."""

    def setup(self) -> None:
        """Build what never varies, in an empty scene or in the opened `blend`."""
        raise NotImplementedError(f"{type(self).__name__} has no setup()")

    def randomize(self, rng: np.random.Generator) -> None:
        """Draw one episode; take all randomness from `rng`."""

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
