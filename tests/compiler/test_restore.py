"""`reproduce` and `replay` by the stand-in for Blender: what cannot be rendered again is told in one line."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from compiler.blender.process import Instance, InstanceOptions
from compiler.errors import InstanceLost, UsageError
from compiler.planning.jobs import builtin_jobs
from compiler.resolve import restore_plan
from compiler.storage.published import Places, Published
from loaders.manifest import FILE_NAME, RECORDED, Manifest
from tests.commands import digests
from tests.scripts import fakes

CUBE = str(builtin_jobs()["cube"])
POISON = "episode == 4 and os.abort()"
"""In the second shard; an episode has three samples."""


def fake(*args: object, **faults: str) -> subprocess.CompletedProcess[str]:
    """Run the command with the stand-in."""
    line, environment = [sys.executable, fakes.SCRIPT, *map(str, args)], {**os.environ, **faults}
    return subprocess.run(line, capture_output=True, text=True, env=environment, timeout=60, check=False)


def build(out: Path, *more: object, **faults: str) -> subprocess.CompletedProcess[str]:
    plan = ["--shards", 2, "--samples-per-shard", 9, "--attempts", 1, "--quiet"]
    return fake("build", "cube", *plan, "--out", out, *more, **faults)


def reproduce(manifest: Path, out: Path, **faults: str) -> subprocess.CompletedProcess[str]:
    return fake("reproduce", manifest, "--job", CUBE, "--out", out, "--quiet", **faults)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed dataset."""
    out = tmp_path_factory.mktemp("made") / "out"
    assert build(out).returncode == 0
    return out


@pytest.fixture(scope="module")
def gapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, published without an episode."""
    out = tmp_path_factory.mktemp("gapped") / "out"
    assert build(out, "--on-poison", "skip", FAKE_SAMPLE=POISON).returncode == 0
    assert len(Manifest.load(out).skipped) == 3
    return out


def test_a_manifest_without_shards_is_not_rendered_without_end(made: Path, tmp_path: Path) -> None:
    manifest = replace(Manifest.load(made), shards=())
    (tmp_path / FILE_NAME).write_bytes(manifest.to_json())
    done = reproduce(tmp_path, tmp_path / "again")
    assert done.returncode == 2
    assert "the manifest has no finished shard" in done.stderr


@pytest.mark.parametrize("fault", ["", POISON])
def test_what_was_published_without_an_episode_is_reproduced(
    fault: str, made: Path, gapped: Path, tmp_path: Path
) -> None:
    """Whether the episode fails again or not: the samples beside it are held against each other."""
    done = reproduce(gapped, tmp_path / "again", FAKE_SAMPLE=fault)
    assert done.returncode == 0, done.stderr
    keys = "000001-000003, 000001-000004, 000001-000005"
    assert f"was published without 3 samples: {keys}; all other samples are the same" in done.stdout
    assert "the same bytes as the manifest says: 1 shards" in done.stdout
    assert digests(tmp_path / "again") == digests(gapped if fault else made)


def test_the_samples_beside_a_gap_must_be_the_same(gapped: Path, tmp_path: Path) -> None:
    manifest = Manifest.load(gapped)
    shard = manifest.shards[1]
    last = f"{int(shard.sample_digests[-8:], 16) ^ 1:08x}"
    other = manifest.with_shard(replace(shard, sample_digests=shard.sample_digests[:-8] + last), manifest.skipped)
    (tmp_path / FILE_NAME).write_bytes(other.to_json())
    done = reproduce(tmp_path, tmp_path / "again")
    assert done.returncode == 3
    assert "1 of 2 shards have other bytes" in done.stderr


def test_another_dataset_in_the_way_is_not_to_be_removed(made: Path, tmp_path: Path) -> None:
    """There is no ``reproduce --fresh``."""
    build(tmp_path / "other", "--seed", 1, "--shards", 1)
    done = reproduce(made, tmp_path / "other")
    assert done.returncode == 4
    assert ": seed was 1, is 0\n" in done.stderr
    assert "--fresh" not in done.stderr
    assert "--fresh" in build(tmp_path / "other").stderr


HAND_MADE: dict[str, tuple[Callable[[Manifest], Manifest], str]] = {
    "a recording": (lambda manifest: replace(manifest, provenance={RECORDED: "live"}), "recording"),
    "no samples": (lambda manifest: planned(manifest, samples_per_shard=0), "samples_per_shard is 0"),
    "too many": (lambda manifest: planned(manifest, samples_per_shard=10**9), "samples_per_shard is 1000000000"),
    "below 0": (lambda manifest: planned(manifest, seed=-5), "seed is -5"),
    "an asset that is gone": (
        lambda manifest: with_field(manifest, "/gone/red.png"),
        "field color: there is no file or folder at /gone/red.png",
    ),
}


def planned(manifest: Manifest, **values: object) -> Manifest:
    return replace(manifest, plan={**manifest.plan, **values})


def with_field(manifest: Manifest, was: str) -> Manifest:
    job: dict[str, Any] = {**manifest.plan["job"], "fields": {"color": "red.png"}}
    made = {**manifest.provenance["job"], "path_fields": {"color": was}}
    return replace(planned(manifest, job=job), provenance={**manifest.provenance, "job": made})


@pytest.mark.parametrize("case", HAND_MADE)
def test_a_plan_that_cannot_be_drawn_up_again_is_one_line(case: str, made: Path) -> None:
    change, said = HAND_MADE[case]
    with pytest.raises(UsageError, match=said) as caught:
        restore_plan(Published(made, change(Manifest.load(made)), Places(Path(CUBE))), cast(Instance, None))
    assert "\n" not in str(caught.value)
    assert ("--assets" in caught.value.hint) == ("field" in said)


def test_the_command_that_replays_a_failure_carries_its_blender(tmp_path: Path) -> None:
    out, blender = tmp_path / "out", "/opt/my blender"
    done = build(out, "--blender", blender, FAKE_SAMPLE=POISON)
    assert done.returncode == 1
    (noted,) = map(json.loads, (out / "failures.jsonl").read_text().splitlines())
    assert noted["replay"] == f"compile-dataset replay {out} --episode 4 --blender {shlex.quote(blender)}"
    assert f"Try: {noted['replay']}\n" in done.stderr


def test_a_replay_of_a_scene_that_is_reused_renders_what_comes_before(made: Path, tmp_path: Path) -> None:
    """The second shard's three episodes up to the last; of these only the last leaves files."""
    log = tmp_path / "rendered"
    build(tmp_path / "out", REUSE="1")
    noting = f"open({str(log)!r}, 'a').write(f'{{episode}} ')"
    done = fake(
        *("replay", tmp_path / "out", "--episode", 5, "--out", tmp_path / "episode", "--job", CUBE),
        REUSE="1",
        FAKE_SAMPLE=noting,
    )
    assert done.returncode == 0, done.stderr
    assert log.read_text().split() == list("333444555")
    names = {path.name.partition(".")[0] for path in (tmp_path / "episode").iterdir()}
    assert names == {"000001-000006", "000001-000007", "000001-000008"}


