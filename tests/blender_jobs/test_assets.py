"""A job opens the files that the plan knows and no others, whatever else is on the disk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest

from blender_jobs import assets
from blender_jobs.job import JobError


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    yield
    assets.begin(Path.cwd())


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A job's folder with HDRIs, and a mesh elsewhere."""
    folder = tmp_path / "job"
    for name in ("hdri/b.hdr", "hdri/a.hdr", "hdri/C.exr", "hdri/deep/d.hdr", "hdri/.hidden.hdr", "../meshes/cup.obj"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.name)
    assets.begin(folder)
    return folder


def known(*paths: str | Path) -> dict[str, str]:
    return {asset.path: asset.sha256 for asset in assets.digest(paths)}


def test_paths_start_at_the_jobs_folder(job: Path) -> None:
    """Relative paths are the job's, whatever the working directory; what was used is listed in order."""
    assert assets.use("hdri/b.hdr") == job / "hdri/b.hdr"
    assert assets.use("../meshes/cup.obj") == job.parent / "meshes/cup.obj"
    assert assets.use(job / "hdri" / "a.hdr") == job / "hdri/a.hdr"
    assert assets.used() == [job / "hdri/a.hdr", job / "hdri/b.hdr", job.parent / "meshes/cup.obj"]
    assets.begin(job)
    assert assets.used() == []


def test_digest_names_files_alike_on_all_machines(job: Path) -> None:
    """Folders are expanded, hidden files left out; names start at the job's folder or at the outer folder's name."""
    found = assets.digest(["hdri", "../meshes/cup.obj", job / "hdri/a.hdr"])
    assert [asset.name for asset in found] == [
        "hdri/C.exr",
        "hdri/a.hdr",
        "hdri/b.hdr",
        "hdri/deep/d.hdr",
        "meshes/cup.obj",
    ]
    assert astuple(found[1]) == ("hdri/a.hdr", str(job / "hdri/a.hdr"), 5, hashlib.sha256(b"a.hdr").hexdigest())
    assert [asset.name for asset in assets.digest(["../meshes"])] == ["meshes/cup.obj"]


def test_two_files_of_one_name_are_told_apart(job: Path, tmp_path: Path) -> None:
    """Where two files elsewhere would have one name, as many of their folders are named as tell them apart."""
    twin = tmp_path / "elsewhere/meshes/cup.obj"
    twin.parent.mkdir(parents=True)
    twin.write_text("another")
    both = ["elsewhere/meshes/cup.obj", f"{tmp_path.name}/meshes/cup.obj"]
    assert [asset.name for asset in assets.digest(["../meshes", twin])] == both
    assert assets.names([twin, "../meshes/cup.obj", "../meshes/lost.obj"]) == sorted([*both, "meshes/lost.obj"])


def test_what_lies_below_the_blend_is_named_from_its_folder(job: Path, tmp_path: Path) -> None:
    """However deep: a `.blend` and its files may be elsewhere together, and are called the same."""
    for place in ("here", "there"):
        for name in ("room.blend", "tex/wall.png.txt", "cache/config/1.uni", "cache/data/1.uni"):
            path = tmp_path / place / "room" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
    found = []
    for place in ("here", "there"):
        files = [path for path in (tmp_path / place).rglob("*") if path.is_file()]
        found.append([asset.name for asset in assets.digest(files, tmp_path / place / "room/room.blend")])
    assert found[0] == ["room/cache/config/1.uni", "room/cache/data/1.uni", "room/room.blend", "room/tex/wall.png.txt"]
    assert found[0] == found[1]


def test_only_what_the_plan_knows_is_opened(job: Path) -> None:
    """A file that the plan does not know, or knows with another content, is one clear line."""
    assets.begin(job, known("hdri/a.hdr", "hdri/b.hdr"))
    assert assets.use("hdri/a.hdr") == job / "hdri/a.hdr"
    with pytest.raises(
        JobError, match=r"C\.exr is not among the plan's assets: name it, or its folder, in a Path field"
    ):
        assets.use("hdri/C.exr")
    (job / "hdri/b.hdr").write_text("edited")
    with pytest.raises(JobError, match=r"b\.hdr has changed since the plan was made"):
        assets.use("hdri/b.hdr")


def test_missing_files_are_named(job: Path) -> None:
    """No such file or folder, a folder for a file, a pattern that nothing matches: each says which."""
    with pytest.raises(JobError, match=r"nope\.hdr does not exist \(relative paths start at the job's folder"):
        assets.use("nope.hdr")
    with pytest.raises(JobError, match="hdri is a folder, not a file"):
        assets.use("hdri")
    with pytest.raises(JobError, match="nope is not a folder"):
        assets.listing("nope")
    with pytest.raises(JobError, match=r"hdri has no file that matches \*\.png or \*\.jpg"):
        assets.listing("hdri", ["*.png", "*.jpg"])
    with pytest.raises(JobError, match="nope does not exist"):
        assets.digest(["nope"])


def test_a_listing_is_sorted_and_the_plans(job: Path) -> None:
    """A folder's listing does not depend on the disk's order, and stops where files came or went since the plan."""
    assert [path.name for path in assets.listing("hdri", ["*.hdr", "*.exr"])] == ["C.exr", "a.hdr", "b.hdr"]
    assert [path.name for path in assets.listing("hdri", "**/*.hdr")] == ["a.hdr", "b.hdr", "d.hdr"]
    assets.begin(job, known("hdri"))
    assert assets.choose(np.random.default_rng(3), "hdri") == assets.choose(np.random.default_rng(3), "hdri")
    (job / "hdri/new.hdr").write_text("new")
    with pytest.raises(JobError, match=r"new\.hdr is not among the plan's assets.*came after the plan"):
        assets.listing("hdri")
    (job / "hdri/new.hdr").unlink()
    (job / "hdri/a.hdr").unlink()
    with pytest.raises(JobError, match=r"a\.hdr was there when the plan was made and is now missing"):
        assets.listing("hdri")
