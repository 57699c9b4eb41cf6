"""Training from the first sample to the last epoch: live while the dataset is compiled, then from its shards."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from threading import Event
from typing import Any, Unpack

from loaders._dataset import EpochDataset
from loaders._decode import Decoder, Decoding, Transform
from loaders._shards.order import EpochOrder
from loaders._shards.plans import Batching, EpochPlan, Progress, RawSample, Remainder, Share, positions_identity
from loaders._shards.readers import LocalReader
from loaders._shards.store import LocalShards
from loaders._tee.client import Address, TeeStatus
from loaders._tee.listener import TIMEOUT_S, Listener, TeeStates, listen_options
from loaders._tee.live_epoch import DeliveredSamples, LiveContext, LiveEpochReader, LivePlan, PartialDataset
from loaders._workers import ErrorPolicy, IterationCounter, OnError, resolve_rank
from loaders.errors import LiveError
from loaders.layout import ShardLayout
from loaders.tarstream import DEFAULT_MAX_BYTES

_MOST_SAMPLES = 1 << 26
_LOOK_EVERY_S = 0.5


class LiveThenShards(EpochDataset):
    """A `ShardDataset` that you can use while its shards are still being compiled.

    Epoch 0 yields each sample exactly once, over all ranks and workers together: from the tee as they come, and from
    the directory those that were finished before or that the tee dropped. Later epochs equal those of a `ShardDataset`
    of the finished directory, and wait for it if necessary. With a plain DataLoader, call `set_epoch` before each
    epoch. A `loaders.Loader` does so itself, and resumes in the middle of any epoch but the first::

        dataset = loaders.LiveThenShards("falling_cubes", "http://127.0.0.1:5555")
        loader = loaders.Loader(dataset, batch_size=32, num_workers=2)
        for epoch in range(10):
            for batch in loader:
                ...

    Args:
        folder: the directory that the compiler writes to (its ``--out``), on a disk that this machine can read.
        address: the compiler's live tee, which must answer within `timeout_s` when you make the dataset.
        token: the compiler's access token.
        timeout_s: how long to wait for the compiler, and at its end for the last shards.
        shuffle: as for `ShardDataset`; in epoch 0 it affects only what is read from the directory.
        seed: as for `ShardDataset`, like all that follow.
        decoding: options of `Decoder`: ``image_layout``, ``output``, ``integers``, ``floats``, ``members``,
            ``max_pixels``.

    Raises:
        LiveError: there is no compiler, it compiles without end, or it serves another dataset than `folder` holds.
            While iterating: it is gone, and shards are missing.
        ShardError: `folder` holds another dataset.
    """

    def __init__(
        self,
        folder: str | Path,
        address: str,
        *,
        token: str | None = None,
        timeout_s: float = TIMEOUT_S,
        shuffle: bool = True,
        seed: int = 0,
        window: int | None = None,
        transform: Transform | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        remainder: Remainder = "keep",
        on_error: OnError = "raise",
        verify: bool = False,
        max_bytes: int = DEFAULT_MAX_BYTES,
        **decoding: Unpack[Decoding],
    ) -> None:
        share, policy = Share(*resolve_rank(rank, world_size), remainder), ErrorPolicy(on_error)
        decode = Decoder(**decoding)
        where, how = Address.parse(address), listen_options(token=token, timeout_s=timeout_s, max_bytes=max_bytes)
        states = TeeStates(1)
        status = Listener(where, 0, how, states, 0, Event()).wait_for_status()
        dataset = _await_first(Path(folder), status, where, timeout_s)
        size = dataset.shards * dataset.per_shard
        delivered = DeliveredSamples(size + share.ranks)
        context = LiveContext(where, how, states, delivered, policy, seed, shuffle, verify)
        order = EpochOrder([dataset.per_shard] * dataset.shards, seed=seed, shuffle=shuffle, window=window)
        super().__init__(_LiveThenLocalReader(context, dataset, order), share, policy, decode, transform)


class _LiveThenLocalReader:
    """Reads epoch 0 live, and all others from local shards.

    State: the reader of the finished shards, once there is one.
    """

    def __init__(self, context: LiveContext, dataset: PartialDataset, order: EpochOrder) -> None:
        self.size: int | None = order.size
        self.identity = positions_identity(order)
        self._context, self._dataset, self._order = context, dataset, order
        self._iterations = IterationCounter()
        self._later: LocalReader | None = None

    def plan(self, epoch: int, seen: Progress | None, batching: Batching) -> EpochPlan:
        """Return the batches of one rank."""
        if epoch == 0 and seen is None:
            return LivePlan(self._order.size, batching.share, batching.workers, batching.size, batching.drop_last)
        return self._finished().plan(epoch, seen, batching)

    def read(self, plan: Any, worker: int, workers: int, skip: int) -> Iterator[list[RawSample]]:
        """Yield the batches of one of `workers` workers, without the first `skip`.

        Raises:
            TypeError: batches of the live epoch would be skipped.
        """
        if not isinstance(plan, LivePlan):
            yield from self._finished().read(plan, worker, workers, skip)
            return
        if skip:
            plan.progress_after(skip)
        samples = iter(LiveEpochReader(plan, self._context, self._dataset, self._iterations.begin()))
        while batch := list(islice(samples, plan.batch)):
            if len(batch) < plan.batch and plan.drop_last:
                return
            yield batch

    def _finished(self) -> LocalReader:
        """Return the reader of the finished shards; wait for them."""
        if self._later is None:
            _await_all(self._dataset, self._context)
            policy = self._context.policy
            shards, max_bytes = self._dataset.all_shards(), self._context.options.max_bytes
            store = LocalShards(shards, lenient=policy.reporter, verify=self._context.verify, max_bytes=max_bytes)
            self._later = LocalReader(store, self._order, policy)
        return self._later


def _await_first(folder: Path, status: TeeStatus, address: Address, timeout_s: float) -> PartialDataset:
    """Return the directory that a compiler writes to, once it has a manifest."""
    if not status.shards_wanted:
        raise LiveError(f"{address} compiles without end; use LiveDataset, or start compile-dataset with --shards N")
    try:
        per_shard = ShardLayout.parse(status.plan).samples_per_shard
    except ValueError as error:
        raise LiveError(f"{address} does not say how its dataset's samples are numbered: {error}") from None
    if per_shard * status.shards_wanted > _MOST_SAMPLES:
        raise LiveError(f"{address} serves more than {_MOST_SAMPLES} samples; use LiveDataset")
    dataset = PartialDataset(folder, status.plan_digest, status.shards_wanted, per_shard)
    due = time.monotonic() + timeout_s
    dataset.refresh()
    while not dataset.begun:
        if time.monotonic() > due:
            raise LiveError(f"there is no dataset in {folder}; pass the directory {address} writes to (its --out)")
        time.sleep(_LOOK_EVERY_S)
        dataset.refresh()
    return dataset


def _await_all(dataset: PartialDataset, context: LiveContext) -> None:
    """Wait until all shards are finished, as long as a compiler is working on them.

    Raises:
        LiveError: the compiler is gone or has finished, and shards are missing.
    """
    listener = Listener(context.address, 0, context.options, context.states, 0, Event())
    due: float | None = None
    dataset.refresh()
    while not dataset.complete:
        now = time.monotonic()
        due = None if listener.has_finished() is False else due or now + context.options.timeout_s
        if due is not None and now > due:
            raise LiveError(
                f"{context.address} no longer compiles, but {dataset.folder} lacks shards {dataset.missing()}; "
                "run the same compile-dataset again"
            )
        time.sleep(_LOOK_EVERY_S)
        dataset.refresh()
