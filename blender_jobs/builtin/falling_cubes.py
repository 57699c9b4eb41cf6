"""Cubes that fall onto a plane: rigid-body physics, random materials and light, corners as keypoints."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from blender_jobs import stage
from blender_jobs.categories import box_category
from blender_jobs.job import Job
from blender_jobs.view import View

FPS = 60
LAST_FRAME = 101
PLACEMENT_TRIES = 100
SQRT3 = 3**0.5


@dataclass
class FallingCubes(Job):
    """Cubes of differing size dropped from random heights under a random sun."""

    categories = (box_category("cube"),)

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
        self.ground = stage.ground(size_m=1000)
        self.sun = stage.sun()
        stage.camera(at=(12, -12, 9.5), look_at=(0, 0, 4.9), lens_mm=39)

    def randomize(self, rng: np.random.Generator) -> None:
        """Draw the cubes' number, sizes, poses and colours, and the light."""
        fewest = self.cubes if self.min_cubes is None else self.min_cubes
        self.fallen: list[Any] = []
        for number in range(rng.integers(fewest, self.cubes + 1)):
            self.fallen.append(self._drop(f"cube{number}", rng))
        stage.paint(self.ground, rng.uniform(0.1, 0.5) + rng.uniform(-0.06, 0.06, size=3), matte=True)
        stage.aim_sun(self.sun, elevation=rng.uniform(25, 65), azimuth=rng.uniform(-150, 60))
        self.sun.data.energy = rng.uniform(1.8, 3.0)
        stage.sky(rgb=(0.55, 0.7, 1.0) * rng.uniform(0.8, 1.0, size=3), strength=rng.uniform(0.3, 0.55))

    def _drop(self, name: str, rng: np.random.Generator) -> Any:
        size = rng.uniform(0.8, 1.7)
        made = stage.cube(name, size_m=size, physics="active", mass_kg=100, friction=0.5)
        made.location = self._free_place(size, rng)
        made.rotation_euler = rng.uniform(-np.pi, np.pi, size=3)
        color = colorsys.hsv_to_rgb(rng.uniform(0, 1), rng.uniform(0.6, 0.97), rng.uniform(0.35, 0.9))
        stage.paint(made, color, roughness=rng.uniform(0.15, 0.7))
        return made

    def _free_place(self, size: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
        """Draw places until one is clear of the other cubes: cubes that overlap are hurled apart."""
        for _ in range(PLACEMENT_TRIES):
            place = rng.uniform((-3, -3, 6), (3, 3, 12))
            gaps = [
                np.linalg.norm(place - other.location) - (size + other.dimensions.x) * SQRT3 / 2
                for other in self.fallen
            ]
            if min(gaps, default=1.0) > 0:
                break
        return place

    def annotate(self, view: View) -> dict[str, Any]:
        """Describe each cube; its keypoints are its corners."""
        return {"objects": [view.describe(cube, category="cube") for cube in self.fallen]}
