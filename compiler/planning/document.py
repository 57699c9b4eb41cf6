"""The plan as a document, in types: what a manifest's ``plan`` holds, and where the job and its files were.

Written by `Plan.identity`, read from manifests, which may come from anywhere: whatever is read is checked here, once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from blender_jobs.orders import MISSING_FILES, RenderSettings, sources_sha256
from loaders.layout import Fields, ShardLayout, shown
from loaders.manifest import FORMAT, Manifest


@dataclass(frozen=True)
class PlannedJob:
    """The job as it was loaded; see `blender_jobs.orders.Described`."""

    name: str
    class_name: str
    source_sha256: str
    fields: Mapping[str, Any]
    """With the names of assets in the place of paths."""
    frames: tuple[int, ...]
    cameras: tuple[str, ...]
    passes: tuple[str, ...]
    blend: str
    """The name of an asset; empty: none."""
    trust_blend: bool
    reuse_scene: bool = False
    categories: tuple[Mapping[str, Any], ...] = ()
    missing_files: str = MISSING_FILES[0]
    missing: tuple[str, ...] = ()

    @classmethod
    def parse(cls, given: Fields) -> PlannedJob:
        """Read it. Raises ValueError where a field is missing or of another type."""
        return cls(
            name=given.get("name", str),
            class_name=given.get("class", str),
            source_sha256=given.get("source_sha256", str),
            fields=given.get("fields", dict),
            frames=given.items("frames", int),
            cameras=given.items("cameras", str),
            passes=given.items("passes", str),
            blend=given.get("blend", str),
            trust_blend=given.get("trust_blend", bool),
            reuse_scene=given.get("reuse_scene", bool, False),
            categories=given.items("categories", dict, []),
            missing_files=given.get("missing_files", str, MISSING_FILES[0]),
            missing=given.items("missing", str, []),
        )

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        named = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        named["class"] = named.pop("class_name")
        return {name: list(value) if isinstance(value, tuple) else value for name, value in named.items()}


@dataclass(frozen=True)
class PlanDocument:
    """All that can change a byte of a dataset."""

    job: PlannedJob
    assets: Mapping[str, str]
    """The sha256 of each file that the job reads, by name."""
    seed: int
    samples_per_shard: int
    render: RenderSettings
    devices: tuple[str, ...] = ()
    """The names of the GPUs that render; empty for the CPU."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Every render setting that is pinned."""
    blender: Mapping[str, str] = field(default_factory=dict)
    """What tells the build of Blender: ``version``, ``build_hash``, ``build``, ``platform``, ``numpy``."""
    code_sha256: str = ""
    """Of the code that renders."""

    @classmethod
    def parse(cls, plan: object) -> PlanDocument:
        """Read a manifest's plan.

        Raises:
            ValueError: it is none that a dataset can have; one line that names the place.
        """
        given = Fields(plan, "plan")
        render, layout = given.fields("render"), ShardLayout.parse(plan)
        chosen = {entry.name: render.get(entry.name, _KINDS[str(entry.type)]) for entry in fields(RenderSettings)}
        return cls(
            job=PlannedJob.parse(given.fields("job")),
            assets=given.values("assets", str),
            seed=layout.seed,
            samples_per_shard=layout.samples_per_shard,
            render=RenderSettings(**chosen),
            devices=render.items("devices", str, []),
            settings=render.get("settings", dict, {}),
            blender=given.values("blender", str, {}),
            code_sha256=given.get("code_sha256", str, ""),
        )

    @cached_property
    def layout(self) -> ShardLayout:
        """Where each sample is, and what a view of it holds."""
        job, render = self.job, self.render
        return ShardLayout(
            job.name,
            self.seed,
            self.samples_per_shard,
            job.frames,
            job.cameras,
            job.passes,
            render.image,
            render.width,
            render.height,
        )

    def as_json(self) -> dict[str, Any]:
        """Return the plan as JSON; its digest (`Manifest.plan_digest`) is the dataset's identity."""
        return {
            "format": FORMAT,
            "job": self.job.as_json(),
            "assets": dict(self.assets),
            "seed": self.seed,
            "samples_per_shard": self.samples_per_shard,
            "render": {**asdict(self.render), "devices": list(self.devices), "settings": dict(self.settings)},
            "blender": dict(self.blender),
            "code_sha256": self.code_sha256,
        }


_KINDS: dict[str, type[Any]] = {"str": str, "int": int, "bool": bool}


@dataclass(frozen=True)
class Origin:
    """Where a dataset's job and its files were when it was made: what a manifest's provenance says of them."""

    path: Path
    """Of the job's file."""
    sources: Mapping[str, str]
    """The sha256 of the job's file, which comes first, and of the modules it imports, by paths from its folder."""
    path_fields: Mapping[str, str]
    """The job's fields that are paths, as they were."""
    assets: Mapping[str, str]
    """The path of each asset by name."""

    @classmethod
    def parse(cls, provenance: object) -> Origin:
        """Read a manifest's provenance.

        Raises:
            ValueError: it does not say where the job was, or names what cannot be a source; one line.
        """
        given = Fields(provenance, "provenance")
        job, assets = given.fields("job"), given.get("assets", dict, {})
        path, sources = Path(job.get("path", str)), job.values("sources", str)
        for name in sources:
            if not name.endswith(".py") or name.startswith("/") or {"..", ""} & set(PurePosixPath(name).parts):
                raise ValueError(f"{job.where}.sources: {shown(name)} cannot be a source")
        if path.name not in sources:
            raise ValueError(f"{job.where}.sources has no {shown(path.name)}, the job's file")
        first = {path.name: sources.pop(path.name)}
        places = {
            name: Fields(entry, f"provenance.assets[{shown(name)}]").get("path", str) for name, entry in assets.items()
        }
        origin = cls(path, {**first, **dict(sorted(sources.items()))}, job.values("path_fields", str), places)
        if any("\0" in text for text in (str(path), *sources, *origin.path_fields.values(), *places.values())):
            raise ValueError("provenance: there is a path with a zero in it")
        return origin


def source_digests(manifest: Manifest) -> dict[str, str]:
    """Return the sha256 of each of the job's sources by name; empty where none is named, as in recordings."""
    job = manifest.provenance.get("job")
    named = job.get("sources") if isinstance(job, dict) else None
    return {name: str(sha256) for name, sha256 in named.items()} if isinstance(named, dict) else {}


@dataclass(frozen=True)
class Made:
    """How a dataset was made: what is needed to make it, or a part of it, again."""

    plan: PlanDocument
    origin: Origin

    @classmethod
    def parse(cls, manifest: Manifest) -> Made:
        """Read a manifest's plan and provenance.

        Raises:
            ValueError: one of them is not what a dataset's is, or they contradict each other; one line.
        """
        made = cls(PlanDocument.parse(manifest.plan), Origin.parse(manifest.provenance))
        plan, origin = made.plan, made.origin
        if sources_sha256(origin.sources) != plan.job.source_sha256:
            raise ValueError("the job's sources in the provenance are not those of the plan")
        for name in origin.path_fields:
            if not isinstance(value := plan.job.fields.get(name), str) or "\0" in value:
                raise ValueError(f"plan.job.fields[{shown(name)}] is {shown(value)}, not a path")
        if strange := [name for name in plan.assets if name not in origin.assets or "\0" in name]:
            raise ValueError(f"provenance.assets has no {shown(strange[0])}")
        return made
