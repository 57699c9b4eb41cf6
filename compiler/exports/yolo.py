"""YOLO as ultralytics reads it: ``images/SPLIT/``, ``labels/SPLIT/`` with a text an image, and ``data.yaml``."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence

from compiler.exports.labels import Category, Label, labels_of
from compiler.exports.samples import View, views
from compiler.exports.writer import ExportFolder
from loaders.tarstream import Sample


class Yolo:
    """Writes YOLO's files.

    State: how many images and objects each split has.

    Args:
        folder: where to write.
        splits: the dataset's splits.
        categories: the dataset's categories.
        tasks: ``pose`` for keypoints, of which all categories must have the same number.
    """

    def __init__(
        self, folder: ExportFolder, splits: Sequence[str], categories: Sequence[Category], tasks: Sequence[str]
    ) -> None:
        self.left_out: Counter[str] = Counter()
        self._folder, self._pose = folder, "pose" in tasks
        self._categories = {category.id: category for category in categories}
        self._counts = {split: {"images": 0, "objects": 0} for split in splits}
        folder.put("data.yaml", _data(splits, categories, self._pose).encode())
        for split in splits:
            folder.folder(f"images/{split}")
            folder.folder(f"labels/{split}")

    def add(self, split: str, sample: Sample) -> None:
        """Write a sample. Raises ValueError: it holds what YOLO cannot; OSError."""
        for view in views(sample):
            lines = [self._line(view, label) for label in labels_of(view, self._categories, self.left_out)]
            name = view.file_name.rpartition(".")[0]
            self._folder.put(f"labels/{split}/{name}.txt", "".join(lines).encode())
            self._folder.put(f"images/{split}/{view.file_name}", view.image)
            self._counts[split]["images"] += 1
            self._counts[split]["objects"] += len(lines)

    def close(self) -> dict[str, dict[str, int]]:
        """Return how many images and objects each split has."""
        return self._counts

    def _line(self, view: View, label: Label) -> str:
        x, y, width, height = label.box
        values = [
            _share(x + width / 2, view.width),
            _share(y + height / 2, view.height),
            _share(width, view.width),
            _share(height, view.height),
        ]
        if self._pose:
            points = label.keypoints
            for x, y, seen in zip(points[::3], points[1::3], points[2::3], strict=True):
                values += [_share(x, view.width), _share(y, view.height), str(int(seen))]
        return f"{' '.join([str(label.category.number), *values])}\n"


def _share(value: float, whole: int) -> str:
    if not math.isfinite(value):
        raise ValueError(f"{value} is no place in an image")
    return f"{value / whole:.8f}"


def _data(splits: Sequence[str], categories: Sequence[Category], pose: bool) -> str:
    """Return ``data.yaml``. Texts are written as in JSON, which is YAML, too."""
    lines = [f"{json.dumps(split)}: {json.dumps(f'images/{split}')}" for split in splits]
    if "val" not in splits:
        lines.append(f"val: {json.dumps(f'images/{splits[0]}')} # the dataset has no split val; YOLO needs one")
    if pose:
        lines.append(f"kpt_shape: [{len(categories[0].keypoints)}, 3]")
    lines.append("names:")
    lines += [f"  {at}: {json.dumps(entry.name, ensure_ascii=False)}" for at, entry in enumerate(categories)]
    return "".join(f"{line}\n" for line in lines)
