"""Datasets that are read in epochs: shared out over ranks and workers, decoded, resumed. From shards: ShardDataset."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Unpack

import torch
from torch.utils.data import IterableDataset, get_worker_info

from loaders._decode import Decoder, Decoding, Transform, Transformed
from loaders._shards.order import EpochOrder
from loaders._shards.plans import Batching, EpochPlan, EpochReader, Progress, RawSample, Remainder, Share
from loaders._shards.readers import LocalReader, StreamReader
from loaders._shards.sources import Source, resolve
from loaders._shards.store import LocalShards
from loaders._workers import ErrorPolicy, OnError, SharedArray, resolve_rank
from loaders.errors import located
from loaders.manifest import Manifest
from loaders.tarstream import DEFAULT_MAX_BYTES

OTHER_ORDER = (
    "the state belongs to another order of samples: split, shards and their sample counts, seed, "
    "shuffle, window and buffer must be the same as when it was saved"
)

_FORMAT = 1


@dataclass
class _Iteration:
    """One worker's progress in an epoch."""

    epoch: int
    worker: int
    workers: int
    given: int = 0
    """Samples so far, including those that were skipped or that the transform dropped."""


class EpochDataset(IterableDataset[Any]):
    """Samples in epochs, divided among ranks and DataLoader workers, decoded and transformed.

    The base of `loaders.ShardDataset` and `loaders.LiveThenShards`; `loaders.Loader` makes batches of it.

    Args:
        reader: plans each epoch and reads it.
        share: this rank's part.
        policy: what happens to samples that cannot be read.
        decode: turns a sample's members into arrays.
        transform: see `ShardDataset`.
    """

    def __init__(
        self, reader: EpochReader[Any], share: Share, policy: ErrorPolicy, decode: Decoder, transform: Transform | None
    ) -> None:
        super().__init__()
        self.share = share
        self._reader, self._policy, self._decode, self._transform = reader, policy, decode, Transformed(transform)
        self._epoch = SharedArray(1, torch.int64)
        self._iteration: _Iteration | None = None
        self._resumed: _Iteration | None = None

    @property
    def epoch(self) -> int:
        """The epoch that the next iteration reads."""
        return int(self._epoch.array[0])

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, and so the order, of the next iterations; persistent workers see it, too."""
        self._epoch.array[0] = epoch

    @property
    def skipped(self) -> int:
        """Samples skipped so far because they could not be read, in all workers and epochs."""
        return self._policy.total

    @property
    def identity(self) -> str:
        """Identifies the order of samples: a saved state fits datasets with the same identity."""
        return self._reader.identity

    def __len__(self) -> int:
        """Return the samples of this rank in an epoch.

        Raises:
            TypeError: the shards are streamed, and there is no manifest.
        """
        return len(self.plan(self.epoch))  # in batches of one

    def __iter__(self) -> Iterator[Any]:
        """Iterate over this worker's samples of the epoch, from a loaded state if there is one."""
        worker, workers = _worker()
        resumed, self._resumed = self._resumed, None
        if resumed and (resumed.worker, resumed.workers) != (worker, workers):
            raise ValueError(
                f"the state is of worker {resumed.worker} of {resumed.workers}, but this is {worker} of {workers}: "
                "resume with the same number of workers, or use a loaders.Loader"
            )
        self._iteration = resumed or _Iteration(self.epoch, worker, workers)
        return self._samples(self._iteration)

    def _samples(self, place: _Iteration) -> Iterator[Any]:
        plan = self.plan(place.epoch, workers=place.workers)  # in batches of one
        for samples in self.read(plan, place.worker, place.workers, skip=place.given):
            place.given += 1
            yield from samples

    def state_dict(self) -> dict[str, Any]:
        """Return the progress of the last iteration, as torchdata's StatefulDataLoader saves it for each worker.

        The state holds plain values. It fits the same worker and rank, with the same numbers of both. The state of a
        `loaders.Loader` is smaller, and fits any number of workers and ranks.
        """
        place = self._resumed or self._iteration or _Iteration(self.epoch, *_worker())
        return {"format": _FORMAT, "dataset": self.identity, "share": self._share_shown, **asdict(place)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next iteration continue where `state_dict` was called, in the same epoch.

        Raises:
            ValueError: the state has another format, another order of samples, or another rank.
        """
        if state.get("format") != _FORMAT:
            raise ValueError(f"this is not a state of format {_FORMAT}: {state.get('format')!r}")
        if state["dataset"] != self.identity:
            raise ValueError(OTHER_ORDER)
        if state["share"] != self._share_shown:
            raise ValueError(f"the state is of rank {state['share']}, but this is {self._share_shown}")
        self._resumed = _Iteration(*(state[field.name] for field in fields(_Iteration)))

    @property
    def _share_shown(self) -> str:
        return f"{self.share.rank} of {self.share.ranks}, remainder={self.share.remainder!r}"

    def plan(
        self, epoch: int, *, seen: Progress | None = None, workers: int = 1, batch: int = 1, drop_last: bool = False
    ) -> EpochPlan:
        """Return this rank's batches of an epoch, after what has been `seen`."""
        planned: EpochPlan = self._reader.plan(epoch, seen, Batching(self.share, workers, batch, drop_last))
        return planned

    def read(self, plan: EpochPlan, worker: int, workers: int, skip: int = 0) -> Iterator[list[Any]]:
        """Yield one worker's batches of `plan`, decoded and transformed, without the first `skip`.

        A batch whose samples were skipped is smaller, or empty; it keeps its place.
        """
        for batch in self._reader.read(plan, worker, workers, skip):
            decoded = (self._load(raw, plan.epoch) for raw in batch)
            yield [sample for sample in decoded if sample is not None]

    def _load(self, raw: RawSample, epoch: int) -> Any:
        if raw is None:
            return None
        where, sample = raw

        def decode() -> dict[str, Any]:
            with located(where):
                return self._decode(sample.key, sample.members)

        decoded = self._policy.attempt(decode)
        return None if decoded is None else self._transform(decoded, epoch)


def _worker() -> tuple[int, int]:
    """Return this DataLoader worker's number, and how many there are."""
    info = get_worker_info()
    return (0, 1) if info is None else (info.id, info.num_workers)


class ShardDataset(EpochDataset):
    """Samples from shards, in an order that depends on seed and epoch, divided among ranks and DataLoader workers.

    Local shards allow random access, so the order is a permutation of all samples. Streamed shards (URLs) are read from
    start to end: the shards are permuted, and samples are shuffled within a buffer. Each sample comes exactly once an
    epoch, over all ranks and workers together (see `remainder`).

    `loaders.Loader` makes batches of it and resumes in the middle of an epoch. A plain DataLoader neither resumes nor
    counts epochs: call `set_epoch` before each. torchdata's StatefulDataLoader resumes through `state_dict`.

    Args:
        source: a dataset's directory or manifest, a ``.tar``, a brace pattern, a URL as webdataset opens it
            (``http:``, ``gs:``, ``pipe:`` ...), or a list of these. ``pipe:`` runs a command: never from data.
        split: read only the shards of this split.
        shuffle: False keeps the shards' order (streams: partition by partition, see docs/reference/loading.md).
        seed: any integer. The same seed, epoch and shards give the same order.
        window: shuffle the samples of this many shards at a time instead of all; for disks that are slow to seek.
        buffer: for streams, how many samples each worker holds to shuffle them.
        transform: takes each sample (see `loaders.Decoder`) and returns what to use instead; None drops the sample.
            It also gets the epoch if it has a parameter `epoch`.
        rank: this process's number in `world_size`; by default torch.distributed's, else RANK and WORLD_SIZE from the
            environment, else the only one. Fixed when the dataset is made.
        world_size: see `rank`.
        remainder: "keep" gives each sample exactly once, and ranks may differ by one sample; "pad" repeats the
            epoch's first samples, "drop" leaves out its last, so that all ranks have equally many.
        on_error: "raise", or "skip" to leave out what cannot be read, warn about it and count it in `skipped`.
        verify: compare sha256 with the manifest: local shards before the first sample, streamed ones as they are read.
        manifest: the manifest of streamed shards that are listed one by one, or of files without one in their folder.
        max_bytes: largest sample that is read.
        decoding: options of `Decoder`: ``image_layout``, ``output``, ``integers``, ``floats``, ``members``,
            ``max_pixels``.

    Raises:
        ManifestError: a manifest is needed, and there is no valid one.
        ShardError: there are no shards; a local one is missing, or its length differs from the manifest. While
            iterating: a shard is damaged, or a sample cannot be decoded.
    """

    def __init__(
        self,
        source: Source,
        *,
        split: str | None = None,
        shuffle: bool = True,
        seed: int = 0,
        window: int | None = None,
        buffer: int = 500,
        transform: Transform | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        remainder: Remainder = "keep",
        on_error: OnError = "raise",
        verify: bool = False,
        manifest: Manifest | str | Path | None = None,
        max_bytes: int = DEFAULT_MAX_BYTES,
        **decoding: Unpack[Decoding],
    ) -> None:
        share = Share(*resolve_rank(rank, world_size), remainder)
        decode = Decoder(**decoding)
        policy = ErrorPolicy(on_error)
        reader: EpochReader[Any]
        shards = resolve(source, split=split, manifest=manifest)
        if shards[0].streamed:
            reader = StreamReader(
                shards, policy, seed=seed, shuffle=shuffle, buffer=buffer, verify=verify, max_bytes=max_bytes
            )
        else:
            store = LocalShards(shards, lenient=policy.reporter, verify=verify, max_bytes=max_bytes)
            policy.add(store.damaged_uncounted)  # at least one sample each
            order = EpochOrder(store.counts, seed=seed, shuffle=shuffle, window=window)
            reader = LocalReader(store, order, policy)
        super().__init__(reader, share, policy, decode, transform)
