"""The shards of a dataset that is still being compiled, and who gives which of its samples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from loaders._shards.sources import Shard, listed
from loaders.children import shared_lock
from loaders.errors import ShardError
from loaders.manifest import FILE_NAME, Manifest, ShardInfo
from loaders.shared import SharedArray


class GrowingShards:
    """A dataset's directory in which shards appear, as one process sees it.

    State: the shards that were finished when it was looked at last, and the manifest's age then.
    """

    def __init__(self, folder: Path, plan_digest: str, shards: int, per_shard: int) -> None:
        """Take the directory and what the dataset shall become: so many shards with so many samples each."""
        self.folder, self.shards, self.per_shard = folder, shards, per_shard
        self.finished: NDArray[np.bool_] = np.zeros(shards, np.bool_)
        """Whether each shard is there."""
        self.begun = False
        """Whether there is a manifest."""
        self._plan_digest = plan_digest
        self._listed: dict[int, Shard] = {}
        self._seen: tuple[int, int] | None = None

    @property
    def complete(self) -> bool:
        """Whether all shards are there."""
        return bool(self.finished.all())

    def look(self) -> None:
        """Find out which shards are finished by now.

        Raises:
            ManifestError: the manifest is damaged.
            ShardError: the directory holds another dataset.
        """
        try:
            state = (self.folder / FILE_NAME).stat()
        except FileNotFoundError:
            return
        if (seen := (state.st_mtime_ns, state.st_ino)) == self._seen and self.complete:
            return
        manifest = Manifest.load(self.folder)
        if manifest.plan_digest != self._plan_digest:
            raise ShardError(
                f"{self.folder} holds the plan {manifest.plan_digest[:16]}..., the compiler serves "
                f"{self._plan_digest[:16]}...; give the directory that it writes to (its --out)"
            )
        self.begun, self._seen = True, seen
        shards = listed(manifest).values()
        self._listed = {shard.info.number: shard for shard in shards if shard.info and self._is_whole(shard.info)}
        for number in range(self.shards):
            self.finished[number] = number in self._listed

    def shard(self, number: int) -> Shard:
        """Return a finished shard."""
        shard = self._listed[number]
        return replace(shard, location=str(self.folder / shard.location))

    def all_shards(self) -> list[Shard]:
        """Return the shards of a complete dataset, in order."""
        return [self.shard(number) for number in range(self.shards)]

    def lacking(self) -> str:
        """Name the shards that are missing, or whose files are not what the manifest says."""
        missing = np.flatnonzero(~self.finished).tolist()
        return f"{', '.join(map(str, missing[:5]))}{' ...' if len(missing) > 5 else ''} of {self.shards}"

    def _is_whole(self, info: ShardInfo) -> bool:
        """Tell a shard from one that the compiler has found damaged and is going to replace."""
        try:
            size = (self.folder / info.name).stat().st_size
        except FileNotFoundError:
            return False
        return info.number < self.shards and info.samples == self.per_shard and size == info.bytes


class Claims:
    """Who gives which sample: the worker that claims it first.

    A sample can reach two workers, one from the tee and one from the disk. Each claims what it is about to give, and
    what is claimed already is not given again.
    """

    def __init__(self, size: int) -> None:
        self._claimed_in = SharedArray(size, torch.int32)
        """By position, the last iteration in which it was given."""
        self._lock = shared_lock()

    def claim(self, position: int, iteration: int) -> bool:
        """Return whether it is the caller that gives the sample at `position`."""
        with self._lock:
            claimed_in = self._claimed_in.array
            if claimed_in[position] == iteration:
                return False
            claimed_in[position] = iteration
            return True

    def unclaimed(self, iteration: int) -> NDArray[np.bool_]:
        """Return which positions nobody has claimed."""
        unclaimed: NDArray[np.bool_] = self._claimed_in.array != iteration
        return unclaimed
