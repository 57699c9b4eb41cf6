"""What a job finds set in an empty scene, against Blender's factory settings: the reference names all differences."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path
from typing import Any

import pytest

from blender_jobs.orders import ENGINE_SAMPLES, Describe, JobSource, RenderSettings
from tests.commands import write_job
from tests.in_blender import ROOT, needs_bpy, play, scene

pytestmark = needs_bpy

VERSION = [4, 5]
"""The Blender whose factory settings the table holds."""

HOOKS = """
def setup(self):
    from tests.blender_jobs import test_found_settings as here
    here.FOUND.append(here.settings_of(bpy.context.scene))
    stage.camera(at=(4, -4, 3))
"""

_DERIVED = ("render.threads", "render.image_settings.linear_colorspace_settings")

FOUND: list[dict[str, Any]] = []

Differences = dict[str, tuple[Any, Any]]
"""What a job finds and what Blender sets, by the setting's path."""


def settings_of(owner: Any, path: str = "") -> dict[str, Any]:
    """Every plain value of a scene that can be set, by its path; of collections, the view layers.

    Left out is what Blender derives from other settings, and how many threads there are, which is the machine's.
    """
    import bpy

    foreign = (bpy.types.ID, bpy.types.LayerCollection, bpy.types.Depsgraph, bpy.types.StudioLight)
    found: dict[str, Any] = {}
    for entry in owner.bl_rna.properties:
        at, value = f"{path}{entry.identifier}", getattr(owner, entry.identifier)
        if entry.identifier == "rna_type" or isinstance(value, foreign) or at in _DERIVED:
            continue
        if entry.type == "POINTER":
            found |= settings_of(value, f"{at}.") if value is not None else {}
        elif at == "view_layers":
            found |= settings_of(value[0], f"{at}[0].")
        elif entry.type != "COLLECTION" and not entry.is_readonly:
            found[at] = value if isinstance(value, (bool, int, float, str)) else repr(value)
    return found


@scene
def all_engines(folder: Path) -> dict[str, Any]:
    import bpy

    from blender_jobs._render.render import DEFAULTS
    from blender_jobs._worker.describing import describe

    job = JobSource(str(write_job(folder, HOOKS, head="import bpy")))
    bpy.ops.wm.read_factory_settings(use_empty=True)
    factory, differences = settings_of(bpy.context.scene), {}
    for name, engine, denoise in (*((e, e, False) for e in ENGINE_SAMPLES), ("denoised", "cycles", True)):
        settings = RenderSettings(engine, ENGINE_SAMPLES[engine], 640, 480, "png", 100, denoise=denoise)
        describe(Describe(job, {}, settings))
        found = FOUND.pop()
        differences[name] = {path: (found[path], factory[path]) for path in found if found[path] != factory.get(path)}
    return {
        "version": list(bpy.app.version[:2]),
        "settings": len(factory),
        "differences": differences,
        "jobs": list(DEFAULTS),
    }


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    result = play(__name__, tmp_path_factory.mktemp("settings"))["all_engines"]
    if result["version"] != VERSION:
        pytest.skip(f"the table holds what Blender {VERSION} sets")
    return result


@pytest.fixture(scope="module")
def table() -> dict[str, tuple[str, str, str]]:
    page = (ROOT / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w.*]+)` \| (.+?) \| (.+?) \| (.+?) \|$", page, re.M)
    assert len({path for path, *_ in rows}) == len(rows)
    return {path: (found, factory, by) for path, found, factory, by in rows}


def row_of(path: str, table: dict[str, tuple[str, str, str]]) -> str:
    rows = [row for row in table if fnmatch.fnmatchcase(path, row)]
    assert len(rows) == 1, f"{path}: rows {rows}"
    return rows[0]


def told(value: object) -> str:
    return ("off", "on")[value] if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def test_each_difference_is_a_row_and_each_row_a_difference(
    seen: dict[str, Any], table: dict[str, tuple[str, str, str]]
) -> None:
    assert seen["settings"] > 500
    met = set()
    for engine in ENGINE_SAMPLES:
        for path, (found, factory) in seen["differences"][engine].items():
            row = row_of(path, table)
            met.add(row)
            said, own, by = table[row]
            assert own == told(factory), path
            assert said == told(found) or (by == "`--engine`" and engine != "cycles"), path
    assert met == set(table)


def test_the_table_tells_what_a_job_may_change(seen: dict[str, Any], table: dict[str, tuple[str, str, str]]) -> None:
    paths = {path for differences in seen["differences"].values() for path in differences}
    for path in paths:
        assert (table[row_of(path, table)][2] == "the job") == (path in seen["jobs"]), path


def test_denoising_is_the_one_difference_that_its_option_makes(seen: dict[str, Any]) -> None:
    plain, denoised = seen["differences"]["cycles"], seen["differences"]["denoised"]
    assert plain.keys() - denoised.keys() == {"cycles.use_denoising"}
    assert denoised.items() <= plain.items()
