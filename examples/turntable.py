"""A mesh file on a turntable, seen from all sides: its 6-DoF pose, and the point of the object in each pixel.

compile-dataset examples/turntable.py --shards 2 --samples-per-shard 8 --set mesh=my/part.stl
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from blender_jobs import lights, materials, meshes, scatter, stage
from blender_jobs.categories import box_category
from blender_jobs.job import Job
from blender_jobs.view import View


@dataclass
class Turntable(Job):
    """An object on a turntable in a studio. Each episode has another view, material and light; each frame turns it."""

    mesh: Path = Path("assets/monkey.ply")
    turns: int = 8
    categories = (box_category("thing"),)
    passes = ("depth", "nocs")

    @property
    def frames(self) -> range:  # type: ignore[override]
        """One frame for each turn."""
        return range(1, self.turns + 1)

    def setup(self) -> None:
        """Load the object, scale it to one metre whatever the file's unit, and put it on the table."""
        self.thing = meshes.load(self.mesh, "thing", normalize=1.0)
        self.thing.modifiers.new("smooth", "SUBSURF")
        self.thing.location.z = 0.08 + self.thing.dimensions.z / 2
        table = meshes.cylinder("table", radius_m=0.75, depth_m=0.08, segments=96)
        table.location.z = 0.04
        stage.paint(table, (0.35, 0.35, 0.35), matte=True)
        stage.ground(size_m=200, rgb=(0.25, 0.27, 0.3))
        stage.sky(rgb=(1.0, 1.0, 1.0), strength=0.5)

    def randomize(self, rng: np.random.Generator) -> None:
        """Draw the view, the material and the lamps."""
        middle = self.thing.location
        stage.camera(at=scatter.in_shell(rng, middle, (2.3, 2.8), elevation=(5, 45)), look_at=middle)
        lights.random_rig(rng, middle, radius=(2.5, 4), elevation=(25, 75), power_w=(80, 180), size_m=(1, 3))
        materials.assign(self.thing, materials.random_principled(rng))
        self.start = rng.uniform(0, 2 * np.pi)

    def step(self, rng: np.random.Generator, frame: int) -> None:
        """Turn the table on."""
        self.thing.rotation_euler.z = self.start + 2 * np.pi * frame / self.turns

    def annotate(self, view: View) -> dict[str, Any]:
        """Describe the object; `pose` takes it to the camera's frame."""
        return {"objects": [view.describe(self.thing, "thing")]}
