"""The dataset's directory: nothing of the user's is lost in it, no one else writes there, nothing old stays in it."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from blender_jobs.orders import Asset
from compiler.build import find_outstanding
from compiler.cli.report import PlanReport
from compiler.errors import JobBroken, OtherPlan, UsageError, disk_error
from compiler.planning.plan import Plan
from compiler.storage import failures
from compiler.storage.destination import LiveOnly
from compiler.storage.directory import open_directory
from compiler.storage.existing import LOCK_NAME
from compiler.storage.failures import Failure, replay_command
from compiler.storage.sources import FOLDER, copy_sources
from loaders.manifest import FILE_NAME, Manifest
from tests.planned_dataset import Recipe, make

FILES = {"cubes.py": b"import shapes.box\n", "shapes/box.py": b"SIZE = 1\n"}


def plan_with(sources: Mapping[str, bytes], folder: Path) -> Plan:
    """Return a plan whose job's files are in `folder`; these contents are what it was drawn up with."""
    found = [
        Asset(name, str(folder / name), len(content), hashlib.sha256(content).hexdigest())
        for name, content in sources.items()
    ]
    plan = Recipe().plan
    return replace(plan, job=replace(plan.job, sources=found))


def write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_job_that_runs_from_its_own_copy_is_not_lost(tmp_path: Path) -> None:
    """Its copy may be the only one, and so may what it reads beside it."""
    write(tmp_path / FOLDER, {**FILES, "red.bin": b"precious"})
    copy_sources(plan_with(FILES, tmp_path / FOLDER), tmp_path)
    assert files_in(tmp_path / FOLDER) == {**FILES, "red.bin": b"precious"}


def test_beside_the_copies_of_a_job_nothing_old_stays(tmp_path: Path) -> None:
    write(tmp_path / "job", FILES)
    stale = {"__pycache__/cubes.pyc": b"", "shapes/old.py": b"", "old.py": b"", "cubes.py": b"old"}
    write(tmp_path / FOLDER, stale)
    copy_sources(plan_with(FILES, tmp_path / "job"), tmp_path)
    assert files_in(tmp_path / FOLDER) == FILES


def test_sources_that_are_gone_or_changed_leave_the_copies_alone(tmp_path: Path) -> None:
    write(tmp_path / "job", {"cubes.py": FILES["cubes.py"]})
    write(tmp_path / FOLDER, {"cubes.py": b"an earlier one"})
    with pytest.raises(UsageError, match=r"cannot read .*box\.py: No such file"):
        copy_sources(plan_with(FILES, tmp_path / "job"), tmp_path)
    write(tmp_path / "job", {"shapes/box.py": b"SIZE = 2\n"})
    with pytest.raises(JobBroken, match=r"box\.py was changed"):
        copy_sources(plan_with(FILES, tmp_path / "job"), tmp_path)
    assert files_in(tmp_path / FOLDER) == {"cubes.py": b"an earlier one"}


def test_a_link_in_the_place_of_the_copies_costs_nothing_behind_it(tmp_path: Path) -> None:
    write(tmp_path / "job", {**FILES, "notes.txt": b"precious"})
    (tmp_path / FOLDER).symlink_to(tmp_path / "job")
    copy_sources(plan_with(FILES, tmp_path / "job"), tmp_path)
    assert files_in(tmp_path / "job") == {**FILES, "notes.txt": b"precious"}
    assert files_in(tmp_path / FOLDER) == FILES


def test_what_another_compiler_wrote_before_the_lock_was_ours_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = Recipe(seed=1).plan, Recipe(seed=2).plan.manifest({})
    acquire = FileLock.acquire

    def late(lock: FileLock, *args: Any, **options: Any) -> Any:
        (tmp_path / FILE_NAME).write_bytes(theirs.to_json())
        (tmp_path / "theirs-train-000000.tar").touch()  # without anything rendered it would stand in no one's way
        return acquire(lock, *args, **options)

    monkeypatch.setattr(FileLock, "acquire", late)
    with pytest.raises(OtherPlan, match="seed was 2, is 1"), open_directory(tmp_path, ours, {}, fresh=False):
        pass
    assert Manifest.load(tmp_path) == theirs
    assert not (tmp_path / LOCK_NAME).exists()