PROGRESS = (
    "Fra:1 Mem:9.22M (Peak 9.22M) | Time:00:00.02 | Mem:1.09M, Peak:1.09M | Scene, ViewLayer | Sample 0/1",
    "Saved: '/tmp/a/frame.png'",
    "Time: 00:00.04 (Saving: 00:00.00)",
    " Time: 00:00.04 (Saving: 00:00.00)",
    "00:01.250  render           | Saved: '/tmp/a/frame.png'",
)
"""As Blender writes it."""

WORDS = ("Time: 3 s in setup", "Saved: all of it", "drew 0.9", "Warning: a driver is wrong")
"""Of a job, and of Blender."""


@pytest.mark.parametrize("verbose", [False, True])
def test_what_a_job_prints_is_not_lost_in_the_renderers_progress(made: Path, verbose: bool, tmp_path: Path) -> None:
    done = fake(
        *("replay", made, "--episode", 1, "--out", tmp_path / "episode", "--job", CUBE, *["--verbose"] * verbose),
        FAKE_SAMPLE=f"for line in {[*WORDS, *PROGRESS]!r}: print(line, flush=True)",
    )
    assert done.returncode == 0, done.stderr
    expected = [*WORDS, *PROGRESS] if verbose else [*WORDS]
    assert done.stderr.splitlines()[: 3 * len(expected)] == expected * 3
    assert done.stdout.splitlines() == [str(path) for path in map(Path, done.stdout.splitlines()) if path.exists()]


def test_an_instance_that_cannot_be_started_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def scarce(*_: object, **__: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(subprocess, "Popen", scarce)
    with pytest.raises(InstanceLost, match="could not be started: Too many open files"):
        Instance(InstanceOptions(1, 60))
    assert list(tmp_path.iterdir()) == []


def test_a_huge_dry_run_needs_no_huge_memory(tmp_path: Path) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))"
    plan = ["--shards", 10**8, "--samples-per-shard", 9, "--out", tmp_path / "out", "--instances", 1]
    done = fake("build", "cube", *plan, "--dry-run", FAKE_COMPILER=limit)
    assert "would render 900000000 samples (100000000 of 100000000 shards)" in done.stdout, done.stderr
