"""A herd from one sheep: hundreds of rendered copies, each with its own id, pose and box.

compile-dataset examples/herd.py --shards 2 --samples-per-shard 6 --set count=400
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from blender_jobs import meshes, scatter, stage
from blender_jobs.job import Job
from blender_jobs.view import View

GRID = np.stack(np.meshgrid(np.arange(-40, 40, 1.9), np.arange(-40, 40, 1.9)), axis=2).reshape(-1, 2)


def height(x: Any, y: Any) -> Any:
    """Return how high the meadow is, metres."""
    return 1.6 * np.sin(x / 13) * np.cos(y / 17) + 0.5 * np.sin(x / 5 + y / 7)


@dataclass
class Herd(Job):
    """Sheep on a meadow: Blender puts a copy on each face of a mesh that is not shown."""

    count: int = 150
    categories = ("sheep",)
    passes = ("segmentation",)

    def setup(self) -> None:
        """Build a meadow of 2 m squares, load the sheep, and set the light."""
        x, y = (axis.ravel() for axis in np.meshgrid(np.arange(-150, 151, 2), np.arange(-150, 151, 2)))
        faces = [(at, at + 1, at + 152, at + 151) for at in range(len(x) - 152) if at % 151 < 150]
        meadow = stage.mesh("meadow", np.stack([x, y, height(x, y)], axis=1).tolist(), faces)
        meadow.data.polygons.foreach_set("use_smooth", [True] * len(faces))
        stage.paint(meadow, (0.16, 0.21, 0.05), matte=True)
        self.sheep = meshes.load("assets/sheep.glb", "sheep")
        stage.sky(rgb=(0.5, 0.7, 1.0), strength=0.7)

    def randomize(self, rng: np.random.Generator) -> None:
        """Draw the places of the sheep, most of them in the middle, the sun and the view."""
        places = GRID + rng.uniform(-0.5, 0.5, size=GRID.shape)
        places = places[np.argsort(np.hypot(*places.T) + rng.exponential(7, size=len(places)))[: self.count]]
        turns = rng.normal(rng.uniform(0, 2 * np.pi), 0.7, size=len(places))[:, None] + np.arange(4) * np.pi / 2
        sizes = rng.uniform(0.8, 1.1, size=(len(places), 1)) / np.sqrt(2)
        x, y = places[:, :1] + sizes * np.cos(turns), places[:, 1:] + sizes * np.sin(turns)
        corners = np.stack([x, y, height(x, y)], axis=2).reshape(-1, 3)
        herd = stage.mesh("herd", corners.tolist(), np.arange(len(corners)).reshape(-1, 4).tolist())
        herd.instance_type, herd.use_instance_faces_scale, herd.show_instancer_for_render = "FACES", True, False
        self.sheep.parent = herd
        stage.sun(energy=5, elevation=rng.uniform(20, 50), azimuth=rng.uniform(0, 360), angle=1)
        stage.camera(scatter.in_shell(rng, (0, 0, 0), (22, 34), elevation=(14, 30)), look_at=(0, 0, 0.5), lens_mm=40)

    def annotate(self, view: View) -> dict[str, Any]:
        """Describe the copies that are in the image."""
        return {"objects": [view.describe(one, "sheep", ()) for one in view.copies(self.sheep) if view.bbox(one)[0][2]]}
