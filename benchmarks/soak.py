"""A long run with recycling: does memory stay flat, and is anything left over?

    python benchmarks/soak.py [--samples 3000] [--recycle 50]

Memory is the resident set of the compiler and of its largest instance, read every second from /proc (Linux); the
table shows the medians of each tenth of the run. Then come the processes, open files and temporary folders left over.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PAGE_KB = 4


def children(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    listed = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(child) for line in listed for child in line]


def resident_mb(pid: int) -> float:
    """Return a process's resident set, 0 once it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_KB / 1024
    except (OSError, IndexError):
        return 0.0


def open_files(pid: int) -> int:
    """Return how many file descriptors a process has open."""
    try:
        return len(list(Path(f"/proc/{pid}/fd").iterdir()))
    except OSError:
        return 0


def watch(running: subprocess.Popen[bytes]) -> tuple[list[tuple[float, float, int]], set[int]]:
    """Return (compiler MB, largest instance MB, the compiler's open files) second by second, and all instances."""
    rows, seen = [], set()
    while running.poll() is None:
        try:
            instances = children(running.pid)
        except OSError:
            break
        seen.update(instances)
        largest = max(map(resident_mb, instances), default=0.0)
        rows.append((resident_mb(running.pid), largest, open_files(running.pid)))
        time.sleep(1)
    return rows, seen


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=3000)
    parser.add_argument("--recycle", type=int, default=50, help="episodes of an instance")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder) / "tmp"
        scratch.mkdir()
        line = [
            *(sys.executable, "-m", "compiler", "falling_cubes", "--quiet", "--out", f"{folder}/out"),
            *("--shards", str(-(-given.samples // 100)), "--engine", "workbench", "--render-samples", "0"),
            *("--size", "160x120", "--passes", "depth,segmentation", "--recycle", str(given.recycle)),
        ]
        running = subprocess.Popen(line, env={**os.environ, "TMPDIR": str(scratch)})
        rows, seen = watch(running)
        assert running.wait() == 0
        left = [pid for pid in seen if Path(f"/proc/{pid}").exists()]
        folders = sorted(path.name for path in scratch.iterdir())
    size = max(1, len(rows) // 10)
    print(f"{given.samples} samples, {len(seen)} instances, {len(rows)} s")
    print(f"{'part':>5} {'compiler MB':>12} {'instance MB':>12} {'open files':>11}")
    for at in range(0, len(rows) - size + 1, size):
        medians = [statistics.median(column) for column in zip(*rows[at : at + size], strict=True)]
        print(f"{at // size + 1:>5} {medians[0]:>12.1f} {medians[1]:>12.1f} {medians[2]:>11.0f}")
    print(f"left over: {len(left)} processes, {len(folders)} temporary folders {folders}")


if __name__ == "__main__":
    main()
