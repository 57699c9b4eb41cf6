"""Rendering a dataset again runs its code: a stranger's only where the user says so, after its digest was checked."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loaders.manifest import FILE_NAME, Manifest
from tests.commands import COMMAND, TINY, forked, ok, run, write_job

AGAIN: dict[str, list[object]] = {
    "verify": ["verify", "OUT", "--rerender", 1, "--quiet"],
    "reproduce": ["reproduce", "OUT", "--out", "AGAIN", "--quiet"],
    "replay": ["replay", "OUT", "--episode", 0, "--out", "AGAIN"],
}

READING: dict[str, list[object]] = {
    "verify": ["verify", "OUT", "--quiet"],
    "show": ["show", "OUT", "--out", "AGAIN.png"],
    "diff": ["diff", "OUT", "OUT"],
    "export": ["export", "files", "OUT", "AGAIN"],
}

HELPER = "def anything():\n    pass\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stranger's dataset, made in a home of their own. The job leaves a mark whenever it runs."""
    folder = tmp_path_factory.mktemp("stranger")
    (folder / "helpers.py").write_text(HELPER)
    head = f"import helpers\nopen({str(folder.parent / 'ran')!r}, 'a').write('job ')"
    job = write_job(folder, "", head=head)
    os.environ["XDG_STATE_HOME"], mine = str(folder / "state"), os.environ["XDG_STATE_HOME"]
    try:
        ok(job, "--shards", 1, "--samples-per-shard", 2, *TINY, "--out", folder / "out")
    finally:
        os.environ["XDG_STATE_HOME"] = mine
    return folder


@pytest.fixture
def published(made: Path, tmp_path: Path) -> Path:
    """A copy of the dataset; no code has run yet."""
    mark(made).unlink(missing_ok=True)
    shutil.copytree(made / "out", tmp_path / "out")
    return tmp_path / "out"


def mark(made: Path) -> Path:
    """Return where the job leaves its mark."""
    return made.parent / "ran"


def line(command: list[object], out: Path) -> list[object]:
    """Return a command for a dataset; what it writes goes beside it."""
    places = {"OUT": out, "AGAIN": out.parent / "again", "AGAIN.png": out.parent / "again.png"}
    return [places.get(str(word), word) for word in command]


@pytest.mark.parametrize("command", AGAIN)
def test_a_strangers_code_runs_only_when_trusted(command: str, made: Path, published: Path) -> None:
    refused = forked(*line(AGAIN[command], published))
    assert refused.returncode == 2
    assert not mark(made).exists()
    assert not (published.parent / "again").exists()
    assert "Error: rendering this dataset again runs its code, which is not yours" in refused.stderr
    assert "--trust-source" in refused.stderr
    for name, sha256 in Manifest.load(published).provenance["job"]["sources"].items():
        (shown,) = [shown for shown in refused.stderr.splitlines() if f"/{name} " in shown and sha256 in shown]
        assert f"{(made / name).stat().st_size} bytes" in shown
    done = run(*line(AGAIN[command], published), "--trust-source")
    assert done.returncode == 0, done.stderr
    assert mark(made).exists()


@pytest.mark.parametrize("command", READING)
def test_reading_runs_nothing_of_a_dataset(command: str, made: Path, published: Path) -> None:
    done = forked(*line(READING[command], published))
    assert done.returncode == 0, done.stderr
    assert not mark(made).exists()


def test_what_the_user_has_built_runs_again_wherever_it_lies(made: Path, published: Path, tmp_path: Path) -> None:
    """By its digest, not by its place: a file that the manifest names is anybody's."""
    (tmp_path / "mine").mkdir()
    for name in ("job.py", "helpers.py"):
        shutil.copyfile(made / name, tmp_path / "mine" / name)
    mine = {"XDG_STATE_HOME": str(tmp_path / "state")}
    assert run(*line(AGAIN["replay"], published), env=mine).returncode == 2
    built = run(tmp_path / "mine" / "job.py", "--shards", 1, *TINY, "--dry-run", "--out", tmp_path / "none", env=mine)
    assert built.returncode == 0, built.stderr
    assert run(*line(AGAIN["replay"], published), env=mine).returncode == 0


def test_a_file_that_the_user_names_runs(made: Path, published: Path) -> None:
    done = run(*line(AGAIN["replay"], published), "--job", published / "source" / "job.py")
    assert done.returncode == 0, done.stderr


def test_a_built_in_job_runs(tmp_path: Path) -> None:
    """Ours, not the copy in the dataset."""
    out = tmp_path / "out"
    ok("cube", "--shards", 1, "--samples-per-shard", 1, *TINY, "--out", out)
    forge(out, lambda manifest: with_job(manifest, path="/nowhere/cube.py"))
    (out / "source" / "cube.py").write_text("raise SystemExit('the copy ran')")
    assert run(*line(AGAIN["replay"], out), env={"XDG_STATE_HOME": str(tmp_path / "state")}).returncode == 0


CHANGED = "open({mark!r}, 'a').write('changed ')\n"


