"""Your own scene in a .blend: the things on the table get other places, materials and light, and another view.

compile-dataset examples/blend_scene.py --shards 2 --samples-per-shard 6
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bpy
import numpy as np

from blender_jobs import materials, scatter, stage
from blender_jobs.categories import box_category
from blender_jobs.job import Job
from blender_jobs.view import View

ALONE = {"bowl": "bowl", "bottle": "bottle", "mug": "mug", "candle": "candle", "apple": "fruit", "lemon": "fruit"}
IN_THE_BOWL = {f"apple in the bowl {number}": "fruit" for number in range(3)}


@dataclass
class StillLife(Job):
    """A bowl of fruit, a bottle, a mug and a candle, rearranged on their table."""

    blend: Path = Path("assets/still_life.blend")
    spread: float = 0.28  # metres from the middle of the table
    categories = tuple(box_category(name) for name in dict.fromkeys(ALONE.values()))

    def setup(self) -> None:
        """Find the objects that will change, by their names in the opened file."""
        self.things = {bpy.data.objects[name]: category for name, category in (ALONE | IN_THE_BOWL).items()}
        self.alone = [bpy.data.objects[name] for name in ALONE]
        self.lamp, self.camera = bpy.data.objects["key"], bpy.context.scene.camera

    def randomize(self, rng: np.random.Generator) -> None:
        """Draw free places, two materials, the light and the camera."""
        scatter.place_apart(rng, self.alone, self.put)
        for name in ("bowl", "mug"):
            materials.assign(bpy.data.objects[name], materials.random_principled(rng, name, metal=0.2))
        self.lamp.location = scatter.in_shell(rng, radius=(1.2, 1.6), elevation=(25, 70), azimuth=(130, 300))
        stage.point_at(self.lamp, (0, 0, 0))
        self.lamp.data.color = materials.random_color(rng, saturation=(0, 0.35), value=(1, 1))
        self.camera.location = scatter.in_shell(rng, radius=(1.1, 1.35), elevation=(22, 40), azimuth=(250, 290))
        stage.point_at(self.camera, (0, 0, 0.06))

    def put(self, rng: np.random.Generator, thing: Any) -> None:
        """Propose a place on the table; the apples are children of the bowl and move with it."""
        away, azimuth = self.spread * np.sqrt(rng.uniform()), rng.uniform(0, 2 * np.pi)
        thing.location.xy = away * np.cos(azimuth), away * np.sin(azimuth)
        thing.rotation_euler.z = rng.uniform(0, 2 * np.pi)

    def annotate(self, view: View) -> dict[str, Any]:
        """Describe each thing by its 2D and 3D box."""
        return {"objects": [view.describe(thing, category) for thing, category in self.things.items()]}
