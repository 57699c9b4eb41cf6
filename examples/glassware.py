"""Glass, which depth cameras miss: masks, depth and normals of glasses, carafes and flasks.

compile-dataset examples/glassware.py --shards 2 --samples-per-shard 6 --denoise --render-samples 64
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import bpy
import numpy as np

from blender_jobs import lights, materials, meshes, scatter, stage
from blender_jobs.job import Job
from blender_jobs.view import View

PROFILES = {  # radius and height, cm: from the foot up to the rim, then inside down to the axis
    "tumbler": [(0, 0), (3, 0), (3.4, 0.5), (3.9, 9.5), (3.7, 9.5), (3.2, 1), (2.8, 0.8), (0, 0.8)],
    "goblet": [(0, 0), (3.5, 0), (0.4, 1), (0.4, 7), (3, 9), (4, 13), (3, 18), (2.8, 18), (3.8, 13), (2.8, 9), (0, 9)],
    "carafe": [(0, 0), (6, 0), (6, 7), (2.2, 18), (3.2, 23), (3, 23), (2, 18), (5.7, 7), (5.7, 0.6), (0, 0.6)],
    "flask": [(0, 0), (5, 0), (4.9, 0.8), (1.5, 9), (1.5, 13), (1.9, 13), (1.3, 13), (1.3, 9), (4.5, 0.7), (0, 0.4)],
}


@dataclass
class Glassware(Job):
    """Glass on a table, clear or tinted."""

    things: int = 7  # up to 12
    categories = tuple(PROFILES)
    passes = ("segmentation", "depth", "normals")

    def setup(self) -> None:
        """Build a striped table, and let light pass through many surfaces."""
        cycles = bpy.context.scene.cycles
        cycles.max_bounces, cycles.transmission_bounces, cycles.caustics_refractive = 16, 16, True
        stage.ground(size_m=20, rgb=(0.6, 0.55, 0.48))
        stage.paint(
            meshes.boxes("stripes", [(x / 10, 0, 0) for x in range(-8, 9)], (0.025, 9, 0.001)), (0.16, 0.2, 0.3)
        )
        stage.sky(rgb=(0.9, 0.95, 1.0), strength=0.6)

    def randomize(self, rng: np.random.Generator) -> None:
        """Draw the glasses and their places, a lamp at the back, and the view."""
        kinds = rng.permutation(np.resize(self.categories, self.things))
        self.glasses = [meshes.lathe(kind, rng.uniform(0.0085, 0.0115) * np.array(PROFILES[kind])) for kind in kinds]
        cells = rng.permutation([(x, y, 0) for x in (-0.21, -0.07, 0.07, 0.21) for y in (-0.15, 0, 0.15)])
        for glass, cell in zip(self.glasses, cells[: self.things], strict=True):
            glass.location = rng.normal(cell, (0.006, 0.006, 0))
            glass.modifiers.new("smooth", "SUBSURF").render_levels = 1
            tint = materials.random_color(rng, saturation=(0, rng.choice([0.03, 0.03, 0.5])), value=(0.9, 1))
            materials.assign(glass, materials.glass("glass", tint))
        lights.area(scatter.in_shell(rng, (0, 0, 0), (1, 1.3), (30, 55), (30, 150)), power_w=25, size_m=0.7)
        stage.camera(scatter.in_shell(rng, (0, 0, 0), (0.95, 1.1), (15, 35), (255, 285)), look_at=(0, 0, 0.08))

    def annotate(self, view: View) -> dict[str, Any]:
        """Describe each glass, without keypoints: it is round."""
        return {"objects": [view.describe(glass, glass.name.split(".")[0], ()) for glass in self.glasses]}
