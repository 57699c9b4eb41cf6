"""Ways of hiding x kinds of things x occluder or target: labels agree with the picture.

A red thing stands before a blue sky; a green one may stand before a part of it. What the picture's colours say decides,
except where something is half transparent: there the same scene with the thing whole, or without it, does.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import in_blender
from tests.blender_jobs.labels.judging import agreement
from tests.blender_jobs.labels.playing import keep, kept
from tests.in_blender import needs_bpy, scene

pytestmark = needs_bpy

KIND_NAMES = (
    "mesh",
    "curve",
    "text",
    "metaball",
    "nurbs_surface",
    "subdivided",
    "made_by_nodes",
    "points",
    "hair_curves",
    "particle_hair",
    "nodes_copy",
    "nodes_collection_copy",
    "collection_copy",
    "nested_copy",
    "vertex_copy",
    "face_copy",
    "particle_copy",
)
QUICK = "mesh"
"""The kind that is tried in the quick tests, too."""

ALONE = "alone"
"""The target's cell with nothing before it."""
STANDS_FOR = {"alpha_002": "alpha_000", "alpha_010": "plain", "alpha_050": "plain"}
"""The way whose picture shows what counts as solid."""
REFUSED = {
    "hide_render",
    "no_camera_rays",
    "holdout",
    "collection_hide_render",
    "collection_exclude",
    "collection_holdout",
    "collection_indirect",
    "no_collection",
    "thin_volume",
}
"""What the camera cannot see as a thing of its own: described, it is an error."""
MAY_BE_REFUSED = {"background_set", "shrunk_to_nothing", "shadow_catcher", "holdout_shader", "alpha_000", "alpha_002"}
OF_ORIGINALS = ("hide_render", "hide_viewport", "no_camera_rays", "holdout", "shadow_catcher")
"""What is tried on the originals of copies: each kind of copy takes over some of it, and the picture says which."""
ROUGH = {"particle_hair": 0.25, "hair_curves": 0.12, "points": 0.12}
"""How far areas may be apart where a thing is as fine as pixels; 0.08 elsewhere."""


def built(kind: str, way: str, role: str) -> Any:
    """Return what makes the cell's scene: the red target and its keypoints in the world come out of it.

    A way that begins with "original_" is applied to what is copied, others to the thing or to what makes copies.
    """
    from tests.blender_jobs.labels import things

    def build() -> Any:
        things.open_stage()
        red, green = things.glow(things.RED), things.glow(things.GREEN)
        if role == "target":
            thing = things.KINDS[kind]("target", (0, 0, 0), red)
            if way != ALONE:
                things.wall("screen", (-1.1, -2, 0), green, 2.0)
            points = [(0.0, -things.FRONT, 0.0), (-0.35, -things.FRONT, 0.0)]
            target = thing
        else:
            target = things.KINDS["mesh"]("target", (0, 0, 0), red)
            points = [(x, -0.5, z) for x in (-0.4, 0, 0.4) for z in (-0.4, 0, 0.4)]
            if way == ALONE:
                return target, points
            thing = things.KINDS[kind]("occluder", (0.5, -2, 0), green)
        if way.startswith("original_"):
            things.WAYS[way.removeprefix("original_")](things.Thing(thing.original))
        elif way != ALONE:
            things.WAYS[way](thing)
        return target, points

    return build


def described(view: Any, made: Any) -> dict[str, Any]:
    """What a job would say of the target: its annotation, or why it is refused."""
    from blender_jobs.parts import Points

    target, places = made
    names = [f"p{number}" for number in range(len(places))]
    said: dict[str, Any] = {"objects": [], "refused": "", "sees": True}
    try:
        subject = target.owner
        if target.original is not None:
            copies = view.copies(target.original)
            if not copies:
                return {**said, "refused": "no copies", "sees": False}
            subject = copies[0]
        if hasattr(view, "sees"):
            said["sees"] = view.sees(subject)
        said["objects"] = [view.describe(subject, "thing", Points(tuple(names), np.array(places, dtype=np.float64)))]
    except ValueError as error:
        said["refused"] = str(error)
    return said


def ways_of(kind: str) -> Iterator[str]:
    from tests.blender_jobs.labels import things

    seldom = {"display", "camera_rays_alone", "in_an_excluded_collection_too", "alpha_010", "alpha_050"}
    yield ALONE
    yield from (way for way in things.WAYS if kind not in things.COPIED or way not in seldom)
    yield from (f"original_{way}" for way in OF_ORIGINALS if kind in things.COPIED)


