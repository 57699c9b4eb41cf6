"""A robot arm that reaches for things: joints as keypoints, joint angles, and masks of the arm and the things.

compile-dataset examples/robot_arm.py --shards 2 --samples-per-shard 8 --set things=10
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from blender_jobs import lights, meshes, rigs, scatter, stage
from blender_jobs.job import Job
from blender_jobs.rigs import Joint
from blender_jobs.view import View

ARM = [  # offsets in metres, limits in degrees, or metres for the jaws, which slide
    Joint("waist", axis=(0, 0, 1), offset=(0, 0, 0.16), limits=(-170, 170)),
    Joint("shoulder", axis=(0, 1, 0), offset=(0, 0, 0.18), limits=(-40, 50)),
    Joint("elbow", axis=(0, 1, 0), offset=(0, 0, 0.48), limits=(40, 110)),
    Joint("wrist", axis=(0, 1, 0), offset=(0, 0, 0.4), limits=(10, 80)),
    Joint("jaw1", (0, 1, 0), (0, 0, 0.2), (0.01, 0.06), "prismatic", points={"tip1": (0, 0, 0.1)}),
    Joint("jaw2", (0, -1, 0), (0, 0, 0.2), (0.01, 0.06), "prismatic", parent="wrist", points={"tip2": (0, 0, 0.1)}),
]


@dataclass
class RobotArm(Job):
    """An arm on a bench, moving from one pose to another."""

    things: int = 6
    frames: range = range(1, 50, 16)
    categories = (rigs.category("arm", ARM), "thing")
    passes = ("segmentation",)

    def setup(self) -> None:
        """Build the arm, the floor and some light."""
        self.arm = rigs.chain("arm", ARM, radius_m=0.045, rgb=(0.75, 0.75, 0.72))
        stage.ground(size_m=60, rgb=(0.16, 0.2, 0.24))
        stage.sky(rgb=(0.85, 0.92, 1.0), strength=0.3)

    def randomize(self, rng: np.random.Generator) -> None:
        """Draw two poses, the things around the arm, the lamps and the view."""
        self.arm.move({frame: self.arm.randomize(rng) for frame in (1, 49)}, "BEZIER")
        self.near = meshes.distractors(rng, self.things, (0, 0, 0), (0, 0, 0), (0.08, 0.22), "thing")
        scatter.place_apart(rng, self.near, self.put, others=[self.arm.root])
        lights.random_rig(rng, (0, 0, 0.5), radius=(2, 4), elevation=(30, 70), power_w=(30, 80), size_m=(0.5, 2))
        stage.camera(at=scatter.in_shell(rng, (0, 0, 0.5), (2.3, 2.8), (8, 40)), look_at=(0, 0, 0.5), lens_mm=42)

    def put(self, rng: np.random.Generator, thing: Any) -> None:
        """Propose a place on the floor, but not under the arm."""
        thing.rotation_euler = 0, 0, rng.uniform(0, 2 * np.pi)
        thing.location = scatter.in_shell(rng, (0, 0, thing.dimensions.z / 2), (0.35, 1), (0, 0))

    def annotate(self, view: View) -> dict[str, Any]:
        """Describe the arm as one object, with the joints inside its links, and the things."""
        arm = view.describe(self.arm.root, "arm", self.arm.keypoints(view), members="children", self_tolerance_m=0.12)
        return {"objects": [arm, *(view.describe(it, "thing", ()) for it in self.near)], "joints": self.arm.state(view)}
