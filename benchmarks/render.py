"""What compiling costs, compared with the bare render loop of the same scene: samples/s, CPU s per sample, peak memory.

    python benchmarks/render.py [--engine workbench] [--render-samples 0] [--samples 100]

The bare loop is one process that builds the same episodes, steps the same physics and calls
``bpy.ops.render.render()`` for the same frames, without annotations, image files or shards. It is the limit.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

BARE = """
import os, sys, time
import bpy
from blender_jobs._render import properties, render
from blender_jobs import seeds, stage
from blender_jobs.builtin.falling_cubes import FallingCubes
from blender_jobs.orders import RenderSettings

engine, samples, wanted, threads, save = sys.argv[1], *map(int, sys.argv[2:6])
settings = RenderSettings(engine, samples, 640, 480, "png", 100)
bpy.ops.wm.read_factory_settings(use_empty=True)
done = episode = 0
started = time.perf_counter()
while done < wanted:
    stage.clear()
    scene = bpy.context.scene
    properties.apply(scene, render.DEFAULTS)
    job = FallingCubes()
    job.setup()
    job.randomize(seeds.episode_rng(0, episode))
    properties.apply(scene, render.pinned(settings))
    scene.render.threads = threads
    for frame in range(1, 102):
        scene.frame_set(frame)
        if frame in job.frames and done < wanted:
            bpy.ops.render.render()
            if save:
                bpy.data.images["Render Result"].save_render(os.path.join(sys.argv[6], "frame.png"))
            done += 1
    episode += 1
print("seconds", time.perf_counter() - started, file=sys.stderr)
sys.stderr.flush()
os._exit(0)
"""


@dataclass
class Cost:
    """What one run took."""

    name: str
    samples: int
    wall: float
    cpu: float
    peak_mb: float

    def row(self, bare: Cost) -> str:
        """Return the table's row; ratios are CPU time over the bare loop's."""
        each = self.cpu / self.samples
        ratio = self.cpu / bare.cpu * bare.samples / self.samples
        return f"{self.name:<34}{self.samples / self.wall:9.2f}{each:12.4f}{ratio:9.2f}{self.peak_mb:9.0f}"


def measure(name: str, samples: int, command: list[str]) -> Cost:
    """Run the command; CPU time and peak memory include its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    environment = {**os.environ, "LP_NUM_THREADS": str(os.cpu_count())}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(name, samples, wall, cpu, after.ru_maxrss / 1024)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", default="workbench")
    parser.add_argument("--render-samples", default="0")
    parser.add_argument("--samples", type=int, default=200)
    given = parser.parse_args()
    cores, samples = os.cpu_count() or 1, given.samples
    with tempfile.TemporaryDirectory() as folder:
        bare = [sys.executable, "-c", BARE, given.engine, given.render_samples, str(samples), str(cores)]
        command = [str(Path(sys.executable).with_name("compile-dataset")), "falling_cubes", "--quiet"]
        command += ["--engine", given.engine, "--render-samples", given.render_samples]
        command += ["--shards", "2", "--samples-per-shard", str(samples // 2)]
        runs = [
            measure("bare render loop", samples, [*bare, "0"]),
            measure("bare loop, each frame saved as PNG", samples, [*bare, "1", folder]),
            measure("compile-dataset, 1 instance", samples, [*command, "--instances", "1", "--out", f"{folder}/1"]),
            measure("compile-dataset, 2 instances", samples, [*command, "--instances", "2", "--out", f"{folder}/2"]),
        ]
    print(f"{given.engine}, {given.render_samples} samples a pixel, 640x480, {samples} samples, {cores} cores")
    print(f"{'':<34}{'samples/s':>9}{'CPU s each':>12}{'ratio':>9}{'peak MB':>9}")
    for run in runs:
        print(run.row(runs[0]))


if __name__ == "__main__":
    main()
