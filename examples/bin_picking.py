"""Parts for a robot to pick fall into a bin and come to rest: poses, depth, masks, and how much of each is visible.

compile-dataset examples/bin_picking.py --shards 2 --samples-per-shard 6 --set parts=40
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from blender_jobs import lights, materials, meshes, physics, scatter, stage
from blender_jobs.job import Job
from blender_jobs.view import View

PARTS = {  # radius and height in decimetres: physics does not like small things
    "bolt": [(0, -0.8), (0.16, -0.8), (0.18, -0.76), (0.18, 0.5), (0.36, 0.5), (0.36, 0.76), (0.32, 0.8), (0, 0.8)],
    "flange": [(0.2, -0.3), (0.7, -0.3), (0.7, -0.1), (0.34, -0.1), (0.34, 0.4), (0.2, 0.4), (0.2, -0.3)],
    "nut": [(0.22, -0.2), (0.44, -0.2), (0.5, -0.14), (0.5, 0.14), (0.44, 0.2), (0.22, 0.2), (0.22, -0.2)],
}


@dataclass
class BinPicking(Job):
    """A pile of metal parts at rest in a bin."""

    parts: int = 26
    categories = tuple(PARTS)
    passes = ("segmentation", "depth")

    def setup(self) -> None:
        """Build what never varies: floor and walls that only stop falling things, a camera and some light."""
        stage.ground(rgb=(0.12, 0.13, 0.15))
        for x, y in ((2.4, 0), (-2.4, 0), (0, 2.4), (0, -2.4)):
            wall = stage.cube("wall", physics="passive")
            wall.location, wall.scale = (x, y, 0.8), (0.1, 4.9, 1.6) if x else (4.7, 0.1, 1.6)
            stage.paint(wall, (0.03, 0.12, 0.4), roughness=0.4)
        stage.camera(at=(0, -3.5, 9.5), look_at=(0, -0.15, 0.3), lens_mm=50)
        stage.sky(rgb=(0.9, 0.95, 1.0), strength=0.5)

    def randomize(self, rng: np.random.Generator) -> None:
        """Drop the parts without touching each other, wait until they rest, and draw the lamps."""
        self.pile = [meshes.lathe(k, PARTS[k], 6 if k == "nut" else 48) for k in rng.choice([*PARTS], self.parts)]
        for part in self.pile:
            stage.rigid_body(part, shape="CONVEX_HULL", friction=0.6, angular_damping=0.5)
            color = materials.random_color(rng, hue=(0.05, 0.14), saturation=(0, 0.5), value=(0.7, 0.9))
            materials.assign(part, materials.principled("metal", color, metallic=1.0, roughness=rng.uniform(0.2, 0.4)))
        scatter.place_apart(rng, self.pile, self.hold)
        physics.settle(must_rest=False)
        lights.random_rig(rng, radius=(6, 9), elevation=(40, 80), power_w=(500, 1000), size_m=(1, 4))

    def hold(self, rng: np.random.Generator, part: Any) -> None:
        """Propose a pose above the bin for the part to fall from."""
        part.location, part.rotation_euler = scatter.in_box(rng, (-1.5, -1.5, 1), (1.5, 1.5, 5)), scatter.rotation(rng)

    def annotate(self, view: View) -> dict[str, Any]:
        """Describe each part, without keypoints; `visible_fraction` says how much of it is visible."""
        return {"objects": [view.describe(part, part.name.split(".")[0], keypoints=()) for part in self.pile]}
