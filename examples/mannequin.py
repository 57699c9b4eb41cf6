"""A figure for skeleton.py, built in code: an armature, and a body that it moves.

A job may import modules from its folder; they become part of the plan, too.
"""

from __future__ import annotations

from typing import Any

import bpy

from blender_jobs import stage

JOINTS = {  # the joint before each, its place, and the body's radius there, in metres; the figure looks along -y
    "pelvis": ("", (0.0, 0.0, 0.97), 0.13),
    "neck": ("pelvis", (0.0, 0.0, 1.47), 0.065),
    "head": ("neck", (0.0, -0.02, 1.64), 0.12),
    "crown": ("head", (0.0, 0.0, 1.78), 0.09),
    "left_shoulder": ("neck", (0.2, 0.0, 1.4), 0.075),
    "left_elbow": ("left_shoulder", (0.27, 0.02, 1.13), 0.05),
    "left_wrist": ("left_elbow", (0.3, -0.04, 0.88), 0.04),
    "left_hand": ("left_wrist", (0.31, -0.07, 0.76), 0.045),
    "left_hip": ("pelvis", (0.1, 0.0, 0.9), 0.1),
    "left_knee": ("left_hip", (0.11, -0.01, 0.49), 0.07),
    "left_ankle": ("left_knee", (0.11, 0.02, 0.09), 0.05),
    "left_toes": ("left_ankle", (0.13, -0.15, 0.04), 0.045),
}
for joint, (start, (x, y, z), radius) in list(JOINTS.items())[4:]:
    JOINTS[joint.replace("left", "right")] = (start.replace("left", "right"), (-x, y, z), radius)
BONES = [(start, joint) for joint, (start, _, _) in JOINTS.items() if start]
KEYPOINTS = tuple(joint for joint in JOINTS if not joint.endswith(("crown", "hand", "toes")))
"""The joints, without the tips: these end up just outside the rounded body."""
EDGES = [bone for bone in BONES if bone[1] in KEYPOINTS]


def build(name: str) -> tuple[Any, Any]:
    """Return a new armature, whose bones are named after the joints at their ends, and the body."""
    rig = stage.link(bpy.data.objects.new(f"{name}'s rig", bpy.data.armatures.new(name)))
    bpy.context.view_layer.objects.active = rig
    bpy.ops.object.mode_set(mode="EDIT")
    for joint, (start, place, _) in JOINTS.items():
        bone = rig.data.edit_bones.new(joint)
        bone.tail, bone.parent = place, rig.data.edit_bones.get(start)
        bone.head = JOINTS[start][1] if start else (0.0, 0.0, 0.0)
    bpy.ops.object.mode_set(mode="OBJECT")
    for bone in rig.pose.bones:
        bone.rotation_mode = "XYZ"
    return rig, _body(name, rig)


def _body(name: str, rig: Any) -> Any:
    """Wrap Blender's skin around the bones; each vertex is a joint and moves with the bone that ends there."""
    number = {joint: at for at, joint in enumerate(JOINTS)}
    data = bpy.data.meshes.new(name)
    data.from_pydata([place for _, place, _ in JOINTS.values()], [(number[a], number[b]) for a, b in BONES], [])
    body = stage.link(bpy.data.objects.new(name, data))
    body.parent = rig
    body.modifiers.new("pose", "ARMATURE").object = rig
    body.modifiers.new("skin", "SKIN").use_smooth_shade = True
    smooth = body.modifiers.new("smooth", "SUBSURF")
    smooth.levels = smooth.render_levels = 2
    for joint, vertex in zip(JOINTS, data.skin_vertices[0].data, strict=True):
        vertex.radius = JOINTS[joint][2], JOINTS[joint][2]
        body.vertex_groups.new(name=joint).add([number[joint]], 1.0, "REPLACE")
    data.skin_vertices[0].data[0].use_root = True
    return body