@pytest.mark.parametrize("changed", ["job.py", "helpers.py"])
@pytest.mark.parametrize("command", AGAIN)
def test_code_that_is_not_the_manifests_never_runs(
    command: str, changed: str, made: Path, published: Path, tmp_path: Path
) -> None:
    """Trusted or not, given or found: its digest comes first."""
    forge(published, lambda manifest: with_job(manifest, path=str(tmp_path / "gone" / "job.py")))
    with (published / "source" / changed).open("a") as file:
        file.write(CHANGED.format(mark=str(mark(made))))
    for more in ([], ["--trust-source"], ["--job", published / "source" / "job.py"]):
        refused = forked(*line(AGAIN[command], published), *more)
        assert refused.returncode == 4, refused.stderr
        assert f"{changed} is not what the dataset was made with" in refused.stderr
        assert not mark(made).exists()


def forge(out: Path, change: Callable[[Manifest], Manifest]) -> None:
    """Change a dataset's manifest; it is sealed anew, as anybody can."""
    (out / FILE_NAME).write_bytes(change(Manifest.load(out)).to_json())


def with_job(manifest: Manifest, **values: Any) -> Manifest:
    job = {**manifest.provenance["job"], **values}
    return replace(manifest, provenance={**manifest.provenance, "job": job})


def planned(manifest: Manifest, **values: Any) -> Manifest:
    return replace(manifest, plan={**manifest.plan, "job": {**manifest.plan["job"], **values}})


@pytest.mark.parametrize("command", AGAIN)
def test_a_manifest_names_no_other_file_to_run(command: str, made: Path, published: Path, tmp_path: Path) -> None:
    """Any file of the disk, with its right digest: it is not the user's for that."""
    (tmp_path / "job.py").write_bytes((made / "job.py").read_bytes())
    (tmp_path / "helpers.py").write_text(HELPER)
    forge(published, lambda manifest: with_job(manifest, path=str(tmp_path / "job.py")))
    refused = forked(*line(AGAIN[command], published))
    assert refused.returncode == 2
    assert f"which is not yours: {tmp_path / 'job.py'} and 1 more" in refused.stderr
    assert not mark(made).exists()


HAND_MADE: dict[str, Callable[[Manifest], Manifest]] = {
    "no sources": lambda manifest: with_job(manifest, sources={}),
    "a source outside": lambda manifest: with_job(
        manifest, sources={**manifest.provenance["job"]["sources"], "../../x.py": "0" * 64}
    ),
    "sources that are not the plan's": lambda manifest: with_job(
        manifest, sources={"job.py": manifest.provenance["job"]["sources"]["job.py"]}
    ),
    "digests that are numbers": lambda manifest: with_job(manifest, sources={"job.py": 1}),
    "a path that is a number": lambda manifest: with_job(manifest, path=3),
    "a path with a zero": lambda manifest: with_job(manifest, path="/x\0/job.py"),
    "no job": lambda manifest: replace(manifest, provenance={}),
}


@pytest.mark.parametrize("case", HAND_MADE)
def test_a_manifest_that_does_not_name_its_code_is_one_line(case: str, made: Path, published: Path) -> None:
    forge(published, HAND_MADE[case])
    for command in AGAIN.values():
        refused = forked(*line(command, published), "--trust-source")
        assert refused.returncode in (2, 4)
        assert refused.stderr.startswith("Error: ")
        assert "Traceback" not in refused.stderr
        assert not mark(made).exists()


@pytest.mark.parametrize("command", AGAIN)
def test_a_manifest_does_not_let_scripts_run(command: str, made: Path, published: Path) -> None:
    forge(published, lambda manifest: planned(manifest, trust_blend=True, blend="scene.blend"))
    refused = forked(*line(AGAIN[command], published), "--trust-source")
    assert refused.returncode == 2
    assert "was rendered with the scripts and drivers in scene.blend running" in refused.stderr
    assert "--trust-blend" in refused.stderr
    assert not mark(made).exists()


@pytest.mark.parametrize("answer", ["y", "n"])
def test_on_a_terminal_the_user_is_asked(answer: str, made: Path, published: Path) -> None:
    said, code = on_a_terminal(list(map(str, line(AGAIN["replay"], published))), answer)
    assert "Run it? [y/N]" in said
    for name, sha256 in Manifest.load(published).provenance["job"]["sources"].items():
        assert f"/{name}  {(made / name).stat().st_size} bytes  sha256 {sha256}" in said
    assert (code, mark(made).exists()) == ((0, True) if answer == "y" else (2, False)), said


def on_a_terminal(words: list[str], answer: str) -> tuple[str, int]:
    """Run a command on a terminal and answer its question; return what it says and its exit code."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([str(COMMAND), *words], stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    said = b""
    try:
        while part := os.read(ours, 1 << 16):
            said += part
            if b"[y/N]" in said and answer:
                os.write(ours, f"{answer}\n".encode())
                answer = ""
    except OSError:  # Linux: the other end is closed
        pass
    os.close(ours)
    return said.decode(), process.wait(60)


def test_the_users_own_needs_no_question_after_a_build(tmp_path: Path) -> None:
    """README's way: build, verify again, replay, reproduce."""
    out = tmp_path / "out"
    ok(write_job(tmp_path, ""), "--shards", 1, "--samples-per-shard", 1, *TINY, "--out", out)
    for command in AGAIN.values():
        shutil.rmtree(tmp_path / "again", ignore_errors=True)
        ok(*line(command, out))
    assert json.loads((out / FILE_NAME).read_text())["provenance"]["job"]["path"] == str(tmp_path / "job.py")
