"""A manifest's plan as a `Plan` again: enough of it to say what each shard must hold. Renders nothing."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from blender_jobs.orders import Described, EpisodeOrder, Hello, JobSource, RenderSettings
from compiler.planning.numbers import check_numbers
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
        check_numbers(manifest.plan)
        job, render = manifest.plan["job"], manifest.plan["render"]
        described = Described(
            job["class"],
            "",
            "",
            {},
            {},
            job["frames"],
            False,
            {},
            cameras=list(job["cameras"]),
            passes=list(job["passes"]),
        )
        settings = RenderSettings(
            *(render[name] for name in ("engine", "samples", "width", "height", "image", "quality"))
        )
        plan = Plan(
            JobSource(f"{job['name']}.py", job["class"]),
            described,
            settings,
            manifest.plan["seed"],
            manifest.plan["samples_per_shard"],
            Hello("", "", "", "", "", ""),
        )
        plan.members()  # an unknown pass
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the plan cannot be read: {type(error).__name__}: {error}") from None
    return plan


def episodes_due(plan: Plan, shard: int, skipped: Collection[str]) -> list[EpisodeOrder]:
    """Return the episodes that the plan puts into a shard, in order, without the samples that were skipped."""
    episodes = [
        replace(order, samples=[sample for sample in order.samples if sample.key not in skipped])
        for order in plan.episodes(shard)
    ]
    return [order for order in episodes if order.samples]


def samples_due(plan: Plan, shard: int, skipped: Collection[str]) -> list[Due]:
    """Return what the plan puts into a shard, in order, without the keys that were skipped."""
    return [
        Due(sample.key, order.episode, sample.frame)
        for order in episodes_due(plan, shard, skipped)
        for sample in order.samples
    ]
