"""Numbered files: which of them a frame reads, and which are there."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_NUMBERED = re.compile(r"(?P<head>.*?)(?P<digits>\d+)(?P<tail>\D*)", re.DOTALL)


def siblings(path: Path) -> list[Path]:
    """Return the files that differ from `path` in the last number of their names alone, sorted; itself included."""
    found = _NUMBERED.fullmatch(path.stem)
    if found is None or not path.parent.is_dir():
        return [path] if path.is_file() else []
    pattern = re.compile(re.escape(found["head"]) + r"-?\d+" + re.escape(found["tail"] + path.suffix))
    return sorted(file for file in path.parent.iterdir() if pattern.fullmatch(file.name) and file.is_file())


def numbered(path: Path, number: int) -> Path:
    """Return the file of a number: the last one in the name is replaced, in as many digits."""
    found = _NUMBERED.fullmatch(path.stem)
    if found is None:
        return path
    sign, width = "-" * (number < 0), len(found["digits"])
    return path.with_name(f"{found['head']}{sign}{abs(number):0{width}d}{found['tail']}{path.suffix}")


def of_image(user: Any, frame: int) -> int | None:
    """Return the number of the file that an image user (`bpy.types.ImageUser`) reads in a frame; None: none."""
    length = user.frame_duration
    if not length:
        return None
    at = frame - user.frame_start + 1
    at = (at - 1) % length + 1 if user.use_cyclic else min(max(at, 0), length)
    return max(int(at + user.frame_offset), 0)


def of_volume(volume: Any, frame: int) -> int | None:
    """Return the number of the file that a volume (`bpy.types.Volume`) reads in a frame; None: none."""
    length, at = volume.frame_duration, frame - volume.frame_start + 1
    if not length or (volume.sequence_mode == "CLIP" and not 1 <= at <= length):
        return None
    if volume.sequence_mode == "EXTEND":
        at = min(max(at, 1), length)
    elif volume.sequence_mode == "REPEAT":
        at = (at - 1) % length + 1
    elif volume.sequence_mode == "PING_PONG":
        turn = max(2 * length - 2, 1)
        at = at % turn or turn
        at = 2 * length - at if at > length else at
    return int(at + volume.frame_offset)


def shortened(paths: Iterable[Path]) -> list[str]:
    """Return the paths in words, those of a sequence as its first and last."""
    runs: dict[tuple[Path, str, str], list[Path]] = {}
    for path in paths:
        found = _NUMBERED.fullmatch(path.stem)
        key = (path.parent, found["head"], found["tail"] + path.suffix) if found else (path, "", "")
        runs.setdefault(key, []).append(path)
    return [str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1].name} ({len(run)} files)" for run in runs.values()]
