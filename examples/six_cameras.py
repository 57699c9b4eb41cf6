"""Six calibrated cameras on a car: a file holds K, distortion, R and t of each.

compile-dataset examples/six_cameras.py --shards 2 --samples-per-shard 6 --set calibration=my/rig.json
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from blender_jobs import assets, lens, materials, meshes, stage
from blender_jobs.categories import box_category
from blender_jobs.job import Job
from blender_jobs.view import View


@dataclass
class SixCameras(Job):
    """A street, seen in all directions."""

    calibration: Path = Path("assets/six_cameras.json")
    cameras = ("front_left", "front", "front_right", "back_left", "back", "back_right")
    categories = (box_category("car"),)

    def setup(self) -> None:
        """Set up the rig from OpenCV's calibration, in the frame of its car (x ahead, y left), and build a street."""
        rig = json.loads(assets.use(self.calibration).read_text())
        for name, given in rig["cameras"].items():
            camera = stage.camera(at=(0, 0, 1), name=name, distortion=given["distortion"])
            lens.set_intrinsics(camera, given["K"], rig["size"])
            lens.set_extrinsics(camera, given["R"], given["t"])
        stage.ground(size_m=400, rgb=(0.4, 0.38, 0.34))
        stage.paint(meshes.boxes("road", [(0, 2, 0)], (300, 12, 0.02)), (0.1, 0.1, 0.105), matte=True)
        stage.paint(meshes.boxes("line", [(x, 2, 0) for x in range(-150, 150, 6)], (3, 0.15, 0.03)), (0.8, 0.8, 0.8))
        self.car, self.house, self.tree = (meshes.load(f"assets/{of}.glb", of) for of in ("car", "house", "tree"))
        stage.sky(rgb=(0.55, 0.75, 1.0), strength=0.8)

    def randomize(self, rng: np.random.Generator) -> None:
        """Draw the sun, the houses and trees, and the cars: parked, oncoming, and in the own lane."""
        stage.sun(energy=4, elevation=rng.uniform(25, 60), azimuth=rng.uniform(0, 360))
        for x, side in ((x, side) for x in range(-66, 67, 12) for side in (-1, 1)):
            stage.copy(self.house, "house").location = x, 2 + 16 * side, rng.uniform(-3, 0)
            stage.copy(self.tree, "tree").location = x + rng.uniform(-4, 4), 2 + 9 * side, rng.uniform(-1.5, 0)
        self.cars = []
        for x, y in ((x, y) for x in range(-35, 36, 10) for y in (-3, 0, 4, 7) if rng.uniform() < 0.6):
            car = stage.copy(self.car, "car")
            car.location, car.rotation_euler.z = rng.normal((x, y, 0), (0.5, 0.1, 0)), np.pi * (y > 2)
            paint = car.material_slots["paint"]  # for this copy only
            paint.link, paint.material = "OBJECT", materials.random_principled(rng, "paint", metal=0, coated=1)
            self.cars.append(car)
        self.car.hide_render = self.house.hide_render = self.tree.hide_render = True

    def annotate(self, view: View) -> dict[str, Any]:
        """Describe the cars that are in this camera's image."""
        return {"objects": [view.describe(car, "car") for car in self.cars if view.bbox(car)[0][2]]}
