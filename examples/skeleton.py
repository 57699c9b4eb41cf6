"""People who walk: armatures with bodies, and their joints as keypoints, although these are under the skin.

compile-dataset examples/skeleton.py --shards 2 --samples-per-shard 6
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from mannequin import EDGES, KEYPOINTS, build

from blender_jobs import materials, parts, stage
from blender_jobs.job import Category, Job
from blender_jobs.view import View

RGB = {"left": (80, 230, 110), "right": (255, 140, 40)}
COLORS = [RGB.get(joint.split("_")[0], (70, 160, 255)) for joint in KEYPOINTS]


@dataclass
class Walkers(Job):
    """People, each with their own pace and stride."""

    people: int = 3
    frames: range = range(1, 31, 10)  # at 24 frames per second
    categories = (Category("person", KEYPOINTS, skeleton=EDGES, colors=COLORS),)

    def setup(self) -> None:
        """Build what never varies."""
        stage.ground(size_m=100, rgb=(0.3, 0.34, 0.22))
        stage.camera(at=(0, -6, 1.9), look_at=(0, 0, 0.9), lens_mm=55)
        stage.sky(rgb=(0.5, 0.7, 1.0), strength=0.7)

    def randomize(self, rng: np.random.Generator) -> None:
        """Draw who walks, where and how."""
        stage.sun(elevation=rng.uniform(30, 60), azimuth=rng.uniform(180, 360), angle=6)
        self.figures = [build(f"person{number}") for number in range(self.people)]
        self.gaits = rng.uniform((0.8, 0.3, 0.0), (1.2, 0.6, 1.0), size=(self.people, 3))  # Hz, radians, phase
        for number, (rig, body) in enumerate(self.figures):
            rig.location = 1.2 * (number - (self.people - 1) / 2), rng.uniform(-1.5, 1.0), 0.0
            rig.rotation_euler.z = rng.uniform(-np.pi, np.pi)
            materials.assign(body, materials.random_principled(rng, body.name, metal=0.0))

    def step(self, rng: np.random.Generator, frame: int) -> None:
        """Swing arms and legs: turn each bone about its x axis. Knees and elbows bend one way only."""
        for (rig, _), (pace, stride, start) in zip(self.figures, self.gaits, strict=True):
            for side, phase in (("left", start), ("right", start + 0.5)):
                angle = 2 * np.pi * (pace * frame / 24 + phase)
                back, lift = stride * np.sin(angle), 0.7 * stride * (1 - np.cos(angle))
                for joint, turn in {"knee": back, "ankle": lift, "elbow": -back, "wrist": -0.2 - stride}.items():
                    rig.pose.bones[f"{side}_{joint}"].rotation_euler.x = turn

    def annotate(self, view: View) -> dict[str, Any]:
        """Describe each body with its joints: the ends (1.0) of the bones that are named after them."""
        ends = {joint: (joint, 1.0) for joint in KEYPOINTS}
        people = [(body, parts.bones(view, rig, ends)) for rig, body in self.figures]
        return {"objects": [view.describe(body, "person", joints, self_tolerance_m=0.2) for body, joints in people]}
