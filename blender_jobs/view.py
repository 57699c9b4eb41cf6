"""What the scene's camera sees: pixels, visibility, boxes and poses of points and objects.

Image coordinates are continuous pixels, x right, y down, origin at the outer corner of the top-left pixel; the
camera frame is OpenCV's (x right, y down, z forward), the world Blender's (z up, metres). See
`blender_jobs._vision.camera`; for cameras whose lens distorts also `_vision.distortion`: pixels are those of the
distorted image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import bpy
import numpy as np
import numpy.typing as npt

from blender_jobs._annotations import check_own_fields
from blender_jobs._render.geometry import Label
from blender_jobs._render.segments import Segments
from blender_jobs._render.snapshot import as_array, posed, take
from blender_jobs._targets import (
    CHILDREN,
    Copy,
    Group,
    IdRegistry,
    Members,
    Single,
    Target,
    Whole,
    belonging,
    below,
    checked,
    id_of,
    ids_of,
    spread,
)
from blender_jobs._vision.boxes import Box, boxes, truncation, united
from blender_jobs._vision.camera import Camera, FloatArray, rigid, transform
from blender_jobs._vision.silhouette import Patch, through_lens, undistorted
from blender_jobs._vision.surfaces import Body, BodyId, Compound, Snapshot, Surface
from blender_jobs._vision.visibility import Occluders, tolerances, visibility
from blender_jobs.parts import CORNERS, Points, as_points, numbered

__all__ = ["View"]


class View:
    """What the scene's camera sees in the current frame.

    A snapshot: make a new one after the frame changes. Everything is as a render evaluates it and of the view layer
    that is rendered: modifiers at their render levels, copies, what is hidden in renders and not what is hidden in the
    viewport. What the camera cannot see is not described, and hides nothing: see `sees`.

    Args:
        scene: the context's; its camera must be a perspective or an orthographic one.
        snapshot: the frame's, see `blender_jobs._render.snapshot`; by default it is taken now.
        look: gives what the frame's pixels show, where nothing else tells: of surfaces with a textured alpha, and of
            displaced ones. None: such surfaces hide what is behind them, and have the boxes of their meshes.
        counted: whether `describe` says how much of an object is visible, for which it needs `look`.
        categories: COCO's ``categories`` that the job declares, if it declares any.
        episode: the number of the episode that is played.
        frame: the frame's number; None: the scene's current one.

    Raises:
        ValueError: there is no camera, or one that K and an OpenCV pose cannot describe (panoramic, mirrored,
            sheared), or one with a distortion that cannot be undone.
    """

    def __init__(
        self,
        scene: bpy.types.Scene,
        snapshot: Snapshot | None = None,
        look: Callable[[], Segments] | None = None,
        counted: bool = False,
        categories: Sequence[Mapping[str, Any]] = (),
        episode: int = 0,
        frame: int | None = None,
    ) -> None:
        self.scene = scene
        self.episode = episode
        """The episode's number in the dataset, from 0: the annotation ``episode``."""
        self.frame = int(scene.frame_current) if frame is None else frame
        """The frame's number, one of `Job.frames`: the annotation ``frame``."""
        self.snapshot = snapshot or take(scene)
        self._camera = self.snapshot.camera
        self._look, self._counted = look, counted
        self._registry = IdRegistry(categories)

    @property
    def lens(self) -> Camera:
        """The camera, to compute with."""
        return self._camera

    @property
    def labels(self) -> Mapping[BodyId, Label]:
        """What `describe` has described so far, in the order of the segmentation ids."""
        return self._registry.labels

    @property
    def width(self) -> int:
        """Rendered pixels across, `resolution_percentage` included."""
        return self._camera.width

    @property
    def height(self) -> int:
        """Rendered pixels down, `resolution_percentage` included."""
        return self._camera.height

    @property
    def camera_name(self) -> str:
        """The name of the camera object that this view is of: one of `Job.cameras`, where the job names any."""
        return self._camera.name

    @property
    def camera(self) -> dict[str, Any]:
        """The camera, ready for JSON: name, type, width, height, K, cam_to_world, clip_start, clip_end, distortion.

        `cam_to_world` is the rigid 4x4 from the OpenCV camera frame (x right, y down, z forward) to Blender's
        world. For a point (x, y, z) in the camera frame, z is the depth and K @ (x/z, y/z, 1) the pixel, for
        type `ORTHO` K @ (x, y, 1). `distortion` are OpenCV's coefficients, which move (x/z, y/z) before K is
        applied; an empty list for none. `project` computes with these very numbers.
        """
        return self._camera.as_json()

    def project(self, points: npt.ArrayLike) -> FloatArray:
        """World points (N, 3), metres, to float64 (N, 3): x and y in pixels, depth in metres.

        x right, y down from the outer corner of the top-left pixel; depth along the optical axis (z of the
        OpenCV camera frame). A point at or behind the camera has a depth <= 0 and x = y = 0. One beyond the
        reach of a distorting lens is on the reach's rim, outside the image.
        """
        return self._camera.project(as_points(points, "project(): points"))

    def sees(self, obj: Target) -> bool:
        """Whether the camera could see an object, a copy of one, or any of a whole, if nothing were before it.

        Not what is hidden in renders (itself, its collections) or out of the rendered layer, what the camera's rays
        pass (`visible_camera`, indirect-only collections), holdouts, shadow catchers, volumes without a surface,
        materials of an alpha below 0.05, and what has no surface: empties, emitters that are not shown themselves,
        curves without thickness, meshes without faces. `describe` refuses what is not seen.
        """
        try:
            self.body(obj)
        except ValueError:
            return False
        return True

    def copies(self, obj: bpy.types.Object) -> list[Copy]:
        """The rendered copies of an object that the camera could see, nested ones too, always in the same order.

        Of collection instances, geometry nodes, particles, and vertex or face instancing. Ordered by what makes them,
        then by Blender's number of each.
        """
        name = checked(obj).name_full
        found = sorted(
            (body for key, body in self.snapshot.bodies.get(name, {}).items() if key and not body.unseen),
            key=lambda body: body.key,
        )
        makers = {other.name_full: other for other in bpy.data.objects} if found else {}
        return [Copy(obj, makers[body.key[0]], at, body.key, body.matrix) for at, body in enumerate(found)]

    def whole(self, obj: Single, members: Members) -> Whole:
        """A thing of many meshes: a car with its wheels, a robot, a collection's instance.

        It takes the place of an object in `describe` and its sisters: its boxes, pixels, silhouette and fraction are
        of all its members together; its name, frame and pose are those of `obj`. For this view alone: make it again in
        each.

        Args:
            obj: whose name and frame it has; belongs to it if the camera could see it. May be an empty, an armature.
            members: what else belongs to it.

                - ``"children"``: all that is parented below `obj`, at any depth, and the copies that `obj` and these
                  make: a collection instance is whole by this word
                - a collection: its objects, those of its child collections, and the copies that these make
                - objects, copies and wholes, each of which the camera could see; collections among them
                - any of these by a name, as ``{"wheels": [...], "door": door}``: parts with ids of their own

                What the camera could not see is no member where it comes with the word or a collection.

        Raises:
            ValueError: one that is given itself is not seen, or is none of these; one line.
        """
        own = belonging(self.snapshot, [checked(obj)]) if isinstance(obj, bpy.types.Object) else [self._seen(obj)]
        bodies = [body for body in own if body.ids == {id_of(obj)}]
        parts = None
        if isinstance(members, Mapping):
            parts = {str(name): self._part(obj, str(name), group) for name, group in members.items()}
            bodies += [body for part in parts.values() for body in part.surface.bodies]
        else:
            bodies += self._members(obj, members)
        return Whole(obj, self._compound(obj, bodies), parts, self.snapshot)

    def body(self, obj: Target) -> Surface:
        """The rendered surface of an object, a copy or a whole.

        Raises:
            ValueError: the camera cannot see it, see `sees`; one line that says why.
        """
        if not isinstance(obj, Whole):
            return self._seen(obj)
        if obj.snapshot is not self.snapshot:
            raise ValueError(f"whole {obj.name!r} is of another view: call view.whole(obj, members) in each")
        if not obj.surface.bodies:
            raise ValueError(
                f"object {obj.name!r} is not seen, nor is any of its members: skip it, see view.sees(whole)"
            )
        return obj.surface

    def _seen(self, obj: Single) -> Body:
        body = self.rendered(obj)
        if body is None:
            raise ValueError(f"object {obj.name!r} {self._missing(obj, id_of(obj)[0])}")
        if body.unseen:
            raise ValueError(f"object {obj.name!r} is not seen: {body.unseen}; leave it out, see view.sees(obj)")
        return body

    def _members(self, obj: Single, members: str | Group) -> Iterator[Body]:
        """Yield the bodies that belong to a whole, as `whole` has it."""
        if isinstance(members, str):
            if members != CHILDREN or not isinstance(obj, bpy.types.Object):
                what = f"{members!r}" if members != CHILDREN else "'children' of a copy, which has none"
                raise ValueError(f"object {obj.name!r}: members is {what}; give 'children', a collection or objects")
            yield from belonging(self.snapshot, below(obj))
            return
        for member in spread(members):
            if isinstance(member, bpy.types.Collection):
                yield from belonging(self.snapshot, list(member.all_objects))
            else:
                yield from self.body(member).bodies

    def _part(self, obj: Single, name: str, group: Group) -> Whole:
        """A named part of a whole: its frame is that of the object or whole that is given, else that of `obj`."""
        given = list(spread(group))
        first = given[0] if len(given) == 1 and not isinstance(given[0], bpy.types.Collection) else obj
        frame = first.target if isinstance(first, Whole) else first
        found = self._compound(frame, self._members(obj, group))
        if not found.bodies:
            raise ValueError(f"object {obj.name!r}: nothing of its part {name!r} is seen: leave it out")
        return Whole(frame, found, None, self.snapshot)

    def _compound(self, frame: Single, bodies: Iterable[Body]) -> Compound:
        """Bodies as one, each once."""
        return Compound(tuple({(body.owner, body.key): body for body in bodies}.values()), self.matrix_world(frame))

    @staticmethod
    def source(obj: Target) -> bpy.types.Object:
        """The object itself, or the one that a copy is made of, or whose frame a whole has.

        Raises:
            ValueError: it is no object, or was removed; one line.
        """
        target = obj.target if isinstance(obj, Whole) else obj
        return target.object if isinstance(target, Copy) else checked(target)

    def rendered(self, obj: Target) -> Body | None:
        """The surface of an object or a copy, seen by the camera or not; None if renders have none of it.

        Of a whole, that of the object whose frame it has.
        """
        owner, key = id_of(obj)
        return self.snapshot.bodies.get(owner, {}).get(key)

    def matrix_world(self, obj: Target) -> FloatArray:
        """Where an object or a copy is, seen or not, (4, 4): its own frame to Blender's world, scale included.

        Raises:
            ValueError: it is not in the scene; one line.
        """
        target = obj.target if isinstance(obj, Whole) else obj
        if isinstance(target, Copy):
            return target.matrix_world
        name = checked(target).name_full
        if name in self.snapshot.matrices:
            return self.snapshot.matrices[name]
        return as_array(self.evaluated(target).matrix_world)

    def bones(self, armature: bpy.types.Object) -> Mapping[str, tuple[FloatArray, FloatArray]]:
        """Head and tail (3,) of each bone of a posed armature by its name, in the armature's own frame."""
        name = checked(armature).name_full
        if name in self.snapshot.bones:
            return self.snapshot.bones[name]
        return posed(self.evaluated(armature))

    @staticmethod
    def evaluated(obj: bpy.types.Object) -> bpy.types.Object:
        """An object as the viewport evaluates it: for what takes no part in the render.

        Raises:
            ValueError: it is not in the viewport either; one line.
        """
        found = checked(obj).evaluated_get(bpy.context.evaluated_depsgraph_get())
        if not found.is_evaluated:
            raise ValueError(f"object {obj.name!r} is not in this view's scene, or hidden: leave it out")
        return found

    def visibility(
        self,
        points: npt.ArrayLike,
        tolerance_m: float | None = None,
        self_tolerance_m: float = 0.0,
        parts: Sequence[Target] = (),
    ) -> npt.NDArray[np.uint8]:
        """World points (N, 3), metres, to uint8 (N,) as COCO has it: 0 outside, 1 occluded, 2 visible.

        Outside is outside the image, behind the camera or out of its clip range. Occluded is a point that has
        a surface before it which the camera sees, between the near clip plane and `tolerance_m` short of the point;
        along parallel rays for an orthographic camera. By default the tolerance is a twenty-thousandth of what the
        image's longer side spans at the point, 1 mm for a view that is 20 m wide there. Faces hide from both sides,
        glass and whatever has an alpha of 0.05 or more hides as if solid, holdouts hide too; fog does not.

        `self_tolerance_m` is for points within a body, as joints are: surfaces of `parts` that lie less than this
        before the point do not hide it; what is behind them still may.
        """
        world = as_points(points, "visibility(): points")
        return self._visibility(world, self._camera.project(world), parts, self_tolerance_m, tolerance_m)

    def keypoints(
        self,
        obj: Target,
        points: Points | npt.ArrayLike | None = None,
        self_tolerance_m: float = 0.0,
        parts: Sequence[Target] = (),
    ) -> npt.NDArray[np.float32]:
        """An object's keypoints, float32 (K, 4): x and y in pixels, visibility (0, 1, 2), depth in metres.

        `points` are `blender_jobs.parts.Points`, or (K, 3) in the object's own frame, in its units before scale;
        by default the corners of its bounding box, in the order of `corners`. Keypoints outside the image keep
        their x and y; at or behind the camera both are 0. See `project` and `visibility`; what is tolerated are
        surfaces of the object itself, of the points' owners and of `parts`.
        """
        return self._rows(obj, self._placed(obj, points), self_tolerance_m, parts).astype(np.float32)

    def corners(self, obj: Target) -> FloatArray:
        """The corners of an object's oriented bounding box, float64 (8, 3): Blender's world, metres.

        Ordered as Blender's `bound_box`; with - and + for the ends of the object's own x, y and z:
        ---, --+, -++, -+-, +--, +-+, +++, ++-.
        """
        body = self.body(obj)
        return body.to_world(body.box)

    def bbox(self, obj: Target) -> tuple[Box, Box]:
        """The 2D boxes [x, y, width, height] around an object's projection, in pixels: (clipped, unclipped).

        Around its rendered surface, hidden by others or not. What is out of the camera's clip range is cut off, as in
        the picture. The clipped box is the one around the part in the image, the unclipped one around all;
        [0, 0, 0, 0] where there is nothing. A surface that its material displaces is where the pixels show it.
        """
        return self._boxes(self.body(obj))

    def silhouette(self, obj: Target) -> npt.NDArray[np.bool_]:
        """The pixels whose centres an object's surface covers, hidden by others or not: bool (H, W).

        What is out of the camera's clip range covers nothing. If there is a segmentation, what its pixels show decides
        where an edge runs through a pixel's centre, and where a texture makes holes.
        """
        return self._patch(self.body(obj)).within(self.height, self.width)

    def pose(self, obj: Target) -> FloatArray:
        """An object's pose, float64 (4, 4), rigid: the object's own frame to the OpenCV camera frame, metres.

        It moves the object's points once they are scaled: scale is removed. A mirrored object has a negative scale of
        all three axes here, so that the rotation is one: each of its own axes points against that of its pose. The
        names of its box's corners go by its own axes, as `matrix_world` moves them.
        """
        return self._camera.world_to_cam @ rigid(self.matrix_world(obj))

    def describe(
        self,
        obj: Target,
        category: str,
        keypoints: Points | npt.ArrayLike | None = None,
        keypoint_names: Sequence[str] | None = None,
        *,
        members: Members | None = None,
        self_tolerance_m: float = 0.0,
        parts: Sequence[Target] = (),
        **extra: Any,
    ) -> dict[str, Any]:
        """One object's annotation, one copy's, or that of a thing of many meshes, ready for JSON: the same fields.

        Floats have 6 decimals; more where a tiny scene or a long lens needs them, see `Camera.decimals`.

        - name, category; category_id, if the job declares categories
        - segmentation_id: 1, 2, ... in the order in which objects are first described in this view
        - pose: 4x4 rigid, the object's own frame to the OpenCV camera frame, see `pose`
        - matrix_world: 4x4, the object's own frame to Blender's world, scale included
        - dimensions: [x, y, z] of the oriented bounding box, metres
        - bbox, bbox_unclipped: [x, y, width, height], pixels, see `bbox`
        - truncation: the fraction of bbox_unclipped's area outside the image; 1 for what is behind the camera
        - box3d: the bounding box's 8 corners, Blender's world, metres, see `corners`
        - keypoint_names: K names
        - keypoints: [x, y, visibility] * K as COCO, keypoint_depths: K, metres; as float32, the rows of
          `keypoints`
        - num_keypoints: how many have a visibility above 0
        - if there is a segmentation: visible_pixels, how many show the object; silhouette_pixels, how many it
          would cover with nothing before it, see `silhouette`, never fewer; visible_fraction, the one by the other,
          0 for an empty silhouette
        - if `members` are given by name: parts, for each name, part_id, and pose, matrix_world, dimensions, bbox,
          bbox_unclipped, truncation, box3d and counts of its own

        Args:
            obj: the object, one of its `copies`, or a `whole`; an object's numbers are of itself alone, not of its
                copies.
            category: its class; one of those that the job declares, if it does.
            keypoints: `blender_jobs.parts.Points`, or (K, 3) points in the object's own frame; by default the
                corners of its bounding box.
            keypoint_names: K names; by default those of the `Points`, those of the category if it has K
                keypoints, ``corner0`` to ``corner7``, or ``keypoint0``... for points of your own.
            members: what belongs to the object, so that all is of the whole but name and frame: ``"children"``, a
                collection, objects, or any of them by the name of the part that they are, see `whole`. An object
                is a member of one thing, and not described on its own then.
            self_tolerance_m: for keypoints within a body: surfaces of the object, of its members, of the points'
                owners and of `parts` less than this before a keypoint do not hide it, see `visibility`.
            parts: more objects that are one body with this one where keypoints are concerned, and in nothing else.
            extra: more fields, taken as they are: ``grasped=True``.

        Raises:
            ValueError: points of another shape, another number of names, an extra field named (nearly) like one above
                or like an argument, an object that the camera cannot see (see `sees`), a category that is not
                declared, keypoints other than the category's, or a member that is of two things, or described on its
                own, too.
        """
        if members is not None:
            obj = self._joined(obj, members)
        surface = self.body(obj)
        named = obj.parts if isinstance(obj, Whole) else None
        bodies = None if named is None else {name: part.surface.ids for name, part in named.items()}
        ids, numbers = self._registry.enter(obj.name, category, id_of(obj), surface, bodies)
        points = self._placed(obj, keypoints)
        given = points.names if keypoint_names is None and points is keypoints else keypoint_names
        names = self._registry.names(obj.name, category, given, points.names)
        rows = self._rows(obj, points, self_tolerance_m, parts)
        annotation = {
            "name": obj.name,
            "category": category,
            **ids,
            **self._geometry(obj, surface),
            "keypoint_names": names,
            "keypoints": rows[:, :3].ravel().tolist(),
            "keypoint_depths": rows[:, 3].tolist(),
            "num_keypoints": int(np.count_nonzero(rows[:, 2])),
            **(self._visible(surface) if self._counted else {}),
            **({} if named is None else {"parts": self._parts(named, numbers)}),
        }
        check_own_fields(obj.name, extra, list(annotation))
        return {**annotation, **extra}

    def _joined(self, obj: Target, members: Members) -> Whole:
        if isinstance(obj, Whole):
            raise ValueError(f"whole {obj.name!r} has its members already: describe it without members=")
        return self.whole(obj, members)

    def _parts(self, parts: Mapping[str, Whole], numbers: Sequence[int]) -> list[dict[str, Any]]:
        """What is said of a whole's named parts."""
        return [
            {
                "name": name,
                "part_id": number,
                **self._geometry(part, part.surface),
                **(self._visible(part.surface) if self._counted else {}),
            }
            for (name, part), number in zip(parts.items(), numbers, strict=True)
        ]

    def _geometry(self, obj: Target, surface: Surface) -> dict[str, Any]:
        """The fields that tell where a surface is."""
        camera, box = self._camera, surface.to_world(surface.box)
        clipped, unclipped = self._boxes(surface)
        return {
            "pose": camera.rounded(self.pose(obj)).tolist(),
            "matrix_world": camera.rounded(surface.matrix).tolist(),
            "dimensions": camera.rounded(np.linalg.norm(box[[4, 3, 1]] - box[0], axis=1)).tolist(),
            "bbox": clipped,
            "bbox_unclipped": unclipped,
            "truncation": truncation(camera, unclipped),
            "box3d": camera.rounded(box).tolist(),
        }

    def _rows(self, obj: Target, points: Points, self_tolerance_m: float, parts: Sequence[Target]) -> FloatArray:
        """(K, 4) x, y, visibility, depth, rounded: what `keypoints` and `describe` both say."""
        pixels = self._camera.project(points.positions)
        rows = pixels[:, [0, 1, 2, 2]]
        own = (obj, *parts, *points.owners)
        rows[:, 2] = self._visibility(points.positions, pixels, own, self_tolerance_m)
        return self._camera.rounded(rows)

    def _visibility(
        self,
        world: FloatArray,
        pixels: FloatArray,
        own: Iterable[Target],
        self_tolerance_m: float,
        tolerance_m: float | None = None,
    ) -> npt.NDArray[np.uint8]:
        reach = tolerances(self._camera, world, pixels[:, 2]) if tolerance_m is None else tolerance_m
        for entry in own:
            self.matrix_world(entry)  # what is in no scene is reported here
        tolerated = frozenset(body for entry in own for body in ids_of(entry))
        nearer = None if self._look is None else lambda at, depth: self._shown.nearer(at, depth)
        return visibility(self._camera, self._occluders, world, pixels, reach, tolerated, self_tolerance_m, nearer)

    @cached_property
    def _occluders(self) -> Occluders:
        return Occluders(self._camera, self.snapshot.all_bodies)

    @cached_property
    def _shown(self) -> Segments:
        if self._look is None:
            raise ValueError("this view was made without a rendered frame")
        return self._look()

    def _placed(self, obj: Target, points: Points | npt.ArrayLike | None) -> Points:
        """An object's keypoints in the world; by default its bounding box's corners."""
        if isinstance(points, Points):
            return points
        if points is None:
            return Points(CORNERS, self.corners(obj))
        places = as_points(points, f"object {obj.name!r}: keypoints")
        return Points(numbered(len(places)), transform(self.matrix_world(obj), places))

    def _visible(self, surface: Surface) -> dict[str, Any]:
        """The fields that the segmentation tells."""
        visible, covered = self._shown.count(surface), int(np.count_nonzero(self._patch(surface).covered))
        fraction = float(self._camera.rounded(visible / covered)) if covered else 0.0
        return {"visible_pixels": visible, "silhouette_pixels": covered, "visible_fraction": fraction}

    def _patch(self, surface: Surface) -> Patch:
        patch = undistorted(self._camera, surface.vertices, surface.triangles)
        if surface.displaced and self._look:
            covered = through_lens(self._camera, patch).within(self.height, self.width)
            return Patch(0, 0, covered | self._shown.mask(surface))
        if self._counted:
            patch = self._shown.silhouette(surface, patch, lambda: self._occluders)
        return through_lens(self._camera, patch)

    def _boxes(self, surface: Surface) -> tuple[Box, Box]:
        found = boxes(self._camera, surface.outline, lambda: surface.outline_triangles)
        if not (surface.displaced and self._look):
            return found
        shown = self._shown.extent(surface)
        return united(found[0], shown), united(found[1], shown)

    def _missing(self, obj: Single, owner: str) -> str:
        """Why an object has no surface of its own in the picture, and what to do: the end of a sentence."""
        if isinstance(obj, Copy):
            return "is no copy in this frame: ask view.copies(obj) in each"
        if self.snapshot.bodies.get(owner):
            return "is not rendered itself, only its copies are: describe each of view.copies(obj)"
        if any(key and key[0] == owner for bodies in self.snapshot.bodies.values() for key in bodies):
            return "has no surface itself, it only makes copies of others: describe each of view.copies(other)"
        if obj.hide_render:
            return "is hidden in renders (hide_render): leave it out, see view.sees(obj)"
        if owner not in self.snapshot.matrices:
            layer = self.snapshot.layer
            return (
                f"is not in the rendered view layer {layer!r}: its collection is excluded or hidden in renders,"
                " or it is in another scene; leave it out, see view.sees(obj)"
            )
        return f"({obj.type}) has no surface that a render shows: leave it out, see view.sees(obj)"