def test_the_lock_is_taken_away_while_it_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind its release the file might be another's lock."""
    there, release = [], FileLock.release

    def watched(lock: FileLock, *args: Any, **options: Any) -> None:
        there.append((tmp_path / LOCK_NAME).exists())
        release(lock, *args, **options)

    with open_directory(tmp_path, Recipe().plan, {}, fresh=False):
        assert (tmp_path / LOCK_NAME).exists()
        monkeypatch.setattr(FileLock, "release", watched)
    assert there[0] is False


def test_fresh_removes_shards_that_no_manifest_knows(tmp_path: Path) -> None:
    """A compiler was killed between a shard's name and its entry. Files of other names are not ours."""
    with open_directory(tmp_path, Recipe(seed=1).plan, {}, fresh=False):
        pass
    others = ["cubes-train-000000.tar.gz", "other-train-000000.tar", "cubes-train-mine.tar"]
    write(tmp_path, dict.fromkeys(["cubes-train-000007.tar", "cubes-train-000007.tar.journal", *others], b""))
    with open_directory(tmp_path, Recipe(seed=2).plan, {}, fresh=True):
        assert {path.name for path in tmp_path.iterdir()} == {FILE_NAME, LOCK_NAME, *others}


def test_a_folder_in_the_place_of_a_shard_is_told_before_anything_is_rendered(tmp_path: Path) -> None:
    with open_directory(tmp_path, Recipe().plan, {}, fresh=False):
        pass
    (tmp_path / "cubes-train-000002.tar").mkdir()
    with (
        pytest.raises(UsageError, match=r"cubes-train-000002\.tar is a folder"),
        open_directory(tmp_path, Recipe().plan, {}, fresh=False),
    ):
        pass


def begun(folder: Path, recipe: Recipe, *failed: str) -> Plan:
    """Render the first of a shard's three episodes, and let the job fail in the episodes of these first samples."""
    plan = recipe.plan
    first, *_ = plan.episodes(0)
    with open_directory(folder, plan, {}, fresh=False) as directory:
        writer = directory.writer(0, skipping=False)
        for at, sample in enumerate(first.samples):
            writer.add(sample.key, recipe.members(first, at))
        writer.seal()
        writer.close()
        for sample_key in failed:
            directory.note(Failure("job failed", 0, 1, 1, "job.py:3: randomize: failed", [], "", sample_key))
    return plan


OLD, NEW = Recipe(seed=1), Recipe(seed=2)
FIRST, SECOND = "000000-000000", "000000-000002"


def test_what_a_job_that_failed_has_left_makes_way_for_the_mended_one(tmp_path: Path) -> None:
    """No build of the old plan comes past the episode: what it left is of no use. A line tells what is removed."""
    begun(tmp_path, OLD, SECOND)
    with open_directory(tmp_path, NEW.plan, {}, fresh=False) as directory:
        assert directory.started_over == (
            f"{tmp_path} holds another plan (seed was 1, is 2), whose job failed in episode 1 with no shard finished:"
            " a build starts it over and removes 1 shard begun, with 2 samples in whole episodes"
        )
    assert {path.name for path in tmp_path.iterdir()} == {FILE_NAME}
    assert Manifest.load(tmp_path).plan == NEW.plan.identity()


