"""A DataLoader whose order does not depend on the number of workers, and which resumes anywhere in an epoch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from multiprocessing.synchronize import Semaphore
from typing import Any, Self

import torch
import torch.multiprocessing
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from loaders._batches import BatchReceiver, BatchSender
from loaders._batches import collate as default_collate
from loaders._dataset import OTHER_ORDER, EpochDataset
from loaders._shards.plans import EpochPlan, Progress
from loaders._workers import SharedArray, keep_freed_memory
from loaders.children import safe_path
from loaders.errors import SkipWarning

Collate = Callable[[list[Any]], Any]

_FORMAT = 1
_SPARE_BUFFERS = 2
"""In addition to those for prefetched batches: for the batch that the loop is using and the one before it."""


class Loader:
    """A DataLoader of a `ShardDataset` or `LiveThenShards` that resumes where the training loop was.

    Seed and epoch determine the batches and their order, for any number of workers. The loader counts the batches that
    the loop has received, not those that workers have prefetched, so a checkpoint saved in the loop is exact::

        loader = loaders.Loader(loaders.ShardDataset("falling_cubes"), batch_size=32, num_workers=4)
        if checkpoint:
            loader.load_state_dict(checkpoint["loader"])
        for epoch in range(loader.epoch, epochs):
            loader.set_epoch(epoch)
            for batch in loader:
                ...
                torch.save({"loader": loader.state_dict(), ...}, path)

    An epoch is over once its last batch has been yielded, whether or not the loop asks for more: `epoch` is then the
    next one, with another order. If you leave the loop earlier, the next loop starts the same epoch again, as with a
    DataLoader.

    Args:
        dataset: what to read.
        batch_size: samples in a batch of one rank; None yields single samples.
        num_workers: processes that read and decode; 0 reads in the loop's own process.
        drop_last: leave out batches that are not full.
        collate: makes a batch from a list of samples; `loaders.collate` by default.
        pin_memory: as for a DataLoader.
        prefetch_factor: batches that each worker makes ahead.
        persistent_workers: keep the workers from epoch to epoch.
        multiprocessing_context: how workers are started: "fork", "spawn", "forkserver".
        timeout: seconds to wait for a batch; 0 waits forever.
        worker_init_fn: as for a DataLoader.
    """

    def __init__(
        self,
        dataset: EpochDataset,
        batch_size: int | None = 1,
        *,
        num_workers: int = 0,
        drop_last: bool = False,
        collate: Collate = default_collate,
        pin_memory: bool = False,
        prefetch_factor: int = 2,
        persistent_workers: bool = False,
        multiprocessing_context: str | BaseContext | None = None,
        timeout: float = 0,
        worker_init_fn: Callable[[int], None] | None = None,
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, or None, not {batch_size}")
        self.dataset, self.batch_size, self.num_workers, self.drop_last = dataset, batch_size, num_workers, drop_last
        self._collate, self._epoch = collate, dataset.epoch
        self._begin: Progress | None = None
        self._run: _Run | None = None
        self._kept: _Workers | None = None
        self._buffers = prefetch_factor + _SPARE_BUFFERS
        self._persistent = persistent_workers and num_workers > 0
        self._options: dict[str, Any] = {"pin_memory": pin_memory, "timeout": timeout}
        if num_workers > 0:
            self._options |= {
                "num_workers": num_workers,
                "prefetch_factor": prefetch_factor,
                "persistent_workers": self._persistent,
                "multiprocessing_context": _context(multiprocessing_context),
                "worker_init_fn": worker_init_fn,
            }

    @property
    def epoch(self) -> int:
        """The epoch of the current loop; once it has received its last batch, that of the next loop."""
        return self._epoch

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next loop. If it is a loaded state's epoch, the loop continues from that state."""
        if self._run is not None and (self._run.is_over or epoch != self._epoch):
            self._leave()
        if epoch != self._epoch:
            self._epoch, self._begin = epoch, None

    @property
    def sampler(self) -> Self:
        """The loader itself: Lightning calls its `set_epoch` before each epoch."""
        return self

    def __len__(self) -> int:
        """Return the batches of this rank in a whole epoch; for a live epoch, the largest possible number.

        Raises:
            TypeError: the shards are streamed, and there is no manifest.
        """
        return len(self._plan(self._epoch, None))

    def state_dict(self) -> dict[str, Any]:
        """Return the progress of the training loop: which epoch it is in, and what it has received of it.

        The state holds plain values and lists. It is equal on all ranks that have received equally many batches, so
        rank 0's state fits any number of ranks, with any batch size and number of workers.

        Raises:
            TypeError: in the middle of an epoch that is live, or of streamed shards without a manifest.
        """
        epoch, seen, run = self._epoch, self._begin, self._run
        if run is not None and not run.plan.exhausted_after(run.batches):
            # This rank may be done while others, which the state must fit as well, have one more batch.
            epoch, seen = run.epoch, run.plan.progress_after(run.batches)
        return {"format": _FORMAT, "dataset": self.dataset.identity, "epoch": epoch, "seen": seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next loop continue where `state_dict` was called.

        Raises:
            ValueError: the state has another format or another order of samples.
        """
        if state.get("format") != _FORMAT:
            raise ValueError(f"this is not a state of format {_FORMAT}: {state.get('format')!r}")
        if state["dataset"] != self.dataset.identity:
            raise ValueError(OTHER_ORDER)
        self._epoch, self._begin, self._run, self._kept = state["epoch"], state["seen"], None, None
        if self._begin is not None and self._plan(self._epoch, self._begin).exhausted_after(0):
            self._epoch, self._begin = self._epoch + 1, None

    def __iter__(self) -> Iterator[Any]:
        """Yield the epoch's batches, from a loaded state if there is one."""
        run = self._run = self._new_run()
        for received in run.batches_made:
            run.batches += 1
            if run.batches == run.length:
                self._end(run)
            if not isinstance(received, _Nothing):
                yield run.workers.buffers.unpack(received)
            if run.is_left:
                return
        self._end(run)
        if run is self._run:
            self._leave()

    def _new_run(self) -> _Run:
        """Start a loop, with the last one's workers if they persist."""
        if self._run is not None and self._run.is_over:
            self._leave()
        workers, self._kept = self._kept or self._new_workers(), None
        workers.batches.begin(self._epoch, self._begin)
        plan, skipped = self._plan(self._epoch, self._begin), self.dataset.skipped
        with safe_path():
            batches = iter(workers.data_loader)
        return _Run(self._epoch, plan, _length(plan), workers, batches, skipped)

    def _end(self, run: _Run) -> None:
        """Note that a loop has received its last batch."""
        if run.is_over:
            return
        run.is_over = True
        if skipped := self.dataset.skipped - run.skipped_before:
            warnings.warn(f"epoch {run.epoch}: {skipped} samples were skipped", SkipWarning, stacklevel=3)
        if run is self._run:
            self._epoch, self._begin = run.epoch + 1, None

    def _leave(self) -> None:
        """End the current loop; keep its workers if they persist and have finished their epoch."""
        run, self._run = self._run, None
        if run is None:
            return
        if run.is_over and self._persistent:
            for _ in run.batches_made:  # the loop did not ask for more, so the end of the workers' epoch was not seen
                pass
            run.is_left, self._kept = True, run.workers

    def _plan(self, epoch: int, seen: Progress | None) -> EpochPlan:
        workers = max(1, self.num_workers)
        batch = self.batch_size or 1
        return self.dataset.plan(epoch, seen=seen, workers=workers, batch=batch, drop_last=self.drop_last)

    def _new_workers(self) -> _Workers:
        buffers = BatchReceiver(self.num_workers, self._buffers, self._options.get("multiprocessing_context"))
        batches = _Batches(self.dataset, self._collate, self.batch_size, self.drop_last, buffers.free)
        return _Workers(DataLoader(batches, batch_size=None, collate_fn=_as_it_is, **self._options), batches, buffers)


@dataclass
class _Run:
    """One loop over the loader."""

    epoch: int
    plan: EpochPlan
    length: int | None
    """Batches that it yields, if known before its end."""
    workers: _Workers
    batches_made: Iterator[Any]
    skipped_before: int
    """The dataset's count of skipped samples when the loop began."""
    batches: int = 0
    """Yielded so far, including empty ones."""
    is_over: bool = False
    """Whether these were all."""
    is_left: bool = False
    """Whether another loop has its workers now."""


@dataclass(frozen=True)
class _Workers:
    """A DataLoader with what belongs to it."""

    data_loader: DataLoader[Any]
    batches: _Batches
    buffers: BatchReceiver


class _Nothing:
    """In place of a batch whose samples were all skipped."""


class _Batches(IterableDataset[Any]):
    """The batches of a dataset, collated in the workers: each plans which batches are its own."""

    def __init__(
        self,
        dataset: EpochDataset,
        collate: Collate,
        batch_size: int | None,
        drop_last: bool,
        free: list[list[Semaphore]],
    ) -> None:
        super().__init__()
        self._dataset, self._collate, self._batch_size, self._drop_last = dataset, collate, batch_size, drop_last
        self._free = free
        self._seen: Progress | None = None
        self._start = SharedArray(2, torch.int64)
        """The epoch, and whether to start after `_seen`: persistent workers see no other change."""

    def begin(self, epoch: int, seen: Progress | None) -> None:
        """Set the next iteration's epoch and start. Once workers run, `seen` must be None."""
        self._seen = seen
        self._start.array[:] = epoch, seen is not None

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        buffers = None
        if info is not None:
            keep_freed_memory()
            buffers = BatchSender(worker, self._free[worker])
        epoch, resumed = self._start.array.tolist()
        seen = self._seen if resumed else None
        plan = self._dataset.plan(
            epoch, seen=seen, workers=workers, batch=self._batch_size or 1, drop_last=self._drop_last
        )
        for samples in self._dataset.read(plan, worker, workers):
            batch = self._made(samples)
            yield buffers.pack(batch) if buffers else batch

    def _made(self, samples: list[Any]) -> Any:
        if not samples:
            return _Nothing()
        return samples[0] if self._batch_size is None else self._collate(samples)


def _length(plan: EpochPlan) -> int | None:
    try:
        return len(plan)
    except TypeError:  # streams without a manifest
        return None


def _as_it_is(batch: Any) -> Any:
    """Replace the DataLoader's own conversion, which turns arrays into tensors."""
    return batch


def _context(given: str | BaseContext | None) -> BaseContext:
    return given if isinstance(given, BaseContext) else torch.multiprocessing.get_context(given)
