"""All .obj, .ply, .stl and .glb meshes in a folder: 6-DoF poses, 3D boxes and object coordinates (NOCS).

compile-dataset examples/mixed_meshes.py --shards 2 --samples-per-shard 6 --set folder=my/meshes
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from blender_jobs import assets, lights, materials, meshes, physics, scatter, stage
from blender_jobs.categories import box_category
from blender_jobs.job import Job
from blender_jobs.view import View


@dataclass
class MixedMeshes(Job):
    """Things thrown on a table, all of the same size, whatever unit their files use."""

    folder: Path = Path("assets/toys")
    each: int = 2
    categories = (box_category("thing"),)
    passes = ("segmentation", "nocs")

    def setup(self) -> None:
        """Build a table, and load each file once."""
        stage.ground(size_m=60, rgb=(0.35, 0.2, 0.11))
        files = assets.listing(self.folder, ("*.obj", "*.ply", "*.stl", "*.glb"))
        self.models = [meshes.load(file, file.stem, normalize=1.0) for file in files]
        stage.sky(rgb=(1.0, 0.95, 0.9), strength=0.4)

    def randomize(self, rng: np.random.Generator) -> None:
        """Throw some of each, give a material to those that have none, and draw lamps and view."""
        self.things = []
        for model in self.models:
            if not model.data.materials:
                materials.assign(model, materials.random_principled(rng, model.name, metal=0.3, coated=0.6))
            stage.rigid_body(model, shape="CONVEX_HULL", friction=0.8, angular_damping=0.7)
            self.things += [model, *(stage.copy(model, model.name) for _ in range(1, self.each))]
        scatter.place_apart(rng, self.things, self.hold)
        physics.settle(must_rest=False)
        lights.random_rig(rng, radius=(4, 6), elevation=(35, 75), power_w=(200, 500), size_m=(0.5, 2))
        stage.camera(at=scatter.in_shell(rng, (0, 0, 0.3), (6.5, 7.5), (25, 55)), look_at=(0, 0, 0.3), lens_mm=50)

    def hold(self, rng: np.random.Generator, thing: Any) -> None:
        """Propose a pose above the table for the thing to fall from."""
        thing.location = scatter.in_box(rng, (-1.4, -1.4, 0.9), (1.4, 1.4, 1.6))
        thing.rotation_euler = scatter.rotation(rng)

    def annotate(self, view: View) -> dict[str, Any]:
        """Describe each thing; its name begins with that of its file."""
        return {"objects": [view.describe(thing, "thing", file=thing.name.split(".")[0]) for thing in self.things]}
