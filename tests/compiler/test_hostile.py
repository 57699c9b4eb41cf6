"""Reading a stranger's dataset runs nothing of it, writes nothing elsewhere, ends soon, and says what is wrong."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from compiler import cli  # noqa: F401 - loaded before each reader is forked
from loaders import ShardDataset  # noqa: F401
from tests import hostile
from tests.planned_dataset import Recipe, make

LIMIT_BYTES = 3 << 30
"""Of memory, for the whole process: 0.6 GB of it are torch and Python."""

LIMIT_S = 100
"""Of processor time: what hangs, waits, and is found by the clock of the wall."""

CASES = list(hostile.corpus())


def test_the_corpus_is_large_and_its_names_differ() -> None:
    assert len({name for name, _ in CASES}) == len(CASES) > 250


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset as it should be. This process reads it once, so that its forks need not import each reader again."""
    folder = tmp_path_factory.mktemp("warm")
    (folder / "written").mkdir()
    make(folder / "honest", Recipe(shards=2, samples_per_shard=3, passes=("depth",)))
    (folder / "dataset").symlink_to(folder / "honest")
    for reader in hostile.READERS:
        with suppress(SystemExit):
            hostile.read(folder / "dataset", reader)
    return folder / "honest"


@pytest.mark.parametrize("reader", hostile.READERS)
def test_readers_read_what_is_honest(reader: str, honest: Path, tmp_path: Path) -> None:
    """Else all that follows would hold of a reader that refuses everything."""
    (tmp_path / "dataset").symlink_to(honest)
    (tmp_path / "honest").symlink_to(honest)
    (tmp_path / "written").mkdir()
    code, said = forked(tmp_path, reader)
    assert code == 0, said


@pytest.mark.parametrize(("name", "change"), CASES, ids=[name for name, _ in CASES])
def test_a_hostile_dataset_does_no_harm(name: str, change: hostile.Change, honest: Path, tmp_path: Path) -> None:
    for folder in ("marks", "precious", "written"):
        (tmp_path / folder).mkdir()
    (tmp_path / "precious" / "file").write_bytes(b"precious")
    (tmp_path / "honest").symlink_to(honest)
    hostile.publish(tmp_path / "dataset", change, tmp_path / "marks")
    before = listing(tmp_path)
    for reader in hostile.READERS:
        code, said = forked(tmp_path, reader)
        assert code in (0, 1, 2, 3), f"{reader}: {code}: {said}"
        assert "Traceback" not in said, f"{reader}: {said}"
        assert all(sign.isprintable() or sign in "\n\t" for sign in said), f"{reader}: {said!r}"
        assert "\n1 shard, 1 sample" not in said, f"{reader}: {said}"
    assert not list((tmp_path / "marks").iterdir())
    assert (tmp_path / "precious" / "file").read_bytes() == b"precious"
    assert {path for path in listing(tmp_path) if not path.startswith("written")} == before


def listing(folder: Path) -> set[str]:
    """Return all paths below a folder but what readers write, links not followed."""
    found = {str(path.relative_to(folder)) for path in walk(folder) if path.name != "said"}
    return {path for path in found if not path.startswith("written")}


def walk(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        yield from (Path(place, name) for name in [*folders, *files])


def forked(place: Path, reader: str) -> tuple[int, str]:
    """Run one reader in a process of its own, with the dataset as its working directory; return its code and words."""
    process = os.fork()
    if process == 0:
        words = os.open(place / "said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for number in (1, 2):
            os.dup2(words, number)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        os.chdir(place / "dataset")
        resource.setrlimit(resource.RLIMIT_CPU, (LIMIT_S, LIMIT_S))
        code = 70
        try:
            hostile.read(place / "dataset", reader)
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 71
        except BaseException as error:
            print(f"Traceback: {error!r}")
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    due = time.monotonic() + 10 * LIMIT_S
    while True:
        ended, status, used = os.wait4(process, os.WNOHANG)
        if ended:
            break
        if time.monotonic() > due:
            os.kill(process, signal.SIGKILL)
        time.sleep(0.002)
    assert used.ru_maxrss * 1024 < LIMIT_BYTES, f"{reader} took {used.ru_maxrss >> 10} MB"
    return os.waitstatus_to_exitcode(status), (place / "said").read_text(errors="replace")
