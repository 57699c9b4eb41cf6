"""Two cameras side by side: each frame is rendered and described for both of them, with depth.

compile-dataset examples/stereo.py --shards 2 --samples-per-shard 6 --set baseline_m=0.12
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from blender_jobs import meshes, scatter, stage
from blender_jobs.categories import box_category
from blender_jobs.job import Job
from blender_jobs.view import View


@dataclass
class Stereo(Job):
    """Random things on the ground, seen by a rectified pair: every point is in the same row of both images."""

    things: int = 10
    baseline_m: float = 0.3
    cameras = ("left", "right")
    categories = (box_category("thing"),)
    passes = ("depth",)

    def setup(self) -> None:
        """Build the ground, the light and the pair: the right camera is a child of the left one."""
        self.ground, self.sun = stage.ground(size_m=200), stage.sun(angle=4)
        stage.sky(strength=0.5)
        self.left = stage.camera(at=(0, -5, 2), lens_mm=40)
        right = stage.link(self.left.copy())
        self.left.name, right.name = self.cameras
        right.parent, right.location, right.rotation_euler = self.left, (self.baseline_m, 0, 0), (0, 0, 0)

    def randomize(self, rng: np.random.Generator) -> None:
        """Draw the ground's colour, the sun, the place of the pair, and the things."""
        stage.paint(self.ground, rng.uniform(0.15, 0.5) + rng.uniform(-0.06, 0.06, size=3), matte=True)
        stage.aim_sun(self.sun, elevation=rng.uniform(30, 70), azimuth=rng.uniform(0, 360))
        self.left.location = scatter.in_shell(rng, radius=(6, 8), elevation=(22, 40))
        stage.point_at(self.left, (0, 0, 0.3))
        self.scattered = meshes.distractors(rng, self.things, (0, 0, 0), (0, 0, 0), size_m=(0.3, 1.0), name="thing")
        scatter.place_apart(rng, self.scattered, self.stand)

    def stand(self, rng: np.random.Generator, thing: Any) -> None:
        """Propose a place on the ground."""
        thing.location = *rng.uniform(-1.9, 1.9, size=2), thing.dimensions.z / 2
        thing.rotation_euler = 0, 0, rng.uniform(0, 2 * np.pi)

    def annotate(self, view: View) -> dict[str, Any]:
        """Describe each thing as this camera sees it."""
        return {"objects": [view.describe(thing, "thing") for thing in self.scattered]}
