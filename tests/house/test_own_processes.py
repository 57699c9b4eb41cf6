"""What tests start: a fork says what the command says; a test that fails half-way leaves no process running."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.commands import forked, run
from tests.own_folders import ROOT

FAILING = """
import subprocess, sys
import pytest
from tests import commands

SLEEP = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(600)"
NESTED = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]])"

@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with subprocess.Popen([sys.executable, "-c", SLEEP, tmp_path_factory.mktemp("x") / "x"]) as process:
        yield process
        process.kill()

def arrived(path):
    while not (path.exists() and path.read_text()):
        pass

def test_fails_half_way(shared, tmp_path, monkeypatch):
    monkeypatch.setattr(commands, "COMMAND", sys.executable)
    commands.start("-c", SLEEP, {folder!r} + "/command")
    subprocess.Popen([sys.executable, "-c", NESTED, SLEEP, {folder!r} + "/nested"], start_new_session=True)
    for name in ("command", "nested"):
        arrived(tmp_path.__class__({folder!r}, name))
    raise KeyError("half-way")

def test_what_is_shared_still_runs(shared):
    assert shared.poll() is None
"""


@pytest.mark.parametrize("line", ["--version", "stats", "verify nowhere", "cube --shards 0"])
def test_a_fork_says_what_the_installed_command_says(line: str, tmp_path: Path) -> None:
    """Else tests that ask a fork would hold nothing of what users run."""
    installed, fork = run(*line.split(), cwd=tmp_path), forked(*line.split(), cwd=tmp_path)
    assert (fork.returncode, fork.stdout, fork.stderr) == (installed.returncode, installed.stdout, installed.stderr)
    assert installed.stdout + installed.stderr


def test_what_a_failing_test_started_is_killed(tmp_path: Path) -> None:
    """However deep it was started; what a module's fixture started lives on."""
    (tmp_path / "test_failing.py").write_text(FAILING.replace("{folder!r}", repr(str(tmp_path))))
    line = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.own_processes"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
    done = subprocess.run(
        [*line, "test_failing.py"], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert "1 failed, 1 passed" in done.stdout, done.stdout
    for name in ("command", "nested"):
        process, end = Path("/proc", (tmp_path / name).read_text(), "cmdline"), time.monotonic() + 10
        while process.exists() and process.read_bytes():  # neither gone nor a zombie
            assert time.monotonic() < end, f"{name} still runs"
            time.sleep(0.05)