@pytest.mark.parametrize("failed", [(), (FIRST,)])
def test_what_could_go_on_is_kept_from_another_plan(failed: tuple[str, ...], tmp_path: Path) -> None:
    """It was interrupted; or the job failed for a passing reason: a later run came past the episode."""
    plan, before = begun(tmp_path, OLD, *failed), files_in(tmp_path)
    with (
        pytest.raises(OtherPlan, match="seed was 1, is 2") as refused,
        open_directory(tmp_path, NEW.plan, {}, fresh=False),
    ):
        pass
    lost = ", or start over with --fresh, which removes 1 shard begun, with 2 samples in whole episodes"
    assert refused.value.hint == f"name another place with --out to keep both{lost}"
    assert files_in(tmp_path) == before
    with open_directory(tmp_path, plan, {}, fresh=False) as directory:
        assert directory.started_over == ""
        writer = directory.writer(0, skipping=False)
        assert len(writer.kept.samples) == 2
        writer.close()


def test_finished_shards_are_counted_where_they_would_be_lost(tmp_path: Path) -> None:
    """Even if the job failed: they are what somebody wanted."""
    make(tmp_path, replace(OLD, shards=3))
    (tmp_path / "cubes-train-000007.tar").touch()
    with open_directory(tmp_path, OLD.plan, {}, fresh=False) as directory:
        directory.note(Failure("job failed", 5, 15, 1, "failed", [], "", "000005-000000"))
    for fresh, hint in (
        (False, ", which removes 3 finished shards with 15 samples, and 1 .tar file that the manifest does not know"),
        (None, "keep both"),
    ):
        with pytest.raises(OtherPlan) as refused, open_directory(tmp_path, NEW.plan, {}, fresh):
            pass
        assert refused.value.hint.endswith(hint)
    assert len(list(tmp_path.glob("*.tar"))) == 4


def test_where_nothing_is_whole_another_plan_begins_anew_and_says_so(tmp_path: Path) -> None:
    """A compiler was killed in its first episode. A list of failures that is no list is no reason to fail."""
    with open_directory(tmp_path, OLD.plan, {}, fresh=False):
        pass
    write(tmp_path, {"cubes-train-000000.tar.part": b"half", failures.FILE_NAME: b'[]\n{"what": "job failed"}\n{'})
    with open_directory(tmp_path, NEW.plan, {}, fresh=False) as directory:
        assert directory.started_over == (
            f"{tmp_path} holds another plan (seed was 1, is 2) and nothing whole: a build starts it over"
        )
    assert {path.name for path in tmp_path.iterdir()} == {FILE_NAME}


def test_half_a_line_in_the_file_of_failures_costs_no_other_line(tmp_path: Path) -> None:
    failure = Failure("instance lost", 0, 1, 1, "died of SIGSEGV", [], "compile-dataset replay")
    failures.append(tmp_path, failure)
    with (tmp_path / failures.FILE_NAME).open("ab") as file:
        file.write(b'{"what": "inst')
    failures.append(tmp_path, failure)
    failures.append(tmp_path, failure)
    first, half, *rest = (tmp_path / failures.FILE_NAME).read_text().splitlines()
    assert half == '{"what": "inst'
    assert [json.loads(line)["episode"] for line in (first, *rest)] == [1, 1, 1]


def test_the_replay_command_names_the_blender_that_was_used() -> None:
    assert replay_command(Path("a b"), 3, None) == "compile-dataset replay 'a b' --episode 3"
    assert replay_command(Path("out"), 3, "/opt/b 4/blender").endswith(" --episode 3 --blender '/opt/b 4/blender'")


@pytest.mark.parametrize(("number", "advised"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EIO, False)])
def test_room_is_asked_for_where_it_is_missing(number: int, advised: bool) -> None:
    assert ("make room" in disk_error(OSError(number, "so"), Path("out")).hint) == advised


def test_what_is_missing_of_a_huge_dataset_is_not_listed(tmp_path: Path) -> None:
    """Nor is an end taken for none: 0 shards are nothing to do."""
    plan, many = Recipe(samples_per_shard=5).plan, 10**7
    work = find_outstanding(LiveOnly(plan, plan.manifest({})), many)
    assert iter(work.missing) is work.missing
    assert next(iter(work.missing)) == 0
    assert (work.report.samples_wanted, work.report.shards_done) == (5 * many, 0)
    assert PlanReport(plan, 10**15, tmp_path, None).missing == 10**15
    none = find_outstanding(LiveOnly(plan, plan.manifest({})), 0)
    assert (none.endless, list(none.missing)) == (False, [])


