"""Take a frame's surfaces out of Blender as a render evaluates them, and not as the viewport does.

They differ: in modifiers and their levels, in what is hidden, in copies. A render engine of our own is handed the very
evaluation that the others draw; it draws nothing, and makes arrays of it. See `blender_jobs._vision.surfaces`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, TypeVar

import bpy
import numpy as np
import numpy.typing as npt

from blender_jobs._render import animation, shaders
from blender_jobs._render.properties import temporarily
from blender_jobs._vision import surfaces
from blender_jobs._vision.camera import FloatArray, inverse_transform, transform
from blender_jobs._vision.surfaces import SOLID, Body, Cover, Faces, Key, Mesh, Snapshot, joined
from blender_jobs.job import JobError
from blender_jobs.lens import image_size, scene_camera

Result = TypeVar("Result")

INDIRECT = "only indirect rays see it (its collection is set so)"
SHADOW_CATCHER = "it is a shadow catcher, of which the image only shows the shadows"

_UNUSED = 2**31 - 1
"""What Blender fills a `persistent_id` up with."""
_HAIR_RADIUS = 0.005
"""Metres: what Cycles takes for hair curves and points that have none."""
_QUIET = {
    "render.engine": "BLENDSHARD_SNAPSHOT",
    "render.use_freestyle": False,
    "render.use_motion_blur": False,
    "render.resolution_x": 4,  # the image stays empty, and a large one would cost memory
    "render.resolution_y": 4,
    "render.resolution_percentage": 100,
}


class SnapshotEngine(bpy.types.RenderEngine):  # type: ignore[misc]
    """Hands a render's evaluation to `look`."""

    bl_idname = "BLENDSHARD_SNAPSHOT"
    bl_label = "Blendshard snapshot"
    bl_use_preview = False
    look: ClassVar[Callable[[bpy.types.Depsgraph], None]]

    def render(self, depsgraph: bpy.types.Depsgraph) -> None:
        """Called by Blender once for each view layer."""
        type(self).look(depsgraph)


def evaluate(scene: bpy.types.Scene, look: Callable[[bpy.types.Depsgraph], Result]) -> Result:
    """Return what `look` makes of a scene as a render evaluates it in the present frame.

    Nothing is drawn and no handler runs. What `look` returns must not refer to the depsgraph, which is gone then.

    Raises:
        JobError: Blender cannot render the scene.
    """
    results: list[Result] = []
    errors: list[BaseException] = []
    layer = view_layer(scene).name

    def once(depsgraph: bpy.types.Depsgraph) -> None:
        if depsgraph.view_layer.name != layer or results:
            return
        try:
            results.append(look(depsgraph))
        except BaseException as error:  # Blender would print it and go on
            errors.append(error)

    if not SnapshotEngine.is_registered:
        bpy.utils.register_class(SnapshotEngine)
    SnapshotEngine.look = staticmethod(once)
    with animation.all_handlers_off(), temporarily(scene, _QUIET), _rendered(scene):
        try:
            bpy.ops.render.render()
        except RuntimeError as error:
            raise JobError(f"Blender cannot render this scene: {' '.join(str(error).split())}") from None
    if errors:
        raise errors[0]
    if not results:
        raise JobError(f"Blender renders nothing of view layer {layer!r}: check the scene's layers")
    return results[0]


def view_layer(scene: bpy.types.Scene) -> bpy.types.ViewLayer:
    """Return the layer that picture, passes and annotations are of: the context's, or the scene's first."""
    return bpy.context.view_layer if bpy.context.scene == scene else scene.view_layers[0]


@contextmanager
def _rendered(scene: bpy.types.Scene) -> Iterator[None]:
    """The one view layer is rendered, if the scene leaves it out of renders."""
    with temporarily(view_layer(scene), {"use": True}):
        yield


def take(scene: bpy.types.Scene, faces: bool = False) -> Snapshot:
    """Return the scene's present frame as a render evaluates it.

    Args:
        scene: with a camera; the context's.
        faces: whether meshes keep their polygons, which `blender_jobs._worker.motion` needs.

    Raises:
        ValueError: the camera cannot be described, see `scene_camera`.
        JobError: Blender cannot render the scene.
    """
    if scene.camera is None or scene.camera.type != "CAMERA":
        raise ValueError(f"scene {scene.name!r} has no camera: set scene.camera to a camera object")
    size = image_size(scene)
    return evaluate(scene, lambda depsgraph: _Taker(scene, depsgraph, size, faces).snapshot())


