"""``failures.jsonl`` in the dataset's directory: what was lost on the way, and how to see it happen again.

One JSON object a line. It is no part of the dataset: no byte of a shard depends on it, and it may be deleted.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from loaders.files import open_own, read_regular

FILE_NAME = "failures.jsonl"

_LOG_LINES = 12
_MOST_BYTES = 64 << 20


JOB_FAILED: Literal["job failed"] = "job failed"

What = Literal["instance lost", "episode skipped", "shard given up", "job failed"]


@dataclass(frozen=True)
class Failure:
    """Something was lost: an instance and the episode it was in, the episode for good, its shard, or the build."""

    what: What
    shard: int
    episode: int
    attempt: int
    reason: str
    log: Sequence[str]
    """The last lines that the instance said."""
    replay: str
    """`replay_command` of the episode."""
    sample: str = ""
    """The key of the episode's first sample."""


def replay_command(folder: Path, episode: int, blender: str | None) -> str:
    """Return the command, for a shell, that renders the episode again in the foreground, with the same Blender."""
    chosen = ["--blender", blender] if blender else []
    return shlex.join(["compile-dataset", "replay", str(folder), "--episode", str(episode), *chosen])


def read(folder: Path) -> list[dict[str, Any]]:
    """Return what the directory's file holds, as far as it can be read: it is for people, and may be a stranger's."""
    try:
        lines = read_regular(folder / FILE_NAME, _MOST_BYTES).split(b"\n")
    except OSError:
        return []
    found = []
    for line in lines:
        with suppress(ValueError, RecursionError):
            if isinstance(entry := json.loads(line), dict):
                found.append(entry)
    return found


def append(folder: Path, failure: Failure) -> None:
    """Enter a failure into the directory's file. Raises OSError."""
    entry = asdict(failure) | {
        "log": list(failure.log)[-_LOG_LINES:],
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with open_own(folder / FILE_NAME, "ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # a crash left half a line
                file.write(b"\n")
        file.write(json.dumps(entry).encode() + b"\n")
