"""Number plates on cars: the corners of the plate and of each glyph, to train detection and reading.

compile-dataset examples/number_plates.py --shards 2 --samples-per-shard 6 --denoise
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from blender_jobs import materials, meshes, parts, scatter, stage
from blender_jobs.job import Category, Job
from blender_jobs.view import View

FIELD = {"top_left": (-0.26, 0.057, 0.003), "top_right": (0.26, 0.057, 0.003)}
FIELD |= {"bottom_right": (0.26, -0.057, 0.003), "bottom_left": (-0.26, -0.057, 0.003)}
SIDES = [*zip(FIELD, [*FIELD][1:] + [*FIELD][:1], strict=True)]
GLYPH_SIDES = [(f"glyph{at}_{start}", f"glyph{at}_{end}") for at in range(7) for start, end in SIDES]


@dataclass
class NumberPlates(Job):
    """The back of a parked car, whose plate is 2 to 3 m away."""

    categories = (Category("plate", [*FIELD], SIDES), Category("text", parts.glyph_names(7), GLYPH_SIDES))

    def setup(self) -> None:
        """Build a car in front of a house, and an empty plate with its blue band."""
        stage.ground(size_m=100, rgb=(0.14, 0.14, 0.15))
        self.car, house = (meshes.load(f"assets/{name}.glb", name) for name in ("car", "house"))
        house.location, house.rotation_euler.z = (14, 0, 0), np.pi / 2
        sizes = [(0.52, 0.114, 0.006), (0.045, 0.115, 0.0062)]
        self.plate = meshes.boxes("plate", [(0, 0, 0), (-0.2375, 0, 0)], sizes)
        self.plate.location, self.plate.rotation_euler = (-2.27, 0, 0.6), (np.pi / 2, 0, -np.pi / 2)
        for name, rgb in (("plate", (0.8, 0.8, 0.78)), ("band", (0.01, 0.06, 0.4))):
            self.plate.data.materials.append(materials.principled(name, rgb, coat=1))
        self.plate.data.polygons.foreach_set("material_index", [0] * 6 + [1] * 6)

    def randomize(self, rng: np.random.Generator) -> None:
        """Draw the number, the car's colour, the light and the view."""
        letters, digits = rng.choice([*"ABCDEFGHJKLMNPRSTUVWXYZ"], size=4), rng.integers(0, 10, size=3)
        self.number = "".join([*letters[:2], " ", *map(str, digits), " ", *letters[2:]])
        self.text = meshes.text("text", self.number, height_m=0.075, depth_m=0.001)
        self.text.parent, self.text.scale.x = self.plate, 0.43 / self.text.dimensions.x  # fit the plate
        self.text.location = 0.02, 0, 0.0031
        stage.paint(self.text, (0.01, 0.01, 0.01))
        color = materials.random_color(rng, saturation=(0, 0.6), value=(0.1, 0.9))
        self.car.material_slots["paint"].material = materials.principled("paint", color, coat=1)
        stage.sun(energy=4, elevation=rng.uniform(15, 50), azimuth=rng.uniform(110, 250))
        stage.sky(rgb=(0.6, 0.75, 1.0), strength=rng.uniform(0.3, 0.9))
        at = self.plate.location
        stage.camera(at=scatter.in_shell(rng, at, (1.6, 2.8), (3, 20), (145, 215)), look_at=at)

    def annotate(self, view: View) -> dict[str, Any]:
        """Describe the plate with its corners, and its text with those of each glyph."""
        plate = view.describe(self.plate, "plate", list(FIELD.values()), text=self.number)
        return {"objects": [plate, view.describe(self.text, "text", parts.glyphs(view, self.text), text=self.number)]}
