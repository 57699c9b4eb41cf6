"""The job of `scripts/sweep`: the objects in a .blend, seen by its own camera or by one that has them all in view."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import bpy
import numpy as np
from mathutils import Vector

from blender_jobs import parts, stage
from blender_jobs.job import Job
from blender_jobs.view import View

SURFACES = {"MESH", "CURVE", "SURFACE", "META", "FONT", "CURVES", "POINTCLOUD", "VOLUME", "GREASEPENCIL"}
VERTICES = 6
"""How many vertices of a mesh become keypoints, in addition to the corners of its bounding box."""


@dataclass
class Sweep(Job):
    """One sample of a .blend: its largest objects and copies."""

    most: int = 12
    """How many are described."""
    copies_each: int = 3
    """How many copies of one object may be among them."""
    passes = ("depth", "segmentation")

    def setup(self) -> None:
        """Make sure that there is a camera."""
        scene = bpy.context.scene
        self.framed = scene.camera is None or scene.camera.type != "CAMERA" or scene.camera.data.type == "PANO"
        if self.framed:
            frame_all(scene)

    def randomize(self, rng: np.random.Generator) -> None:
        """Change nothing."""

    def annotate(self, view: View) -> dict[str, Any]:
        """Describe the largest, and add what the checks need to know."""
        subjects = sorted(self.subjects(view), key=lambda found: -found[0])[: self.most]
        return {
            "objects": [described(view, subject) for _, subject in subjects],
            "framed": self.framed,
            "holdouts": any(hides_as_holdout()),
            "scale_length": float(bpy.context.scene.unit_settings.scale_length),
        }

    def subjects(self, view: View) -> Iterator[tuple[float, Any]]:
        """Yield what can be described and the size of its box in the image, if above zero, in a fixed order."""
        for obj in sorted(bpy.data.objects, key=lambda obj: obj.name_full):
            own = [obj] if obj.type in SURFACES and view.sees(obj) else []
            for subject in [*own, *view.copies(obj)[: self.copies_each]]:
                _, _, width, height = view.bbox(subject)[0]
                if width * height > 0:
                    yield width * height, subject


def described(view: View, subject: Any) -> dict[str, Any]:
    """An annotation with the corners of the box as keypoints, and some vertices of a mesh."""
    obj = subject
    if not (isinstance(obj, bpy.types.Object) and obj.type == "MESH" and obj.data.vertices):
        return view.describe(subject, "thing")
    count = len(obj.data.vertices)
    chosen = sorted({at * (count - 1) // (VERTICES - 1) for at in range(VERTICES)})
    try:
        vertices = parts.vertices(view, obj, {f"vertex{number}": number for number in chosen})
    except ValueError:  # its modifiers leave fewer
        return view.describe(obj, "thing")
    return view.describe(obj, "thing", parts.corners(view, obj) + vertices)


def frame_all(scene: bpy.types.Scene) -> None:
    """Give the scene a camera that has all its surfaces in view, from the front, the right and above."""
    bpy.context.view_layer.update()
    corners = [
        obj.matrix_world @ Vector(corner)
        for obj in scene.objects
        if obj.type in SURFACES and not obj.hide_render
        for corner in obj.bound_box
    ]
    places = np.array(corners, dtype=np.float64) if corners else np.array([[-1.0, -1, -1], [1, 1, 1]])
    centre = (places.min(axis=0) + places.max(axis=0)) / 2
    radius = max(float(np.linalg.norm(places - centre, axis=1).max()), 1e-4)
    towards = np.array([0.45, -0.8, 0.4])
    distance = 3.2 * radius
    camera = stage.camera(at=centre + distance * towards / np.linalg.norm(towards), look_at=centre)
    camera.data.clip_start, camera.data.clip_end = distance / 1000, distance * 10


def hides_as_holdout() -> Iterator[bool]:
    """Yield whether something may hide other things without having a depth itself."""
    yield from (obj.is_holdout or obj.is_shadow_catcher for obj in bpy.data.objects)
    yield from (layer.holdout for layer in layer_collections(bpy.context.view_layer.layer_collection))
    for tree in [*bpy.data.node_groups, *(m.node_tree for m in bpy.data.materials if m.node_tree)]:
        yield any(node.type == "HOLDOUT" for node in tree.nodes)


def layer_collections(root: Any) -> Iterator[Any]:
    """Yield a layer collection and all below it."""
    yield root
    for child in root.children:
        yield from layer_collections(child)
