"""Walking figures: an armature built in code, a body that it moves, its joints as keypoints with a skeleton.

compile-dataset examples/skeleton.py --shards 2 --samples-per-shard 6
"""

from dataclasses import dataclass

import bpy
import numpy as np

from blender_jobs import materials, parts, stage
from blender_jobs.job import Category, Job

# joint: (the one before it, its place, how thick the body is there); metres, looking along -y
BODY = {"pelvis": ("", (0, 0, 0.97), 0.13), "neck": ("pelvis", (0, 0, 1.47), 0.065)}
BODY |= {"head": ("neck", (0, -0.02, 1.64), 0.12), "crown": ("head", (0, 0, 1.78), 0.09)}
for side, x in (("left", 1), ("right", -1)):
    arm = [("shoulder", (0.2 * x, 0, 1.4), 0.075), ("elbow", (0.27 * x, 0.02, 1.13), 0.05)]
    leg = [("hip", (0.1 * x, 0, 0.9), 0.1), ("knee", (0.11 * x, -0.01, 0.49), 0.07)]
    leg += [("ankle", (0.11 * x, 0.02, 0.09), 0.05), ("toes", (0.13 * x, -0.15, 0.04), 0.045)]
    for start, limb in (("neck", [*arm, ("wrist", (0.3 * x, -0.04, 0.88), 0.045)]), ("pelvis", leg)):
        for name, place, thickness in limb:
            BODY[f"{side}_{name}"], start = (start, place, thickness), f"{side}_{name}"
BONES = [(start, joint) for joint, (start, _, _) in BODY.items() if start]
