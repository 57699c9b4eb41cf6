"""A manifest's plan as a `Plan` again: enough of it to say what each shard must hold. Renders nothing."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from blender_jobs.orders import Described, Hello, JobSource, RenderSettings
from compiler.planning.plan import Plan
from loaders.manifest import Manifest


@dataclass(frozen=True)
class Due:
    """What the plan says of one sample."""

    key: str
    episode: int
    frame: int


def plan_of(manifest: Manifest) -> Plan:
    """Return the plan by which a dataset is numbered; what only rendering needs is left out.

    Raises:
        ValueError: the manifest's plan is not one of ours; one line.
    """
    try:
        job, render = manifest.plan["job"], manifest.plan["render"]
        frames, per_shard = [int(frame) for frame in job["frames"]], int(manifest.plan["samples_per_shard"])
        if not frames or per_shard < 1:
            raise ValueError("no frames, or no samples in a shard")
        described = Described(
            job["class"], "", "", {}, {}, frames, False, {}, cameras=list(job["cameras"]), passes=list(job["passes"])
        )
        settings = RenderSettings(
            *(render[name] for name in ("engine", "samples", "width", "height", "image", "quality"))
        )
        plan = Plan(
            JobSource(f"{job['name']}.py", job["class"]),
            described,
            settings,
            int(manifest.plan["seed"]),
            per_shard,
            Hello("", "", "", "", "", ""),
        )
        plan.members()  # an unknown pass
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the plan cannot be read: {type(error).__name__}: {error}") from None
    return plan


def samples_due(plan: Plan, shard: int, skipped: Collection[str]) -> list[Due]:
    """Return what the plan puts into a shard, in order, without the keys that were skipped."""
    return [
        Due(sample.key, order.episode, sample.frame)
        for order in plan.episodes(shard)
        for sample in order.samples
        if sample.key not in skipped
    ]
