"""From what was chosen to a plan and a first running instance: shared by the command line and Python callers."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import features

from blender_jobs.orders import ENGINE_SAMPLES, IMAGE_QUALITY, MISSING_FILES, Describe, Described, Hello, RenderSettings
from compiler.blender.process import Instance, InstanceOptions
from compiler.errors import BlenderUnusable, InstanceLost, UsageError
from compiler.planning.jobs import find_job
from compiler.planning.machine import processor
from compiler.planning.plan import Plan
from compiler.rendering.retry import backoff_s
from compiler.storage.sources import path_fields
from loaders.tarstream import DEFAULT_MAX_BYTES

MOST_INSTANCES = 16
"""What automatic choice does not exceed; each instance holds 300 to 500 MB."""

FEWEST_THREADS = 2
"""With a single render thread, Cycles' main thread spins while it waits: a tenth to a third of the time is lost."""


@dataclass(frozen=True)
class Choices:
    """What a user chooses of a plan; None where the default depends on another choice."""

    job: str = "falling_cubes"
    """A built-in name or ``path/to/job.py[:Class]``."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Job fields by name: text, or values as JSON has them."""
    seed: int = 0
    samples_per_shard: int = 100
    engine: str = "cycles"
    render_samples: int | None = None
    size: tuple[int, int] = (640, 480)
    image: str = "png"
    quality: int | None = None
    device: str = "cpu"
    denoise: bool = False
    passes: Sequence[str] = ()
    """Empty: those that the job names; `passes.NONE` alone: no pass."""
    blend: Path | None = None
    trust_blend: bool = False
    missing_files: str = MISSING_FILES[0]

    def render_settings(self) -> RenderSettings:
        """Return the settings with every default resolved.

        Raises:
            UsageError: a value out of its range.
        """
        samples = ENGINE_SAMPLES.get(self.engine, 0) if self.render_samples is None else self.render_samples
        quality = IMAGE_QUALITY.get(self.image, 0) if self.quality is None else self.quality
        try:
            return RenderSettings(
                self.engine, samples, self.size[0], self.size[1], self.image, quality, self.device, self.denoise
            )
        except ValueError as error:
            raise UsageError(str(error)) from None


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share_cores(instances: int, shards: int) -> tuple[int, int]:
    """Return how many instances there shall be (0: choose) for so many shards (0: no end), and the threads of each."""
    instances = instances or min(cores(), MOST_INSTANCES)
    if shards:
        instances = min(instances, shards)
    return instances, max(FEWEST_THREADS, cores() // instances)


class FirstBlender:
    """The Blender that describes the job. Where it is lost another takes its place, as in a build.

    Use it as a context manager: the instance is ended with the block.

    State: the instance that runs.

    Args:
        options: how it is started.
        attempts: how often a start, and a description, is tried.
        say: hears of each loss that is got over.

    Raises:
        BlenderUnusable: Blender does not start.
    """

    def __init__(self, options: InstanceOptions, attempts: int, say: Callable[[str], None]) -> None:
        self._options, self._attempts, self._say = options, attempts, say
        self.instance = self._started()

    def __enter__(self) -> FirstBlender:
        return self

    def __exit__(self, *_: object) -> None:
        self.instance.end()

    @property
    def hello(self) -> Hello:
        """Which Blender it is."""
        return self.instance.hello

    def describe(self, request: Describe) -> Described:
        """Return what the job is, as this Blender loads it.

        Raises:
            JobBroken: the job cannot be used.
            InstanceLost: Blender was lost in it each time.
            BlenderUnusable: as the class.
        """
        for attempt in range(1, self._attempts):
            try:
                return self.instance.describe(request)
            except InstanceLost as loss:
                self._over(f"while {request.job.path} was loaded, Blender {loss}", attempt)
            with self.instance:  # which is lost: it is ended when another runs, or none can be started
                self.instance = self._started()
        return self.instance.describe(request)

    def _started(self) -> Instance:
        for attempt in range(1, self._attempts):
            try:
                return Instance(self._options)
            except InstanceLost as loss:
                self._over(f"Blender {loss}", attempt)
        try:
            return Instance(self._options)
        except InstanceLost as loss:
            raise BlenderUnusable(f"Blender {loss}", "compile-dataset doctor tells more", loss.log[-8:]) from None

    def _over(self, what: str, attempt: int) -> None:
        self._say(f"{what}; starting another ({attempt + 1} of {self._attempts})")
        time.sleep(backoff_s(attempt))


def resolve_plan(choices: Choices, first: FirstBlender) -> Plan:
    """Return the plan, the job described by `first`: only Blender can import it.

    Raises:
        UsageError: there is no such job, it cannot be used, or a choice is out of its range.
        BlenderUnusable: as `FirstBlender.describe`.
    """
    source, render, blend = find_job(choices.job), choices.render_settings(), str(choices.blend or "")
    request = Describe(
        source,
        dict(choices.settings),
        render,
        list(choices.passes),
        blend,
        choices.trust_blend,
        missing_files=choices.missing_files,
    )
    try:
        described = first.describe(request)
    except InstanceLost as loss:
        raise UsageError(f"{source.path}: while it was loaded, Blender {loss}", details=loss.log) from None
    plan = Plan(source, described, render, choices.seed, choices.samples_per_shard, first.hello)
    if plan.sample_bytes > DEFAULT_MAX_BYTES:
        raise UsageError(
            f"a sample with all its passes and cameras has up to {plan.sample_bytes / 1e9:.1f} GB; what reads samples"
            f" takes {DEFAULT_MAX_BYTES / 1e9:.1f} GB at most",
            "choose a smaller --size, or fewer --passes",
        )
    return plan


def provenance(plan: Plan) -> dict[str, Any]:
    """Return what the manifest says of the dataset's making, beside the plan: it changes no byte of a shard."""
    return {
        "blendshard": importlib.metadata.version("blendshard"),
        "job": {
            "path": plan.source.path,
            "sources": {source.name: source.sha256 for source in plan.job.sources},
            "path_fields": path_fields(plan),
        },
        "assets": {asset.name: {"path": asset.path, "size": asset.size} for asset in plan.job.assets},
        "cpu": processor(),
        "python": platform.python_version(),
        "numpy": plan.blender.numpy,
        "pillow": importlib.metadata.version("pillow"),
        "codecs": {name: features.version(name) for name in ("zlib", "jpg", "webp")},
    }
