"""Render samples of a finished dataset again, in fresh processes, and hold them against the published bytes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from blender_jobs.orders import EpisodeOrder
from compiler.again import chosen_again
from compiler.errors import Incomplete, InstanceLost, UsageError
from compiler.planning.machine import processor
from compiler.planning.plan import Plan
from compiler.proof.compare import Difference, compare_members
from compiler.rendering.instances import Instance, Launch
from compiler.storage.sources import Places
from loaders.manifest import Manifest, ShardInfo
from loaders.tarstream import TarStreamError, read_samples


@dataclass(frozen=True)
class Rerendered:
    """One sample, rendered again."""

    key: str
    differences: list[Difference]
    """Empty: the same bytes in every member."""


@dataclass(frozen=True)
class Comparison:
    """What is to be rendered again, and how this installation differs from the one that made the dataset."""

    folder: Path
    plan: Plan
    tasks: list[tuple[ShardInfo, list[EpisodeOrder]]]
    elsewhere: list[str]
    """One line for each difference of Blender build, packages or processor; empty: the bytes must be the same."""


def prepare_rerender(
    folder: Path, manifest: Manifest, amount: int | None, seed: int, instance: Instance, places: Places
) -> Comparison:
    """Choose what to render again.

    Args:
        folder: the dataset's.
        manifest: its manifest.
        amount: how many samples; the whole episodes of them are rendered. None: every shard.
        seed: of the choice.
        instance: the Blender that shall render.
        places: where the job and its assets are.

    Raises:
        OtherPlan: the job, its fields or its assets are others now, not only Blender and the packages.
        UsageError, JobBroken: as `chosen_again`.
    """
    plan, elsewhere = chosen_again(manifest, folder, instance, places, doing="render it again")
    elsewhere += _other_processor(manifest)
    shards = {shard.number: shard for shard in manifest.shards}
    if amount is None:
        return Comparison(folder, plan, [(shard, plan.episodes(number)) for number, shard in shards.items()], elsewhere)
    positions = [(shard.number, at) for shard in manifest.shards for at in range(shard.samples)]
    chosen = random.Random(seed).sample(positions, min(amount, len(positions)))
    frames = len(plan.job.frames)
    episodes = sorted({number * plan.episodes_per_shard + at // frames for number, at in chosen})
    if plan.job.reuse_scene:
        numbers = sorted({number for number, _ in chosen})
        return Comparison(folder, plan, [(shards[number], plan.episodes(number)) for number in numbers], elsewhere)
    tasks = [(shards[number // plan.episodes_per_shard], [plan.episode(number)]) for number in episodes]
    return Comparison(folder, plan, tasks, elsewhere)


def rerender(comparison: Comparison, launch: Launch, instances: int) -> Iterator[Rerendered]:
    """Yield each sample with what differs, in the order of the shards; each task runs in a fresh instance.

    Raises:
        Incomplete: an instance was lost.
        UsageError: a shard cannot be read.
        JobBroken: the job fails.
    """
    with ThreadPoolExecutor(instances) as pool:
        for results in pool.map(lambda task: _render_task(comparison, launch, *task), comparison.tasks):
            yield from results


def _other_processor(manifest: Manifest) -> list[str]:
    then, now = manifest.provenance.get("cpu"), processor()
    return [] if then == now else [f"the processor was {_name(then)}, is {_name(now)}"]


def _name(cpu: object) -> str:
    return str(cpu.get("model", "unknown")) if isinstance(cpu, dict) else "unknown"


def _render_task(
    comparison: Comparison, launch: Launch, shard: ShardInfo, episodes: list[EpisodeOrder]
) -> list[Rerendered]:
    published = _published(comparison.folder / shard.name, {entry.key for task in episodes for entry in task.samples})
    try:
        instance = Instance(launch)
        try:
            return [
                Rerendered(rendered.key, compare_members(published[rendered.key], members))
                for rendered, members in instance.render(comparison.plan.order(episodes, launch.threads))
            ]
        finally:
            instance.end()
    except InstanceLost as loss:
        raise Incomplete(f"{shard.name}: while it was rendered again, the instance {loss}", details=loss.log) from None


def _published(path: Path, keys: set[str]) -> dict[str, dict[str, bytes]]:
    """Return the members of the samples with these keys.

    Raises:
        UsageError: the shard cannot be read, or lacks one.
    """
    found = {}
    try:
        with path.open("rb") as file:
            for sample in read_samples(file):
                if sample.key in keys:
                    found[sample.key] = sample.members
                if len(found) == len(keys):
                    return found
    except (OSError, TarStreamError) as error:
        raise UsageError(f"{path}: {error}", "compile-dataset verify without --rerender tells more") from None
    raise UsageError(f"{path} lacks sample {min(keys - found.keys())}", "it is damaged; compile the dataset again")