class _Taker:
    """Makes one snapshot of an evaluation, which it must not outlive."""

    def __init__(
        self, scene: bpy.types.Scene, depsgraph: bpy.types.Depsgraph, size: tuple[int, int], faces: bool
    ) -> None:
        self._scene, self._depsgraph, self._size, self._faces = scene, depsgraph, size, faces
        self._layer = depsgraph.view_layer_eval
        self._meshes: dict[int, Mesh | None] = {}
        self._covers: dict[int, tuple[list[int], bool]] = {}
        self._sights: dict[tuple[int, int], tuple[str, bool]] = {}

    def snapshot(self) -> Snapshot:
        """Go through all objects and their copies once."""
        matrices: dict[str, FloatArray] = {}
        bones: dict[str, dict[str, tuple[FloatArray, FloatArray]]] = {}
        found: dict[str, dict[Key, list[Body]]] = {}
        for instance in self._depsgraph.object_instances:
            obj = instance.object
            name, key = obj.original.name_full, _key(instance)
            matrix = as_array(instance.matrix_world)
            if not instance.is_instance:
                matrices[name] = matrix
                if obj.type == "ARMATURE":
                    bones[name] = posed(obj)
            for body in self._bodies(instance, name, key, matrix):
                found.setdefault(name, {}).setdefault(key, []).append(body)
        bodies = {
            name: {key: _one(parts, parts[0].matrix if key else matrices.get(name)) for key, parts in by_key.items()}
            for name, by_key in found.items()
        }
        camera = scene_camera(self._scene, self._depsgraph, self._size)
        return Snapshot(camera, self._depsgraph.view_layer.name, bodies, matrices, bones)

    def _bodies(self, instance: Any, name: str, key: Key, matrix: FloatArray) -> Iterator[Body]:
        """Yield what is rendered of an object or a copy: its faces, curves or points, and its hair."""
        obj = instance.object
        parts: list[tuple[Mesh, Cover]] = []
        if instance.show_self and obj.type in ("MESH", "CURVES", "POINTCLOUD") and self._layer.use_solid:
            address = obj.data.as_pointer()
            if address not in self._meshes:
                self._meshes[address] = _READERS[obj.type](obj.data, self._faces)
            mesh = self._meshes[address]
            if mesh is not None:
                parts.append((mesh, self._cover(obj)))
        if instance.show_particles and self._layer.use_strand:
            slots, _ = self._materials(obj)
            parts += [(mesh, _uniform(slots[min(slot, len(slots) - 1)])) for mesh, slot in _hair(obj, matrix)]
        if not parts:
            return
        unseen, hides = self._sight(instance)
        displaced = self._materials(obj)[1]
        for mesh, cover in parts:
            gone = unseen or ("" if cover.any() else "its material lets everything through")
            yield Body(name, obj.name, key, matrix, mesh, cover, gone, hides, displaced)

    def _cover(self, obj: Any) -> Cover:
        """Return how each triangle covers; one value for all where they are alike."""
        slots, _ = self._materials(obj)
        if len(set(slots)) == 1 or obj.type != "MESH":
            return _uniform(slots[0])
        indices = _column(obj.data.loop_triangles, "material_index", np.int32, 1)
        cover: Cover = np.array(slots, dtype=np.uint8)[indices.clip(0, len(slots) - 1)]
        return cover

    def _materials(self, obj: Any) -> tuple[list[int], bool]:
        """Return how the material of each slot covers, and whether one of them displaces."""
        address = obj.original.as_pointer()
        if address not in self._covers:
            used = self._used(obj) or [None]
            covers = [SOLID if material is None else shaders.cover(material) for material in used]
            self._covers[address] = covers, any(material and shaders.displaces(material) for material in used)
        return self._covers[address]

    def _used(self, obj: Any) -> list[Any]:
        """Return the materials that an object is rendered with, None for an empty slot."""
        override = self._layer.material_override
        return [override] if override else [slot.material for slot in obj.material_slots]

    def _sight(self, instance: Any) -> tuple[str, bool]:
        """Return why the camera does not see an object, empty where it does, and whether it hides what is behind it.

        As Cycles has it: the visibility to the camera is that of a copy and of what makes it, both; whether it is a
        holdout or indirect is asked of what makes it alone; a shadow catcher is what either of them is.
        """
        obj, maker = instance.object, instance.parent if instance.is_instance else instance.object
        address = (obj.original.as_pointer(), maker.original.as_pointer())
        if address not in self._sights:
            self._sights[address] = self._told(obj, maker)
        return self._sights[address]

    def _told(self, obj: Any, maker: Any) -> tuple[str, bool]:
        if not (obj.visible_camera and maker.visible_camera):
            return "the camera does not see it (Object > Visibility > Ray Visibility > Camera)", False
        if maker.holdout_get(view_layer=self._layer):
            return "it is a holdout, a hole in the picture", True
        if maker.indirect_only_get(view_layer=self._layer):
            return INDIRECT, False
        used = self._used(obj)
        if used and all(map(shaders.holds_out, used)):
            return "its material is a holdout, a hole in the picture", True
        if obj.is_shadow_catcher or maker.is_shadow_catcher:
            return SHADOW_CATCHER, True
        return "", True


def posed(armature: bpy.types.Object) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Return head and tail (3,) of each bone of an evaluated armature, in its own frame."""
    return {bone.name: (_place(bone.head), _place(bone.tail)) for bone in armature.pose.bones}


def _key(instance: Any) -> Key:
    """Return which of an object's bodies an instance is; the surface that Blender makes of a curve is its own."""
    if not instance.is_instance or instance.parent.original == instance.object.original:
        return ()
    numbers = [number for number in instance.persistent_id if number != _UNUSED]
    return (instance.parent.original.name_full, *reversed(numbers))


