"""A car park seen from a drone: small objects far below, each also with a box that is rotated like the car.

compile-dataset examples/drone.py --shards 2 --samples-per-shard 6 --set taken=0.9
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from blender_jobs import materials, meshes, scatter, stage
from blender_jobs.job import Category, Job
from blender_jobs.view import View

FOOTPRINT = [(2.25, 0.95, 0), (2.25, -0.95, 0), (-2.25, -0.95, 0), (-2.25, 0.95, 0)]  # in the car's own frame
CORNERS = ("front_left", "front_right", "rear_right", "rear_left")
ROWS = {-19: 0.5, -8: -0.5, 8: 0.5, 19: -0.5}  # y, and where the cars' fronts point, in half turns
BAYS = [(x, y, turn * np.pi) for y, turn in ROWS.items() for x in np.arange(-36, 37, 3)]


@dataclass
class Drone(Job):
    """Parked cars, seen from 45 to 70 m."""

    taken: float = 0.65  # of the bays
    categories = (Category("car", CORNERS, skeleton=[(CORNERS[at - 1], CORNERS[at]) for at in range(4)]),)
    passes = ("segmentation",)

    def setup(self) -> None:
        """Build grass, asphalt, the lines between the bays, and one car and one tree to copy."""
        stage.ground(size_m=600, rgb=(0.1, 0.13, 0.045)).location.z = -0.1
        stage.paint(meshes.boxes("asphalt", [(0, 0, -0.1)], (82, 50, 0.2)), (0.1, 0.1, 0.105), matte=True)
        stage.paint(meshes.boxes("lines", [(x + 1.5, y, 0) for x, y, _ in BAYS], (0.14, 5.2, 0.03)), (0.7, 0.7, 0.67))
        self.car, self.tree = (meshes.load(f"assets/{name}.glb", name) for name in ("car", "tree"))
        stage.sky(rgb=(0.6, 0.75, 1.0), strength=0.6)

    def randomize(self, rng: np.random.Generator) -> None:
        """Draw the sun, the flight, the trees, and the cars with their colours, none of them parked quite straight."""
        stage.sun(energy=5, elevation=rng.uniform(25, 60), azimuth=rng.uniform(0, 360), angle=0.6)
        target = scatter.in_box(rng, (-18, -12, 0), (18, 12, 0))
        stage.camera(at=scatter.in_shell(rng, target, (45, 70), elevation=(45, 85)), look_at=target, lens_mm=35)
        for x, y, z in rng.uniform(-1, 1, size=(60, 3)):
            stage.copy(self.tree, "tree").location = 70 * x, 25 * y + np.copysign(30, y), z - 1
        self.cars = []
        for x, y, heading in (bay for bay in BAYS if rng.uniform() < self.taken):
            car = stage.copy(self.car, f"car at {x:g}, {y:g}")
            car.location, car.rotation_euler.z = rng.normal((x, y, 0), (0.12, 0.25, 0)), rng.normal(heading, 0.03)
            paint = car.material_slots["paint"]
            color = materials.random_color(rng, saturation=(0, 0.8 if rng.uniform() < 0.4 else 0.1), value=(0.1, 0.95))
            paint.link, paint.material = "OBJECT", materials.principled("paint", color, coat=1)  # only this copy
            self.cars.append(car)
        self.car.hide_render = self.tree.hide_render = True

    def annotate(self, view: View) -> dict[str, Any]:
        """Describe the cars in the image. Their corners are on the ground, hidden by less than 4 m of the car above."""
        seen = [car for car in self.cars if view.bbox(car)[0][2]]
        return {"objects": [view.describe(car, "car", FOOTPRINT, self_tolerance_m=4) for car in seen]}