LINKED = {
    "the manifest": FILE_NAME,
    "the manifest on its way": f"{FILE_NAME}.part",
    "a part": "cubes-train-000001.tar.part",
    "a journal": "cubes-train-000001.tar.journal",
    "a journal on its way": "cubes-train-000001.tar.journal.part",
    "a shard that no manifest knows": "cubes-train-000001.tar",
    "the list of failures": failures.FILE_NAME,
    "the lock": LOCK_NAME,
    "the sources": FOLDER,
}


@pytest.mark.parametrize("case", LINKED)
@pytest.mark.parametrize("fresh", [False, True])
def test_nothing_is_written_through_a_link(case: str, fresh: bool, tmp_path: Path) -> None:
    """Each file that a build writes may be a link in a stranger's dataset: what it points to is not ours."""
    out, name = tmp_path / "out", LINKED[case]
    plan = Recipe().plan
    out.mkdir()
    (out / FILE_NAME).write_bytes(plan.manifest({}).to_json())
    precious = tmp_path / "precious"
    if name == FOLDER:
        write(precious, {"cubes.py": b"precious"})
    else:
        precious.write_bytes((out / FILE_NAME).read_bytes() if name == FILE_NAME else b"precious")
    before = files_in(tmp_path)
    (out / name).unlink(missing_ok=True)
    (out / name).symlink_to(precious)
    with pytest.raises(UsageError, match=rf"{name} is a link"), open_directory(out, plan, {}, fresh):
        pass
    (out / name).unlink()
    assert files_in(tmp_path) == {path: before[path] for path in before if path != f"out/{name}"}


@pytest.mark.parametrize("name", [LINKED["a part"], LINKED["a journal"], failures.FILE_NAME])
def test_a_link_that_comes_later_is_not_followed_either(name: str, tmp_path: Path) -> None:
    """Between the look at the folder and the writing."""
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    with open_directory(tmp_path / "out", Recipe().plan, {}, fresh=False) as directory:
        (tmp_path / "out" / name).symlink_to(precious)
        if name == failures.FILE_NAME:
            directory.note(Failure("instance lost", 0, 0, 1, "died", [], ""))
        else:
            with suppress(OSError):
                directory.writer(1, skipping=False).close()
    assert precious.read_bytes() == b"precious"


def test_copies_of_sources_go_into_no_linked_folder(tmp_path: Path) -> None:
    write(tmp_path / "job", FILES)
    write(tmp_path / "precious", {"box.py": b"precious"})
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "shapes").symlink_to(tmp_path / "precious")
    copy_sources(plan_with(FILES, tmp_path / "job"), tmp_path)
    assert files_in(tmp_path / "precious") == {"box.py": b"precious"}
    assert files_in(tmp_path / FOLDER) == FILES


def test_a_finished_shard_may_be_a_link(tmp_path: Path) -> None:
    """Users keep them on other disks: it is only read, and replaced as a whole."""
    manifest = make(tmp_path / "out", Recipe(shards=1))
    (tmp_path / "disk").mkdir()
    shard = tmp_path / "out" / manifest.shards[0].name
    shard.rename(tmp_path / "disk" / shard.name)
    shard.symlink_to(tmp_path / "disk" / shard.name)
    with open_directory(tmp_path / "out", Recipe().plan, {}, fresh=False) as directory:
        assert directory.damaged() == []


@pytest.mark.parametrize("name", ["cubes-train-000001.tar.part", "cubes-train-000001.tar.journal", FILE_NAME])
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(name: str, tmp_path: Path) -> None:
    plan = Recipe().plan
    (tmp_path / FILE_NAME).write_bytes(plan.manifest({}).to_json())
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    with pytest.raises(UsageError, match="is a pipe or a device"), open_directory(tmp_path, plan, {}, fresh=False):
        pass
