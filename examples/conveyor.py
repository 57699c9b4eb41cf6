"""Goods on a conveyor belt, frame by frame: boxes and masks whose ids stay with their item, and optical flow.

compile-dataset examples/conveyor.py --shards 2 --samples-per-shard 6 --set frames=1:25:4
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from blender_jobs import lights, materials, meshes, stage
from blender_jobs.job import Job
from blender_jobs.view import View

BOTTLE = [(0, 0), (0.034, 0), (0.036, 0.01), (0.036, 0.13), (0.014, 0.18), (0.014, 0.2), (0.016, 0.22), (0, 0.22)]


@dataclass
class Conveyor(Job):
    """Cartons and bottles in two lanes."""

    items: int = 14
    frames: range = range(1, 28, 9)  # of 24 a second
    categories = ("carton", "bottle")
    passes = ("segmentation", "flow")

    def setup(self) -> None:
        """Build a belt of slats between two rails, the camera, and a lamp on the far side."""
        stage.ground(size_m=40, rgb=(0.35, 0.36, 0.37)).location.z = -0.8
        self.belt = meshes.boxes("belt", [(x, 0, -0.01) for x in np.arange(-3, 2, 0.06)], (0.055, 0.5, 0.02))
        stage.paint(self.belt, (0.025, 0.04, 0.05), roughness=0.45)
        stage.paint(meshes.boxes("rails", [(0, -0.28, 0), (0, 0.28, 0)], (6, 0.03, 0.09)), (0.75, 0.76, 0.78), 0.3, 1.0)
        stage.camera(at=(-0.2, -1.1, 1.05), look_at=(-0.02, 0.02, 0.03), lens_mm=46)
        lights.area((0.7, 0.4, 1.5), power_w=50, size_m=0.5)
        stage.sky(rgb=(0.9, 0.95, 1.0), strength=0.6)

    def randomize(self, rng: np.random.Generator) -> None:
        """Draw the goods, their places and the speed of the belt. They are its children, so they move with it."""
        self.goods: list[Any] = []
        for at in range(self.items):
            if rng.uniform() < 0.5:
                x, y, z = rng.uniform((0.12, 0.09, 0.06), (0.2, 0.13, 0.13))
                item = meshes.boxes(f"carton {at}", [(0, 0, z / 2)] * 2, [(x, y, z), (x + 0.001, 0.03, z + 0.001)])
                for color in ((0.45, 0.28, 0.14), (0.62, 0.5, 0.32)):  # of the carton, and of the tape around it
                    item.data.materials.append(materials.principled("paper", rng.uniform(0.7, 1.1) * np.array(color)))
                item.data.polygons.foreach_set("material_index", [0] * 6 + [1] * 6)
            else:
                item = meshes.lathe(f"bottle {at}", BOTTLE)
                materials.assign(item, materials.random_principled(rng, item.name, metal=0.3, coated=0.8))
            item.location = 0.13 * at - 1.3, rng.normal(0.12 * (-1) ** at, 0.015), 0
            item.rotation_euler.z, item.parent = rng.uniform(0, 2 * np.pi), self.belt
            self.goods.append(item)
        stage.move(self.belt, {1: (0, 0, 0), 49: (2 * rng.uniform(0.2, 0.5), 0, 0)})  # in 48 frames

    def annotate(self, view: View) -> dict[str, Any]:
        """Describe all goods, in view or not, so that each keeps its id in all frames of an episode."""
        return {"objects": [view.describe(item, item.name.split()[0], keypoints=()) for item in self.goods]}
