"""Dominoes along a random curve knock each other over: a complete job in forty lines.

compile-dataset examples/dominoes.py --shards 2 --samples-per-shard 12 --set count=24
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from typing import Any

import numpy as np

from blender_jobs import stage
from blender_jobs.job import Job
from blender_jobs.view import View


@dataclass
class Dominoes(Job):
    """A curve of dominoes, of which the first is pushed over."""

    count: int = 13
    frames: range = range(1, 101, 20)  # rendered; physics steps through every frame between

    def setup(self) -> None:
        """Build what never varies, in an empty scene."""
        stage.frame_rate(30)
        stage.ground(size_m=200, rgb=(0.25, 0.22, 0.2))
        stage.camera(at=(0, -8.5, 6), look_at=(-0.6, 0.4, 0.3), lens_mm=36)
        stage.sky(rgb=(0.8, 0.9, 1.0), strength=0.5)
        self.sun = stage.sun(energy=3.5, angle=4)

    def randomize(self, rng: np.random.Generator) -> None:
        """Draw one episode: everything random comes from `rng`."""
        stage.aim_sun(self.sun, elevation=rng.uniform(30, 60), azimuth=rng.uniform(180, 360))
        bend, hue, place, heading = rng.uniform(-0.12, 0.12), rng.uniform(), np.array((-4.5, 0.0, 0.5)), 0.0
        self.dominoes = []
        for at in range(self.count):
            domino = stage.cube(f"domino{at}")
            domino.scale = (0.15, 0.5, 1.0)
            domino.location = place
            domino.rotation_euler = (0, 0.25 if at == 0 else 0, heading)  # the first one leans forward
            stage.rigid_body(domino, mass_kg=0.2, friction=0.4)
            stage.paint(domino, colorsys.hsv_to_rgb((hue + 0.4 * at / self.count) % 1, 0.8, 0.8), roughness=0.3)
            self.dominoes.append(domino)
            heading += bend
            place = place + 0.62 * np.array((np.cos(heading), np.sin(heading), 0))

    def annotate(self, view: View) -> dict[str, Any]:
        """Describe what a rendered frame shows."""
        return {"objects": [view.describe(domino, category="domino") for domino in self.dominoes]}
