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
    "the state belongs to another order of samples: split, shards and their numbers of samples, seed, "
    "shuffle, window and buffer must be as they were"
)

_FORMAT = 1


@dataclass
class _Iteration:
    """How far one worker has come in an epoch."""

    epoch: int
    worker: int
    workers: int
    given: int = 0
    """Samples, those included that were skipped or that the transform left out."""


class EpochDataset(IterableDataset[Any]):
    """Samples in epochs, shared out over ranks and DataLoader workers, decoded and transformed.

    `loaders.Loader` makes batches of it. Users make a `loaders.ShardDataset` or a `loaders.LiveThenShards`.

    Args:
        reader: knows the order of each epoch, and reads it.
        share: which rank's part this is.
        policy: whether what cannot be read is left out; counts it.
        decode: makes arrays of a sample's members.
        transform: gets each sample and returns what is to be used in its place; None leaves the sample out.
            It gets the epoch as well, if it has a parameter `epoch`.
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
        """The epoch whose order plain iteration gives."""
        return int(self._epoch.array[0])

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the iterations that begin from now on; persistent workers hear of it, too."""
        self._epoch.array[0] = epoch

    @property
    def skipped(self) -> int:
        """Samples left out so far because they could not be read, in all workers and epochs."""
        return self._policy.total

    @property
    def identity(self) -> str:
        """Equal for datasets with the same order of samples: what a saved place in an epoch is a place in."""
        return self._reader.identity

    def __len__(self) -> int:
        """Return the samples of this rank in an epoch.

        Raises:
            TypeError: the shards are streamed, and no manifest tells.
        """
        return len(self.plan(self.epoch))  # in batches of one

    def __iter__(self) -> Iterator[Any]:
        """Return this worker's part of the epoch, sample by sample, from where a loaded state is."""
        worker, workers = _worker()
        resumed, self._resumed = self._resumed, None
        if resumed and (resumed.worker, resumed.workers) != (worker, workers):
            raise ValueError(
                f"the state is that of worker {resumed.worker} of {resumed.workers}, this is {worker} of {workers}: "
                "resume with as many workers, or use a loaders.Loader"
            )
        self._iteration = resumed or _Iteration(self.epoch, worker, workers)
        return self._samples(self._iteration)

    def _samples(self, place: _Iteration) -> Iterator[Any]:
        plan = self.plan(place.epoch, workers=place.workers)  # in batches of one
        for samples in self.read(plan, place.worker, place.workers, skip=place.given):
            place.given += 1
            yield from samples

    def state_dict(self) -> dict[str, Any]:
        """Return how far the last iteration has come: what torchdata's StatefulDataLoader saves, of each worker.

        Holds plain values. It serves the same worker of the same rank, of as many. A `loaders.Loader` saves less, and
        its state serves any number of workers and ranks.
        """
        place = self._resumed or self._iteration or _Iteration(self.epoch, *_worker())
        return {"format": _FORMAT, "dataset": self.identity, "share": self._share_shown, **asdict(place)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next iteration go on where `state_dict` was taken, in the epoch that it was taken in.

        Raises:
            ValueError: the state is of another version, another order of samples, or another rank.
        """
        if state.get("format") != _FORMAT:
            raise ValueError(f"this is not a state of format {_FORMAT}: {state.get('format')!r}")
        if state["dataset"] != self.identity:
            raise ValueError(OTHER_ORDER)
        if state["share"] != self._share_shown:
            raise ValueError(f"the state is that of rank {state['share']}, this is {self._share_shown}")
        self._resumed = _Iteration(*(state[field.name] for field in fields(_Iteration)))

    @property
    def _share_shown(self) -> str:
        return f"{self.share.rank} of {self.share.ranks}, remainder={self.share.remainder!r}"

    def plan(
        self, epoch: int, *, seen: Progress | None = None, workers: int = 1, batch: int = 1, drop_last: bool = False
    ) -> EpochPlan:
        """Return this rank's batches of an epoch, from what has been `seen` on: a `IndexedPlan` or `StreamedPlan`."""
        planned: EpochPlan = self._reader.plan(epoch, seen, Batching(self.share, workers, batch, drop_last))
        return planned

    def read(self, plan: EpochPlan, worker: int, workers: int, skip: int = 0) -> Iterator[list[Any]]:
        """Yield the batches of `plan` that one worker makes, but the first `skip`, decoded and transformed.

        Where samples were skipped a batch is smaller, or empty; it keeps its place.
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
    """Return which DataLoader worker this is, of how many."""
    info = get_worker_info()
    return (0, 1) if info is None else (info.id, info.num_workers)


class ShardDataset(EpochDataset):
    """Samples from shards, in an order that seed and epoch give, shared out over ranks and DataLoader workers.

    Local shards are read at any place: the order is a permutation of all samples. Streamed ones (URLs) are read from
    their starts: their order is permuted, and samples are mixed within a buffer. Every sample comes exactly once an
    epoch, over all ranks and workers together (see `remainder`).

    `loaders.Loader` makes batches of it and resumes in the middle of an epoch. With a plain DataLoader, which can do
    neither that nor count epochs, call `set_epoch` before each epoch. torchdata's StatefulDataLoader resumes by way of
    `state_dict`.

    Args:
        source: a dataset's directory or manifest, a ``.tar``, a brace pattern, a URL as webdataset opens it
            (``http:``, ``gs:``, ``pipe:`` ...), or a list of these. ``pipe:`` runs a command: never from data.
        split: take the shards of this split alone.
        shuffle: False gives the shards' own order (streams: partition by partition, see docs/how-to/loaders.md).
        seed: any integer. The same seed, epoch and shards give the same order.
        window: mix the samples of so many shards at a time instead of all; for disks that are slow to seek.
        buffer: for streams, the samples held to be mixed, in each worker.
        transform: gets each sample (see `loaders.Decoder`) and returns what is to be used in its place; None leaves
            the sample out. It gets the epoch as well, if it has a parameter `epoch`.
        rank: which process this is of `world_size`; by default torch.distributed's, RANK's and WORLD_SIZE's, or the
            only one. Fixed when the dataset is made.
        world_size: see `rank`.
        remainder: "keep" gives every sample exactly once, and ranks may differ by one sample; "pad" repeats the
            epoch's first samples, "drop" leaves out its last, so that all ranks have equally many.
        on_error: "raise", or "skip" to leave out what cannot be read, warn of it and count it in `skipped`.
        verify: compare sha256 with the manifest: local shards before the first sample, streamed ones as they pass.
        manifest: of streamed shards that are given one by one, or of files with none beside them.
        max_bytes: largest sample that is read.
        decoding: what `Decoder` takes: ``image_layout``, ``output``, ``integers``, ``floats``, ``members``,
            ``max_pixels``.

    Raises:
        ManifestError: there is no valid manifest where one is needed.
        ShardError: a local shard is missing or not as long as its manifest says; there is no shard to read. While
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
