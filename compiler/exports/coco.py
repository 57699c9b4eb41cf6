"""COCO: ``images/SPLIT/`` and ``annotations/instances_SPLIT.json`` with boxes, masks (RLE) and keypoints.

A file of annotations may be larger than memory: its two long lists are written as the samples come, the second one
into a file of its own, which is appended at the end.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from typing import Any

from compiler.exports.labels import Category, Label, labels_of
from compiler.exports.rle import compress, pixels
from compiler.exports.samples import View, views
from compiler.exports.writer import ExportFolder
from loaders.format import canonical_json
from loaders.tarstream import Sample


class Coco:
    """Writes COCO's files.

    State: the open files of each split, and how many images and objects each has.

    Args:
        folder: where to write.
        splits: the dataset's splits.
        categories: the dataset's categories.
        tasks: ``segment`` for masks, ``pose`` for keypoints; boxes are always there.
        description: what the file says that it is.
    """

    def __init__(
        self,
        folder: ExportFolder,
        splits: Sequence[str],
        categories: Sequence[Category],
        tasks: Sequence[str],
        description: str,
    ) -> None:
        self.left_out: Counter[str] = Counter()
        self._folder, self._masks, self._pose = folder, "segment" in tasks, "pose" in tasks
        self._categories = {category.id: category for category in categories}
        head = {
            "info": {"description": description},
            "licenses": [],
            "categories": [self._described(category) for category in categories],
        }
        self._splits = {split: _Split(folder, split, canonical_json(head)) for split in splits}

    def add(self, split: str, sample: Sample) -> None:
        """Write a sample. Raises ValueError: it holds what COCO cannot; OSError."""
        for view in views(sample):
            found = [self._annotation(view, label) for label in labels_of(view, self._categories, self.left_out)]
            self._splits[split].add(view, found)
            self._folder.put(f"images/{split}/{view.file_name}", view.image)

    def close(self) -> dict[str, dict[str, int]]:
        """Finish the files; return how many images and objects each split has. Raises OSError."""
        return {name: split.close() for name, split in self._splits.items()}

    def _described(self, category: Category) -> dict[str, Any]:
        found: dict[str, Any] = {"id": category.id, "name": category.name, "supercategory": ""}
        if self._pose and category.keypoints:
            found |= {"keypoints": category.keypoints, "skeleton": category.skeleton}
        return found

    def _annotation(self, view: View, label: Label) -> dict[str, Any]:
        area = label.box[2] * label.box[3] if label.counts is None else pixels(label.counts)
        found = {"category_id": label.category.id, "bbox": label.box, "area": area, "iscrowd": 0}
        if self._masks and label.counts is not None:
            found["segmentation"] = {"size": [view.height, view.width], "counts": compress(label.counts)}
        if self._pose and label.category.keypoints:
            seen = sum(flag > 0 for flag in label.keypoints[2::3])
            found |= {"keypoints": label.keypoints, "num_keypoints": seen}
        return found


class _Split:
    """The annotations of one split.

    State: two open files, and how many records they have.
    """

    def __init__(self, folder: ExportFolder, split: str, head: bytes) -> None:
        self._folder, self._rest = folder, f"annotations/instances_{split}.json.rest"
        self._file = folder.stream(f"annotations/instances_{split}.json")
        self._annotations = folder.stream(self._rest)
        folder.folder(f"images/{split}")
        self._images = self._objects = 0
        self._file.write(head[:-1] + b',"images":[')

    def add(self, view: View, annotations: Sequence[dict[str, Any]]) -> None:
        """Add an image and its objects; all or, if a value is no JSON (ValueError), none."""
        number = self._images + 1
        image = {"id": number, "file_name": view.file_name, "width": view.width, "height": view.height}
        lines = [
            canonical_json({"id": self._objects + at, "image_id": number, **annotation})
            for at, annotation in enumerate(annotations, start=1)
        ]
        self._file.write((b",\n" if self._images else b"\n") + canonical_json(image))
        for line in lines:
            self._annotations.write((b",\n" if self._objects else b"\n") + line)
            self._objects += 1
        self._images = number

    def close(self) -> dict[str, int]:
        """Put the annotations after the images."""
        self._file.write(b'\n],"annotations":[')
        self._annotations.seek(0)
        shutil.copyfileobj(self._annotations, self._file)
        self._file.write(b"\n]}\n")
        self._file.close()
        self._annotations.close()
        self._folder.drop(self._rest)
        return {"images": self._images, "objects": self._objects}
