"""Loose files: each member of each sample as it is in the shard, ``SPLIT/KEY.MEMBER``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from compiler.exports.writer import ExportFolder
from loaders.tarstream import Sample


class Files:
    """Writes the members.

    State: how many samples and files each split has.

    Args:
        folder: where to write.
        splits: the dataset's splits.
    """

    def __init__(self, folder: ExportFolder, splits: Sequence[str]) -> None:
        self.left_out: Counter[str] = Counter()
        self._folder = folder
        self._counts = {split: {"samples": 0, "files": 0} for split in splits}
        for split in splits:
            folder.folder(split)

    def add(self, split: str, sample: Sample) -> None:
        """Write a sample. Raises OSError."""
        for name, content in sample.members.items():
            self._folder.put(f"{split}/{sample.key}.{name}", content)
        self._counts[split]["samples"] += 1
        self._counts[split]["files"] += len(sample.members)

    def close(self) -> dict[str, dict[str, int]]:
        """Return how many samples and files each split has."""
        return self._counts
