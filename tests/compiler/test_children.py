"""A file of the user's, or of a stranger's dataset, that has a module's name does no harm where a command runs.

Python puts the working directory before its own library when it is started with ``-m`` or ``-c``, as workers of
`multiprocessing` are. Each test runs in a folder in which every import of ours, and many of Python's, has a trap.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import textwrap
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from compiler.verification import verify
from loaders.children import safe_path
from tests.commands import COMMAND, TINY, run, write_job
from tests.planned_dataset import Recipe, make

NAMES = [
    *("json", "click", "multiprocessing", "numpy", "random", "signal", "tempfile", "hashlib", "struct", "queue"),
    *("PIL", "tqdm", "filelock", "torch", "runpy", "encodings", "blender_jobs", "compiler", "loaders", "bpy"),
    *("sitecustomize", "secrets", "decimal", "statistics", "uuid", "statvfs", "zlib", "fractions", "gpu", "resource"),
]
"""Modules that commands, Blender and workers import at their start, or late."""


def trap(folder: Path) -> Path:
    """Fill a folder with modules that leave a mark when they are run; return where the marks would be."""
    folder.mkdir(exist_ok=True)
    marks = folder / "marks"
    marks.mkdir()
    for name in NAMES:
        (folder / f"{name}.py").write_text(f"open({str(marks / name)!r}, 'w').close()\nraise SystemExit('trap')\n")
    return marks


def sprung(marks: Path) -> list[str]:
    """Return the traps that were run."""
    return sorted(path.name for path in marks.iterdir())


def script(folder: Path, program: str, *args: str, inside: str = "") -> str:
    """Run a program that lies in `folder`, as users' scripts do, in the trapped dataset; return what it says."""
    path = folder / "script.py"
    path.write_text(f"if __name__ == '__main__':\n{textwrap.indent(program, '    ')}\n")
    done = by_pythons_rule([sys.executable, str(path), *args], folder / (inside or "dataset"))
    assert done.returncode == 0, done.stderr
    return done.stdout


def by_pythons_rule(line: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, as where nobody has set PYTHONSAFEPATH: else no trap could be sprung."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=300, check=False, env=environment)


def test_a_trap_is_sprung_by_pythons_own_rule(tmp_path: Path) -> None:
    marks = trap(tmp_path / "here")
    by_pythons_rule([sys.executable, "-c", "import json"], tmp_path / "here")
    assert sprung(marks) == ["json"]


def test_doctor_and_a_build_run_where_modules_have_our_names(tmp_path: Path) -> None:
    """Without OpenGL, so that the doctor waits for no shaders of EEVEE: each Blender is started all the same."""
    here, job = tmp_path / "here", write_job(tmp_path, "")
    marks = trap(here)
    assert run("doctor", cwd=here, env={"__EGL_VENDOR_LIBRARY_DIRS": str(tmp_path)}).returncode == 0
    built = run(job, "--shards", 1, "--samples-per-shard", 1, *TINY, "--out", "out", cwd=here)
    assert built.returncode == 0, built.stderr
    assert sprung(marks) == []


def test_the_jobs_own_folder_is_for_the_jobs_own_imports(tmp_path: Path) -> None:
    """What lies beside a job, and is not imported by it, is not imported by Blender, numpy or us."""
    marks = trap(tmp_path / "jobs")
    (tmp_path / "jobs" / "helpers.py").write_text("import json, statistics\nSIZE = statistics.mean([1, 2, 3])\n")
    (tmp_path / "jobs" / "statistics.py").write_text("def mean(values):\n    return 2\n")  # the job's own of that name
    job = write_job(tmp_path / "jobs", "size: float = helpers.SIZE", head="import helpers")
    built = run(job, "--shards", 1, "--samples-per-shard", 1, *TINY, "--out", tmp_path / "out", cwd=tmp_path / "jobs")
    assert built.returncode == 0, built.stderr
    assert sprung(marks) == []
    copies = {path.name for path in (tmp_path / "out" / "source").iterdir()}
    assert copies == {"job.py", "helpers.py", "statistics.py"}


def test_verify_with_several_processes_runs_nothing_of_the_dataset(tmp_path: Path) -> None:
    make(tmp_path / "dataset", Recipe(shards=3))
    marks = trap(tmp_path / "dataset")
    assert verify._WORTH_PROCESSES > 0
    lines = ("from compiler import cli", "from compiler.verification import verify", "verify._WORTH_PROCESSES = 0")
    several = "\n".join([*lines, "cli.main()"])
    assert script(tmp_path, several, "verify", ".", "--jobs", "2", "--quiet").endswith("ok\n")
    assert sprung(marks) == []


def test_a_launched_compiler_runs_nothing_of_the_working_directory(tmp_path: Path) -> None:
    here, job = tmp_path / "here", write_job(tmp_path, "")
    marks = trap(here)
    program = f"""\
import compiler
with compiler.launch({str(job)!r}, engine="workbench", render_samples=0, size="64x48") as live:
    print(live.status()["samples_done"] >= 0)
"""
    assert script(tmp_path, program, inside="here") == "True\n"
    assert sprung(marks) == []


LOADERS = {
    "ShardDataset": "list(ShardDataset('.'))",
    "Loader": "list(Loader(ShardDataset('.'), 2, num_workers=1, multiprocessing_context='spawn', collate=len))",
    "LiveThenShards": "import loaders._tee.live_epoch; loaders._tee.live_epoch.DeliveredSamples(4)",
}


@pytest.mark.parametrize("case", LOADERS)
def test_loaders_run_nothing_of_the_dataset(case: str, tmp_path: Path) -> None:
    make(tmp_path / "dataset", Recipe(shards=2))
    marks = trap(tmp_path / "dataset")
    script(tmp_path, f"from loaders import *\n{LOADERS[case]}")
    assert sprung(marks) == []


@pytest.mark.parametrize("before", [None, "", "1"])
def test_threads_that_start_processes_at_once_leave_the_environment_as_it_was(
    before: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first to come is the first to leave: it must neither take the others' safe path away nor leave its own."""
    if before is None:
        monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    else:
        monkeypatch.setenv("PYTHONSAFEPATH", before)
    with ExitStack() as second:
        with safe_path():
            second.enter_context(safe_path())
        assert os.environ["PYTHONSAFEPATH"] == "1"
    assert os.environ.get("PYTHONSAFEPATH") == before


def test_a_process_forked_meanwhile_has_the_environment_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    with safe_path(), ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        assert pool.submit(os.getenv, "PYTHONSAFEPATH").result() is None
        assert pool.submit(_in_and_out).result() == ["1", None]


def _in_and_out() -> list[str | None]:
    """Return PYTHONSAFEPATH within and after `safe_path`."""
    with safe_path():
        within = os.environ.get("PYTHONSAFEPATH")
    return [within, os.environ.get("PYTHONSAFEPATH")]


def test_the_command_itself_looks_not_in_the_working_directory(tmp_path: Path) -> None:
    assert COMMAND.exists()
    marks = trap(tmp_path / "here")
    assert run("--version", cwd=tmp_path / "here").returncode == 0
    assert sprung(marks) == []
