"""Run `compile-dataset` as a user does: the installed command, in a process of its own."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tempfile
import textwrap
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from loaders.manifest import Manifest
from loaders.tarstream import read_samples

MARK = f"BLENDSHARD_TEST={os.getpid()}"
os.environ.update([MARK.split("=")])  # instances inherit it: so they are told from those of others on this machine

COMMAND = Path(sys.executable).with_name("compile-dataset")

TINY = ["--engine", "workbench", "--render-samples", "0", "--size", "64x48"]
"""Options that make a render as cheap as it gets."""


def run(*args: object, cwd: Path | None = None, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    line = [str(COMMAND), *map(str, args)]
    environment = {**os.environ, **(env or {})}
    return subprocess.run(line, capture_output=True, text=True, cwd=cwd, timeout=300, env=environment, check=False)


def forked(
    *args: object, cwd: Path | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command in a fork of this process, which has loaded its modules: for what it says, ten times as fast."""
    from compiler import cli
    from compiler.verification import verify  # noqa: F401 - loaded before the fork

    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # that a process with threads is forked
            process = os.fork()
        if process == 0:
            _be_the_command(cli.main, [str(COMMAND), *map(str, args)], (out.fileno(), err.fileno()), cwd, env or {})
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        said = [file.seek(0) or file.read().decode() for file in (out, err)]
    return subprocess.CompletedProcess(args, code, *said)


def _be_the_command(
    main: Callable[[], object], line: list[str], streams: tuple[int, int], cwd: Path | None, env: dict[str, str]
) -> NoReturn:
    code = 70
    try:
        for number, stream in enumerate(streams, 1):
            os.dup2(stream, number)
        sys.stdin = open(os.devnull)  # noqa: PTH123, SIM115
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        warnings.resetwarnings()  # those of pytest are errors
        os.environ.update(env)
        os.chdir(cwd or ".")
        sys.argv = line
        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def start(*args: object) -> subprocess.Popen[str]:
    """Start the command in a process group of its own, as a shell does."""
    line = [str(COMMAND), *map(str, args)]
    pipe = subprocess.PIPE
    return subprocess.Popen(line, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def ok(*args: object) -> str:
    """Run the command, which must succeed; return its stdout."""
    return _stdout(run(*args))


def forked_ok(*args: object) -> str:
    """As `ok`, in a fork."""
    return _stdout(forked(*args))


def _stdout(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def digests(folder: Path) -> dict[str, str]:
    """Return each shard's sha256 by name."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.tar"))}


def annotations(folder: Path) -> list[dict[str, Any]]:
    """Return the annotations of all samples in order."""
    manifest = Manifest.load(folder)
    found = []
    for shard in manifest.shards:
        with (folder / shard.name).open("rb") as file:
            found += [json.loads(sample.members["json"]) for sample in read_samples(file)]
    return found


def compiled(job: Path, folder: Path, samples: int, *args: object) -> list[dict[str, Any]]:
    """Compile one shard of a job, tiny; return its `decoded` samples."""
    ok(job, *TINY, "--shards", 1, "--samples-per-shard", samples, "--out", folder, *args)
    return decoded(folder)


def decoded(folder: Path) -> list[dict[str, Any]]:
    """Return the samples of the first shard: the members by name, arrays and JSON decoded."""
    with (folder / Manifest.load(folder).shards[0].name).open("rb") as shard:
        return [{name: _decoded(name, held) for name, held in one.members.items()} for one in read_samples(shard)]


def _decoded(name: str, content: bytes) -> Any:
    if name.endswith("json"):
        return json.loads(content)
    return np.load(io.BytesIO(content), allow_pickle=False) if name.endswith("npy") else content


def write_job(folder: Path, hooks: str, name: str = "job.py", head: str = "") -> Path:
    """Write a small job: a cube, a camera, and `hooks` as the class's further body."""
    text = f"""\
import os, random, time
from dataclasses import dataclass
from pathlib import Path
import numpy as np
from blender_jobs import stage
from blender_jobs.job import Job
{head}

@dataclass
class Small(Job):
    frames: range = range(1, 4)

    def setup(self):
        self.cube = stage.cube("cube")
        stage.sun()
        stage.camera(at=(4, -4, 3))

    def annotate(self, view):
        return {{"objects": [view.describe(self.cube, category="cube")]}}

"""
    path = folder / name
    path.write_text(text + textwrap.indent(textwrap.dedent(hooks), "    "))
    return path


def workers() -> set[int]:
    """Return the process ids of all running instances that these tests started."""
    return {int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdecimal() and _is_worker(folder)}


def _is_worker(process: Path) -> bool:
    try:
        ours = MARK.encode() in (process / "environ").read_bytes().split(b"\0")
        return ours and b"blender_jobs" in (process / "cmdline").read_bytes()
    except OSError:
        return False
