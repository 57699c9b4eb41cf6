"""Cubes that fall onto a plane: rigid-body physics, random materials and light, corners as keypoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from blender_jobs import stage
from blender_jobs.job import Job
from blender_jobs.view import View

FPS = 60
LAST_FRAME = 101


@dataclass
class FallingCubes(Job):
    """Cubes of differing size dropped from random heights under a random sun."""

    cubes: int = 7
    """How many fall; with `min_cubes` below it, each episode draws how many."""
    min_cubes: int | None = None
    every: int = 25
    """Of the frames 1 to 101, every so many-th is kept."""

    @property
    def frames(self) -> range:  # type: ignore[override]
        """Frames 1, 1 + every, ... up to 101; physics steps through all of them."""
        return range(1, LAST_FRAME + 1, self.every)

    def setup(self) -> None:
        """Build the plane, the light and the camera."""
        stage.frame_rate(FPS)
        self.ground = stage.ground(size_m=120)
        self.sun = stage.sun()
        stage.camera(at=(13.0, -13.0, 8.5), look_at=(0, 0, 3.9), lens_mm=38)

    def randomize(self, rng: np.random.Generator) -> None:
        """Draw the cubes' number, sizes, poses and colours, and the light."""
        fewest = self.cubes if self.min_cubes is None else self.min_cubes
        self.fallen = [self._drop(f"cube{i}", rng) for i in range(rng.integers(fewest, self.cubes + 1))]
        stage.paint(self.ground, rng.uniform(0.25, 0.6) + rng.uniform(-0.05, 0.05, size=3), roughness=0.9)
        stage.aim_sun(self.sun, elevation=rng.uniform(25, 70), azimuth=rng.uniform(-150, 60))
        self.sun.data.energy = rng.uniform(2.5, 4.5)
        stage.sky(rgb=(0.62, 0.74, 0.95) * rng.uniform(0.8, 1.0, size=3), strength=rng.uniform(0.5, 0.9))

    def _drop(self, name: str, rng: np.random.Generator) -> Any:
        made = stage.cube(name, size_m=rng.uniform(0.9, 2.0), physics="active", mass_kg=100, friction=0.5)
        made.location = rng.uniform((-3, -3, 6), (3, 3, 12))
        made.rotation_euler = rng.uniform(-np.pi, np.pi, size=3)
        hue = rng.uniform(0, 1) + np.array((0, 1 / 3, 2 / 3))
        color = np.clip(0.5 + 0.5 * np.cos(2 * np.pi * hue), 0.03, 1) * rng.uniform(0.45, 0.95)
        stage.paint(made, color, roughness=rng.uniform(0.15, 0.7))
        return made

    def annotate(self, view: View) -> dict[str, Any]:
        """Describe each cube; its keypoints are its corners."""
        return {"objects": [view.describe(cube, category="cube") for cube in self.fallen]}
