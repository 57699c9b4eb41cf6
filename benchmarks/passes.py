"""What each pass costs in addition to the image, for each engine: CPU ms per frame at 640x480.

    python benchmarks/passes.py [--engines workbench,cycles] [--frames 10]

One process renders the frames of the falling cubes with one pass after the other. The cost of a pass is the time per
frame with it minus the time without it. `all` is every pass at once: most of them share one render.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

RUN = """
import json, os, sys, time
from pathlib import Path
import bpy
from blender_jobs import orders, passes
from blender_jobs._worker.describing import describe
from blender_jobs._worker.episode import Player
from blender_jobs._worker.fields import resolve_fields
from blender_jobs._worker.loading import load_job

job, engine, samples, frames, scratch = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5])
bpy.ops.wm.read_factory_settings(use_empty=True)
settings = orders.RenderSettings(engine, samples, 640, 480, "png", 100)
source = orders.JobSource(job)

def cost(wanted):
    described = describe(orders.Describe(source, {"every": "1"}, settings, wanted))
    job_class, _ = load_job(source)
    entries = [orders.SampleOrder(f"0-{at}", at + 1) for at in range(frames + 1)]
    order = orders.Render(source, described, 0, settings, 2, [orders.EpisodeOrder(0, entries)])
    player = Player(job_class, resolve_fields(job_class, described.fields), order, scratch)
    samples = player.play(order.episodes[0])
    next(samples)  # the first frame builds the scene and warms up
    started = time.process_time()
    for _ in samples:
        pass
    return (time.process_time() - started) * 1000 / frames

rows = {"image": cost([])}
for name in passes.PASSES:
    rows[name] = cost([name])
rows["all"] = cost(list(passes.PASSES))
Path(sys.argv[6]).write_text(json.dumps(rows))
os._exit(0)
"""


def measure(engine: str, samples: int, frames: int) -> dict[str, float]:
    """Return CPU ms per frame by pass, measured in a separate process."""
    spec = importlib.util.find_spec("blender_jobs.builtin.falling_cubes")
    assert spec is not None
    assert spec.origin is not None
    with tempfile.TemporaryDirectory() as scratch:
        result = Path(scratch) / "rows.json"
        line = [sys.executable, "-c", RUN, spec.origin, engine, str(samples), str(frames), scratch, str(result)]
        quiet = subprocess.DEVNULL
        subprocess.run(line, stdout=quiet, stderr=quiet, env={**os.environ, "LP_NUM_THREADS": "2"}, check=False)
        text = result.read_text()
    rows: dict[str, float] = json.loads(text)
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", default="workbench,cycles")
    parser.add_argument("--frames", type=int, default=10)
    given = parser.parse_args()
    samples = {"workbench": 0, "cycles": 4, "eevee": 1}
    found = {engine: measure(engine, samples[engine], given.frames) for engine in given.engines.split(",")}
    print("| CPU ms a frame | " + " | ".join(f"{name}, {samples[name]} samples" for name in found) + " |")
    print("|---|" + "---|" * len(found))
    for name in next(iter(found.values())):
        costs = [rows[name] - (0 if name == "image" else rows["image"]) for rows in found.values()]
        sign = "" if name == "image" else "+"
        print(f"| {name} | " + " | ".join(f"{sign}{cost:.0f}" for cost in costs) + " |")


if __name__ == "__main__":
    main()
