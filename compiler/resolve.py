"""From what the user chose to a plan, and from a manifest back to its plan; both ask a running Blender."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import features

from blender_jobs.orders import ENGINE_SAMPLES, IMAGE_QUALITY, MISSING_FILES, Describe, Described, Hello, RenderSettings
from blender_jobs.passes import NONE
from compiler.blender.process import Instance, InstanceOptions
from compiler.errors import BlenderUnusable, InstanceLost, OtherPlan, UsageError
from compiler.machine import processor
from compiler.planning.jobs import find_job
from compiler.planning.plan import Plan
from compiler.rendering.retry import backoff_s
from compiler.storage.existing import changes, summarize
from compiler.storage.published import Published
from compiler.storage.sources import path_fields, placed_blend, placed_fields
from compiler.trust import find_trusted, read_made
from loaders.tarstream import DEFAULT_MAX_BYTES


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


class FirstBlender:
    """The Blender that describes the job. Where it is lost another takes its place, as in a build.

    Use it as a context manager: the instance is ended with the block.

    State: the instance that runs.

    Args:
        options: how it is started.
        attempts: how often a start, and a description, is tried.
        say: called with a line for each loss that was overcome.

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
            raise BlenderUnusable(f"Blender {loss}", "compile-dataset doctor says more", loss.log[-8:]) from None

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
    plan = _described(first, request, choices.seed, choices.samples_per_shard)
    if plan.sample_bytes > DEFAULT_MAX_BYTES:
        raise UsageError(
            f"a sample with all its passes and cameras has up to {plan.sample_bytes / 1e9:.1f} GB; readers take"
            f" {DEFAULT_MAX_BYTES / 1e9:.1f} GB at most",
            "choose a smaller --size, or fewer --passes",
        )
    return plan


def _described(first: FirstBlender, request: Describe, seed: int, samples_per_shard: int) -> Plan:
    """Return the plan, with what Blender says of the job. Raises UsageError if Blender is lost each time."""
    try:
        described = first.describe(request)
    except InstanceLost as loss:
        raise UsageError(f"{request.job.path}: while it was loaded, Blender {loss}", details=loss.log) from None
    return Plan(request.job, described, request.render, seed, samples_per_shard, first.hello)


def provenance(plan: Plan) -> dict[str, Any]:
    """Return the manifest's provenance: how the dataset was made, besides the plan. It changes no byte of a shard."""
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


def restore_plan(published: Published, first: FirstBlender) -> Plan:
    """Return the manifest's plan as this Blender resolves it: equal to the manifest's, or not (`other_fields`).

    Args:
        published: the dataset.
        first: the Blender.

    Raises:
        UsageError: the manifest does not say what to render, the job's file or an asset is gone, or the job is a
            stranger's and not trusted.
        OtherPlan: the job's file, a module of it or an asset has changed; nothing was run.
        JobBroken: the job cannot be used.
    """
    if published.manifest.recorded:
        raise UsageError(
            "this is a recording of live samples: its manifest does not say where the job is",
            "name the dataset that was recorded, or build that",
        )
    made = read_made(published.manifest)
    source, job, render = find_trusted(published), made.plan.job, made.plan.render
    request = Describe(
        source,
        placed_fields(made, source),
        render,
        list(job.passes) or [NONE],
        placed_blend(made, source),
        job.trust_blend,
        missing_files=job.missing_files,
    )
    return _described(first, request, made.plan.seed, made.plan.samples_per_shard)


def restore_checked(published: Published, first: FirstBlender, doing: str) -> tuple[Plan, list[str]]:
    """Return the manifest's plan, resolved here, and how this installation differs from the one it was made with.

    Raises:
        OtherPlan: what the user chose has changed: the job's file, a field, an asset.
        UsageError, JobBroken: as `restore_plan`.
    """
    restored = restore_plan(published, first)
    chosen, elsewhere = changes(restored, published.manifest)
    if chosen:
        raise OtherPlan(f"the plan has changed: {summarize(chosen)}", f"restore it to {doing}")
    return restored, elsewhere


def restore_identical(published: Published, first: FirstBlender, doing: str) -> Plan:
    """Return the manifest's plan, resolved on the same Blender build and packages. Raises as `restore_checked`, too.

    Raises:
        OtherPlan: it has changed: the job's file, a field, an asset, Blender or our code.
    """
    restored, elsewhere = restore_checked(published, first, doing)
    if elsewhere:
        more = f" (and {len(elsewhere) - 1} more)" if len(elsewhere) > 1 else ""
        raise OtherPlan(f"this installation differs: {elsewhere[0]}{more}", f"install what it was to {doing}")
    return restored