def cells(place: Path, role: str, kinds: tuple[str, ...]) -> dict[str, Any]:
    return {
        f"{kind}.{way}": keep(place, f"{kind}.{way}", built(kind, way, role), described)
        for kind in kinds
        for way in ways_of(kind)
    }


@scene
def occluders(place: Path) -> dict[str, Any]:
    return cells(place, "occluder", tuple(kind for kind in KIND_NAMES if kind != QUICK))


@scene
def targets(place: Path) -> dict[str, Any]:
    return cells(place, "target", tuple(kind for kind in KIND_NAMES if kind != QUICK))


@scene
def quick_occluders(place: Path) -> dict[str, Any]:
    return cells(place, "occluder", (QUICK,))


@scene
def quick_targets(place: Path) -> dict[str, Any]:
    return cells(place, "target", (QUICK,))


Seen = tuple[Path, dict[str, Any]]


def played(tmp_path_factory: pytest.TempPathFactory, *names: str) -> dict[str, Seen]:
    folder = tmp_path_factory.mktemp("hiding")
    seen = in_blender.play(__name__, folder, names)
    return {name: (folder / name, seen[name]) for name in names}


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Seen]:
    return played(tmp_path_factory, "quick_occluders", "quick_targets")


@pytest.fixture(scope="module")
def all_kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Seen]:
    return played(tmp_path_factory, "occluders", "targets")


def faults(seen: Seen, kind: str, role: str) -> list[str]:
    """What is wrong in the cells of a kind: one line each."""
    folder, said = seen
    names = [name for name in said if name.startswith(f"{kind}.")]
    assert len(names) > 15, "few cells were played"
    area = float((kept(folder, f"{kind}.{ALONE}")["picture"][..., 0] > 0.5).sum())
    assert area > 40, f"{kind}: the target covers {area} pixels when alone"
    return [line for name in names for line in judged(folder, said[name], name, role, area)]


def judged(folder: Path, said: dict[str, Any], name: str, role: str, area: float) -> Iterator[str]:
    kind, way = name.split(".")
    if said.get("refused") and "objects" not in said:
        yield f"{name}: {said['refused']}"
        return
    arrays = kept(folder, name)
    shown = kept(folder, f"{kind}.{STANDS_FOR.get(way, way)}")["picture"]
    refused = said["refused"]
    inherited = way.startswith("original_") and not (shown[..., 0] > 0.5).any()
    must_be = role == "target" and (way in REFUSED or inherited)
    may_be = role == "target" and way in MAY_BE_REFUSED
    if must_be != bool(refused) and not (refused and may_be):
        yield f"{name}: " + (f"refused: {refused}" if refused else "described, though it cannot be seen")
        return
    if bool(refused) == said["sees"]:
        yield f"{name}: sees() says {said['sees']}, describe() {refused or 'describes'}"
    if "\n" in refused:
        yield f"{name}: more than one line: {refused!r}"
    if not refused:
        ghost = role == "target" and way in MAY_BE_REFUSED and not (shown[..., 0] > 0.5).any()
        tolerance = ROUGH.get(kind, 0.08) if role == "target" else 0.08
        found = agreement(said["objects"][0], arrays, shown, area, tolerance, ghost)
        yield from (f"{name}: {fault}" for fault in found)


@pytest.mark.parametrize("role", ["occluder", "target"])
def test_a_mesh_is_labelled_as_the_picture_shows_it(quick: dict[str, Seen], role: str) -> None:
    """Whatever hides it, or makes it hide nothing."""
    found = faults(quick[f"quick_{role}s"], QUICK, role)
    assert not found, "\n".join(["", *found])


@pytest.mark.slow
@pytest.mark.parametrize("role", ["occluder", "target"])
@pytest.mark.parametrize("kind", [kind for kind in KIND_NAMES if kind != QUICK])
def test_every_kind_is_labelled_as_the_picture_shows_it(all_kinds: dict[str, Seen], kind: str, role: str) -> None:
    """Whatever hides it, or makes it hide nothing."""
    found = faults(all_kinds[f"{role}s"], kind, role)
    assert not found, "\n".join(["", *found])
