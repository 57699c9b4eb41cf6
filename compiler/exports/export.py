"""An export from beginning to end: what the format needs is there, then one pass over the samples."""

from __future__ import annotations

import importlib.metadata
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from compiler.errors import UsageError, VerificationFailed
from compiler.exports.coco import Coco
from compiler.exports.files import Files
from compiler.exports.labels import TASKS, Category, categories_of, has_masks, require
from compiler.exports.samples import samples_of, splits_of
from compiler.exports.writer import ExportFolder
from compiler.exports.yolo import Yolo
from compiler.storage.published import DAMAGED_HINT, Published
from loaders.tarstream import Sample

FORMATS = ("coco", "yolo", "files")

Progress = Callable[[int, int], None]
"""Takes a sample's size in its shard, in bytes, and the number of samples done."""


class Format(Protocol):
    """Writes samples in one format."""

    left_out: Counter[str]
    """How many objects were left out, by the reason."""

    def add(self, split: str, sample: Sample) -> None:
        """Write a sample. Raises ValueError: it holds what the format cannot; OSError."""

    def close(self) -> dict[str, dict[str, int]]:
        """Finish the files; return how much of what each split has. Raises OSError."""


@dataclass(frozen=True)
class Exported:
    """What an export holds."""

    format: str
    tasks: list[str]
    """Which labels: of `TASKS`; none for loose files."""
    out: str
    splits: dict[str, dict[str, int]]
    """How many images and objects (loose files: samples and files) each split has."""
    left_out: dict[str, int]
    """How many objects have no label, by the reason."""
    already_there: bool
    """Whether an earlier run had written it."""

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return asdict(self)


def export(published: Published, kind: str, task: str | None, out: Path, progress: Progress) -> Exported:
    """Write a dataset in another format; continue what an interrupted export of it has left.

    Args:
        published: the dataset.
        kind: one of `FORMATS`.
        task: one of `TASKS`; None: for COCO all that the dataset has labels for, for YOLO boxes.
        out: the folder, which must not be there yet, or be empty, or hold this very export.
        progress: is called after each sample.

    Raises:
        UsageError: the dataset lacks what the format needs, or something else is in the folder.
        VerificationFailed: the dataset is damaged.
        Incomplete: the disk cannot be written.
    """
    splits = splits_of(published)
    categories = [] if kind == "files" else categories_of(published)
    tasks = _tasks(published, kind, task, categories)
    manifest = published.manifest
    made_from = {
        "format": kind,
        "tasks": tasks,
        "dataset": manifest.name,
        "digest": manifest.digest,
        "plan_digest": manifest.plan_digest,
        "blendshard": importlib.metadata.version("blendshard"),
    }
    folder = ExportFolder(out, made_from)
    holds = folder.finished()
    already_there = holds is not None
    if holds is None:

        def fill() -> dict[str, Any]:
            return _fill(published, _begin(kind, folder, splits, categories, tasks, manifest.name), progress)

        holds = folder.write(fill)
    return Exported(kind, tasks, str(out), holds["splits"], holds["left_out"], already_there)


def _tasks(published: Published, kind: str, task: str | None, categories: list[Category]) -> list[str]:
    """Return the labels to write. Raises UsageError where the dataset or the format does not have them."""
    if kind == "files":
        if task:
            raise UsageError("--task is for labels; loose files are the members as they are", "leave it out")
        return []
    if task:
        require(published, categories, task)
    if kind == "yolo":
        _check_yolo(task, categories)
        return [task or "detect"]
    if task:
        return list(dict.fromkeys(("detect", task)))
    pose = any(category.keypoints for category in categories)
    has = {"detect": True, "segment": has_masks(published), "pose": pose}
    return [name for name in TASKS if has[name]]


def _check_yolo(task: str | None, categories: list[Category]) -> None:
    if task == "segment":
        raise UsageError(
            "YOLO has polygons, which cannot hold a mask with holes or in pieces", "export coco, whose masks are exact"
        )
    numbers = {len(category.keypoints) for category in categories}
    if task == "pose" and len(numbers) > 1:
        given = ", ".join(f"{category.name} {len(category.keypoints)}" for category in categories)
        raise UsageError(f"YOLO needs the same number of keypoints for all categories: {given}", "export coco")


def _begin(
    kind: str, folder: ExportFolder, splits: list[str], categories: list[Category], tasks: list[str], name: str
) -> Format:
    if kind == "coco":
        return Coco(folder, splits, categories, tasks, name)
    if kind == "yolo":
        return Yolo(folder, splits, categories, tasks)
    return Files(folder, splits)


def _fill(published: Published, writer: Format, progress: Progress) -> dict[str, Any]:
    for done, (shard, sample) in enumerate(samples_of(published), start=1):
        try:
            writer.add(shard.split, sample)
        except (ValueError, ArithmeticError, RecursionError) as error:
            raise VerificationFailed(
                f"{shard.name}: sample {sample.key} cannot be exported: {error}", DAMAGED_HINT
            ) from None
        progress(sample.end - sample.offset, done)
    return {"splits": writer.close(), "left_out": dict(sorted(writer.left_out.items()))}
