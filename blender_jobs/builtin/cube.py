"""The minimal job: one cube, turned and coloured at random in each frame; its keypoints are its corners."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from blender_jobs import stage
from blender_jobs.categories import box_category
from blender_jobs.job import Job
from blender_jobs.view import View


@dataclass
class Cube(Job):
    """One cube, turned and coloured at random in each frame."""

    categories = (box_category("cube"),)
    frames: range = range(1, 21)

    def setup(self) -> None:
        """Build the cube, the light and the camera."""
        self.cube = stage.cube("cube", size_m=2)
        stage.sun(energy=3, elevation=55, azimuth=-60)
        stage.sky(rgb=(0.8, 0.85, 0.9), strength=0.7)
        stage.camera(at=(0, -8, 3), look_at=(0, 0, 0), lens_mm=45)

    def step(self, rng: np.random.Generator, frame: int) -> None:
        """Turn and colour the cube."""
        self.cube.rotation_euler = rng.uniform(-np.pi, np.pi, size=3)
        stage.paint(self.cube, rng.uniform(0.05, 1.0, size=3))

    def annotate(self, view: View) -> dict[str, Any]:
        """Describe the cube."""
        return {"objects": [view.describe(self.cube, category="cube")]}