def _one(parts: list[Body], frame: FloatArray | None) -> Body:
    """Return the surfaces of one object as one: its faces and its hair, or pieces that geometry nodes place."""
    first = parts[0]
    matrix = first.matrix if frame is None else frame
    if len(parts) == 1 and np.array_equal(matrix, first.matrix):
        return first
    meshes = [_moved(part.mesh, part.matrix, matrix) for part in parts]
    mesh, cover = joined(meshes, [part.cover for part in parts])
    unseen = first.unseen if all(part.unseen for part in parts) else ""
    return Body(first.owner, first.name, first.key, matrix, mesh, cover, unseen, first.hides, first.displaced)


def _moved(mesh: Mesh, matrix: FloatArray, frame: FloatArray) -> Mesh:
    """Return a mesh whose own frame is `matrix` in another frame; (4, 4) each, to the world."""
    if np.array_equal(matrix, frame):
        return mesh
    places = inverse_transform(frame, transform(matrix, mesh.vertices))
    return Mesh(places.astype(np.float32), mesh.triangles, mesh.faces)


def _uniform(cover: int) -> Cover:
    return np.array([cover], dtype=np.uint8)


def _mesh(data: Any, faces: bool) -> Mesh | None:
    """Return a mesh's surface, None if it has no faces."""
    if not len(data.polygons):
        return None
    data.calc_loop_triangles()
    vertices = _column(data.vertices, "co", np.float32, 3)
    triangles = _column(data.loop_triangles, "vertices", np.int32, 3)
    kept = None
    if faces:
        starts = _column(data.polygons, "loop_start", np.int32, 1)
        kept = Faces(_column(data.loops, "vertex_index", np.int32, 1), starts)
    return Mesh(vertices, triangles, kept)


def _curves(data: Any, faces: bool) -> Mesh | None:
    """Return the tubes of hair curves, None if there are none."""
    if not len(data.points):
        return None
    points = _column(data.points, "position", np.float32, 3).astype(np.float64)
    sizes = np.array([len(curve.points) for curve in data.curves], dtype=np.int64)
    return surfaces.tubes(points, sizes, _radii(data, len(points)))


def _points(data: Any, faces: bool) -> Mesh | None:
    """Return the balls of a point cloud, None if there are none."""
    if not len(data.points):
        return None
    centres = _column(data.points, "co", np.float32, 3).astype(np.float64)
    return surfaces.balls(centres, _radii(data, len(centres)))


_READERS: dict[str, Callable[[Any, bool], Mesh | None]] = {"MESH": _mesh, "CURVES": _curves, "POINTCLOUD": _points}


def _radii(data: Any, count: int) -> FloatArray:
    radius = data.attributes.get("radius")
    if radius is None or radius.data_type != "FLOAT" or radius.domain != "POINT":
        return np.full(count, _HAIR_RADIUS)
    return _column(radius.data, "value", np.float32, 1).astype(np.float64)


def _hair(obj: Any, matrix: FloatArray) -> Iterator[tuple[Mesh, int]]:
    """Yield the strands of an object's particle systems as tubes, in its own frame, and their materials' slots."""
    shown = {
        modifier.particle_system.name: modifier.show_render
        for modifier in obj.modifiers
        if modifier.type == "PARTICLE_SYSTEM"
    }
    for system in obj.particle_systems:
        settings = system.settings
        if settings.type != "HAIR" or settings.render_type != "PATH" or not shown.get(system.name, True):
            continue
        parents, children = len(system.particles), len(system.child_particles)
        first = parents if children and settings.child_type != "NONE" else 0  # parents are not drawn then
        steps = (1 << settings.render_step) + 1
        numbers = [(strand, step) for strand in range(first, parents + children) for step in range(steps)]
        if not numbers:
            continue
        places = [system.co_hair(obj, particle_no=strand, step=step)[:] for strand, step in numbers]
        count = len(numbers) // steps
        taper = np.linspace(settings.root_radius, settings.tip_radius, steps) * settings.radius_scale / 2
        own = inverse_transform(matrix, np.array(places, dtype=np.float64))
        yield surfaces.tubes(own, np.full(count, steps, dtype=np.int64), np.tile(taper, count)), settings.material - 1


def _column(collection: Any, name: str, dtype: Any, width: int) -> npt.NDArray[Any]:
    values = np.empty(width * len(collection), dtype=dtype)
    collection.foreach_get(name, values)
    return values.reshape(-1, width) if width > 1 else values


def _place(vector: Any) -> FloatArray:
    return np.array(vector[:], dtype=np.float64)


def as_array(rows: Any) -> FloatArray:
    """Return Blender's matrix or vectors as float64 (rows, columns); numpy alone takes four times as long."""
    return np.array([row[:] for row in rows], dtype=np.float64)
