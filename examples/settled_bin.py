"""A bin of parts for picking: random shapes drop in and come to rest; then one frame is rendered, with its masks.

compile-dataset examples/settled_bin.py --shards 2 --samples-per-shard 6 --set parts=30
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from blender_jobs import lights, materials, meshes, physics, scatter, stage
from blender_jobs.job import Job
from blender_jobs.view import View

SHAPES = {shape.__name__: shape for shape in meshes.SHAPES}  # cube, sphere, cylinder, cone, torus


@dataclass
class SettledBin(Job):
    """A pile of random shapes at rest in a bin."""

    parts: int = 24
    categories = tuple(SHAPES)
    passes = ("segmentation", "depth")

    def setup(self) -> None:
        """Build what never varies: floor and walls, which only stop what falls, a camera and some light."""
        stage.ground(rgb=(0.12, 0.13, 0.15))
        for x, y in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            wall = stage.cube("wall", physics="passive")
            wall.scale, wall.location = (0.06, 1.94, 0.7) if x else (2.06, 0.06, 0.7), (x, y, 0.35)
            stage.paint(wall, (0.16, 0.25, 0.38), matte=True)
        stage.camera(at=(0, -1.8, 4.2), look_at=(0, -0.03, 0.2), lens_mm=52)
        stage.sky(strength=0.4)

    def randomize(self, rng: np.random.Generator) -> None:
        """Drop the parts, apart from one another, and wait until all of them rest."""
        self.pile: list[Any] = []
        for number in range(self.parts):
            shape = str(rng.choice(list(SHAPES)))
            part = SHAPES[shape](f"{shape} {number}")
            part.scale = rng.uniform(0.25, 0.45, size=3)
            stage.rigid_body(part, shape="CONVEX_HULL", friction=0.6, angular_damping=0.5)
            materials.assign(part, materials.random_principled(rng, part.name))
            self.pile.append(part)
        scatter.place_apart(rng, self.pile, self.hold)
        physics.settle(must_rest=False)
        lights.random_rig(rng, radius=(3, 5), elevation=(40, 80), power_w=(80, 220), size_m=(0.5, 2))

    def hold(self, rng: np.random.Generator, part: Any) -> None:
        """Propose a pose above the bin from which the part will fall."""
        part.location = scatter.in_box(rng, (-0.7, -0.7, 0.4), (0.7, 0.7, 3))
        part.rotation_euler = scatter.rotation(rng)

    def annotate(self, view: View) -> dict[str, Any]:
        """Describe each part, without keypoints; `visible_fraction` says how much of it can be seen."""
        return {"objects": [view.describe(part, part.name.split()[0], keypoints=()) for part in self.pile]}
