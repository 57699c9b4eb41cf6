"""The plan: all that can change a byte of the dataset, and the orders that follow from it. Pure: no I/O."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import PurePath
from typing import Any

from blender_jobs.orders import Described, EpisodeOrder, Hello, JobSource, Render, RenderSettings, SampleOrder
from blender_jobs.passes import PASSES
from compiler.planning.document import PlanDocument, PlannedJob
from loaders.format import canonical_json, dataset_name, member_of
from loaders.layout import PlannedSample, ShardLayout, shown
from loaders.manifest import Manifest


def _size_of(dtype: str) -> int:
    """Return the bytes of a number: ``float16`` has 2."""
    return int(re.sub(r"\D", "", dtype)) // 8


@dataclass(frozen=True)
class Plan:
    """A dataset's plan, every value resolved.

    Not part of it, because they change no byte: how many shards, instances, threads, place.
    """

    source: JobSource
    """Where the job is now; of this only the class counts, and the file by its digest."""
    job: Described
    render: RenderSettings
    seed: int
    samples_per_shard: int
    blender: Hello

    @property
    def name(self) -> str:
        """The dataset's name: the job file's, in characters fit for file names."""
        return dataset_name(PurePath(self.source.path).stem)

    @cached_property
    def document(self) -> PlanDocument:
        """The plan as a manifest holds it."""
        job = self.job
        return PlanDocument(
            job=PlannedJob(
                name=self.name,
                class_name=job.class_name,
                source_sha256=job.source_sha256,
                fields=job.portable_fields,
                frames=tuple(job.frames),
                cameras=tuple(job.cameras),
                passes=tuple(job.passes),
                blend=next((asset.name for asset in job.assets if asset.path == job.blend), ""),
                trust_blend=job.trust_blend,
                reuse_scene=job.reuse_scene,
                categories=tuple(job.categories),
                missing_files=job.missing_files,
                missing=tuple(job.missing),
            ),
            assets={asset.name: asset.sha256 for asset in job.assets},
            seed=self.seed,
            samples_per_shard=self.samples_per_shard,
            render=self.render,
            devices=tuple(job.devices),
            settings=job.settings,
            blender={
                "version": self.blender.version,
                "build_hash": self.blender.build_hash,
                "build": self.blender.build,
                "platform": self.blender.platform,
                "numpy": ".".join(self.blender.numpy.split(".")[:2]),  # its random streams may change with these
            },
            code_sha256=self.blender.code_sha256,
        )

    @property
    def layout(self) -> ShardLayout:
        """Where each sample is, and what a view of it holds."""
        return self.document.layout

    def identity(self) -> dict[str, Any]:
        """Return the plan as JSON; its digest (`Manifest.plan_digest`) is the dataset's identity."""
        return self.document.as_json()

    def manifest(self, provenance: Mapping[str, Any]) -> Manifest:
        """Return the manifest to begin with: no shard is finished."""
        schema = {"members": self.members(), "categories": self.job.categories}
        return Manifest(self.name, self.identity(), schema, provenance)

    @property
    def digest(self) -> str:
        """The sha256 of `identity`: what names the dataset."""
        return self.manifest({}).plan_digest

    def episodes(self, shard: int, skipped: Collection[str] = ()) -> list[EpisodeOrder]:
        """Return the episodes of a shard, in order, without the samples whose keys were skipped.

        Episodes are numbered over the whole dataset.
        """
        planned = itertools.groupby(self.layout.samples(shard, skipped), key=lambda sample: sample.episode)
        return [_order(number, samples) for number, samples in planned]

    def episode(self, number: int) -> EpisodeOrder:
        """Return one episode."""
        return _order(number, self.layout.episode(number))

    def order(self, episodes: list[EpisodeOrder], threads: int) -> Render:
        """Return the order that makes an instance render these episodes with `threads` threads."""
        return Render(self.source, self.job, self.seed, self.render, threads, episodes)

    def members(self) -> dict[str, dict[str, Any]]:
        """Return the members of each sample: see `members_of`."""
        return members_of(self.layout)

    @property
    def sample_bytes(self) -> int:
        """How large a sample may be: its image and its passes, not compressed."""
        sized = [(entry["dtype"], entry["shape"]) for entry in self.members().values() if "shape" in entry]
        return sum(prod(shape) * _size_of(dtype) for dtype, shape in sized if None not in shape)


def _order(episode: int, samples: Iterable[PlannedSample]) -> EpisodeOrder:
    return EpisodeOrder(episode, [SampleOrder(sample.key, sample.frame) for sample in samples])


def members_of(layout: ShardLayout) -> dict[str, dict[str, Any]]:
    """Return the members of each sample: dtype, shape (None where it varies) and meaning by member name.

    Raises:
        ValueError: there is no such pass.
    """
    members = _members_of_a_view(layout)
    return {member_of(camera, name): entry for camera in layout.cameras or ("",) for name, entry in members.items()}


def _members_of_a_view(layout: ShardLayout) -> dict[str, dict[str, Any]]:
    height, width = layout.height, layout.width
    image = "pixels, RGB, 8 bits a channel, the view transform applied"
    rows = "x, y (pixels, origin at the outer corner of the top-left pixel), COCO visibility, depth (metres)"
    if unknown := [name for name in layout.passes if name not in PASSES]:
        raise ValueError(f"plan.job.passes: there is no pass {shown(unknown[0])}")
    arrays = {name: member for entry in layout.passes for name, member in PASSES[entry].items()}
    return {
        layout.image: {"dtype": "uint8", "shape": [height, width, 3], "description": image},
        "json": {"description": "annotations; OpenCV camera frame (x right, y down, z forward), world z up"},
        "keypoints.npy": {"dtype": "float32", "shape": [None, 4], "description": rows},
        **{
            name: {"dtype": member.dtype, "shape": member.shape(height, width), "description": member.description}
            for name, member in arrays.items()
        },
    }


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield path, our value and their value wherever two identities differ; None for what one lacks.

    Values differ when their JSON does, as in the digest: 1 is not 1.0.
    """
    for name in sorted({*ours, *theirs}):
        mine, other = ours.get(name), theirs.get(name)
        if isinstance(mine, Mapping) and isinstance(other, Mapping):
            for path, left, right in differences(mine, other):
                yield f"{name}.{path}", left, right
        elif (name in ours) != (name in theirs) or canonical_json(mine) != canonical_json(other):
            yield name, mine, other
