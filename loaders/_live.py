"""The samples of a dataset while it is compiled, each as it arrives."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Unpack

import torch
from torch.utils.data import IterableDataset, get_worker_info

from loaders._decode import Decoder, Decoding, Transform, Transformed
from loaders._tee.client import Address, TeeStatus
from loaders._tee.listener import TIMEOUT_S, Arrival, Inbox, Listener, TeeStates, listen_options
from loaders._tee.recording import Recorder, check_recording
from loaders._workers import (
    ErrorPolicy,
    IterationCounter,
    OnError,
    SharedArray,
    check_parent,
    keep_freed_memory,
    resolve_rank,
)
from loaders.content import content_digest
from loaders.errors import ShardError, located
from loaders.tarstream import DEFAULT_MAX_BYTES, Sample

_TICK_S = 1.0


class LiveDataset(IterableDataset[Any]):
    """Samples from live compilers (``compile-dataset --live http://127.0.0.1:5555``), in the form of `ShardDataset`'s.

    Each sample is yielded as it arrives. All DataLoader workers together get every sample once; the iteration ends
    with the dataset. A DataLoader takes its workers' batches in turn; ``in_order=False`` takes them as they come::

        dataset = loaders.LiveDataset("http://127.0.0.1:5555")
        for batch in DataLoader(dataset, batch_size=4, num_workers=4, collate_fn=loaders.collate):
            ...

    Args:
        addresses: the address of one compiler, or of several whose samples are taken in the order of arrival.
        group: datasets of the same group share the samples; the ranks of a training must name one. By default the
            workers of this dataset form their own group.
        token: the compilers' access token.
        timeout_s: how long to wait for a compiler that has not started, is gone, or does not answer. A sample may take
            any time while the compiler answers ``GET /status``.
        reconnect: continue with a compiler that returns within `timeout_s` after its stream was cut.
        plan_digest: accept only samples of the dataset with this plan. Without it, a tee must keep the plan that it was
            first seen with.
        transform: takes each sample (see `loaders.Decoder`) and returns what to use instead; None drops the sample. It
            also gets the iteration's number, from 0, as `epoch` if it has such a parameter.
        on_error: "raise", or "skip" to leave out what is damaged, warn about it and count it in `skipped`.
        record: a directory to record the samples in, as shards that `ShardDataset` reads.
        rank: this process's number in `world_size`, as in `ShardDataset`; used only by `stream_length`.
        world_size: see `rank`.
        max_bytes: largest sample that is received. Each worker holds at most a few samples of each address.
        decoding: options of `Decoder`: ``image_layout``, ``output``, ``integers``, ``floats``, ``members``,
            ``max_pixels``.

    Raises:
        ValueError: an address, a group or a token is invalid, or there are several ranks and no `group`.
        ShardError: `record` holds something other than a recording. While iterating: a sample is damaged.
        LiveError: while iterating: there is no compiler, it serves another dataset, or its stream was cut.
    """

    def __init__(
        self,
        addresses: str | Sequence[str],
        *,
        group: str | None = None,
        token: str | None = None,
        timeout_s: float = TIMEOUT_S,
        reconnect: bool = True,
        plan_digest: str | None = None,
        transform: Transform | None = None,
        on_error: OnError = "raise",
        record: str | Path | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        max_bytes: int = DEFAULT_MAX_BYTES,
        **decoding: Unpack[Decoding],
    ) -> None:
        super().__init__()
        given = [addresses] if isinstance(addresses, str) else addresses
        self._addresses = [Address.parse(address) for address in given]
        self._rank, self._ranks = resolve_rank(rank, world_size)
        if self._ranks > 1 and group is None:
            raise ValueError(f"this is rank {self._rank} of {self._ranks}: name the group that all share: group='a'")
        self._options = listen_options(group, token, timeout_s, reconnect, plan_digest, max_bytes)
        self._policy = ErrorPolicy(on_error)
        self._decode = Decoder(**decoding)
        self._transform = Transformed(transform)
        self._record = None if record is None else Path(record)
        if self._record is not None:
            check_recording(self._record)
        self._states = TeeStates(len(self._addresses))
        self._iterations = IterationCounter()
        self._length = SharedArray(1, torch.int64)
        self._length.array[0] = -1

    @property
    def skipped(self) -> int:
        """Samples skipped so far because they were damaged, in all workers and epochs; a broken stream counts once."""
        return self._policy.total

    def stream_length(self, samples: int | None) -> LiveDataset:
        """End each iteration after this many samples, over all workers and ranks; None ends it with the dataset.

        The next iteration continues where the last one ended. With several addresses, samples that have arrived and are
        not yet taken are lost. Returns the dataset itself.
        """
        if samples is not None and samples < 0:
            raise ValueError(f"a stream cannot have {samples} samples")
        self._length.array[0] = -1 if samples is None else samples
        return self

    def __len__(self) -> int:
        """Return the samples of this rank in an iteration.

        Raises:
            TypeError: no `stream_length` was set.
        """
        length = int(self._length.array[0])
        if length < 0:
            raise TypeError("a live dataset has no length; set one with stream_length(n)")
        return _share(length, self._rank, self._ranks)

    def __iter__(self) -> Iterator[Any]:
        """Yield this worker's samples."""
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        if info is not None:
            keep_freed_memory()
        iteration = self._iterations.begin()
        left = None if self._length.array[0] < 0 else _share(len(self), worker, workers)
        with ExitStack() as stack:
            recorder = None if self._record is None else stack.enter_context(Recorder(self._record))
            ended = False
            while left != 0 and not ended:
                listeners, stop = self._listeners(iteration)
                with Inbox(listeners, stop, left) as inbox:
                    for arrival in arrivals(inbox):
                        sample = self._load(arrival, recorder, iteration - 1)
                        if sample is None:
                            continue
                        yield sample
                        left = None if left is None else left - 1
                        if left == 0:
                            return
                ended = all(listener.ended for listener in listeners)
        if left:
            warnings.warn(f"the dataset ended {left} samples before the stream_length you set", stacklevel=2)

    def _listeners(self, iteration: int) -> tuple[list[Listener], threading.Event]:
        stop = threading.Event()
        listeners = [
            Listener(address, place, self._options, self._states, iteration, stop)
            for place, address in enumerate(self._addresses)
        ]
        return listeners, stop

    def _load(self, arrival: Arrival, recorder: Recorder | None, epoch: int) -> Any:
        listener, sample = arrival
        status = None if recorder is None else listener.status

        def decode() -> tuple[dict[str, Any], Sample, bytes]:
            if isinstance(sample, ShardError):
                raise sample
            with located(str(listener.address)):
                decoded = self._decode(sample.key, sample.members)
                content = b"" if status is None else self._digest(status, sample)
            return decoded, sample, content

        if (whole := self._policy.attempt(decode)) is None:
            return None
        decoded, received, content = whole
        if recorder is not None and status is not None:
            recorder.add(status, received, content)
        return self._transform(decoded, epoch)

    def _digest(self, status: TeeStatus, sample: Sample) -> bytes:
        """Return the sample's content digest, which a recording keeps."""
        return content_digest(sample.key, sample.members, status.schema["members"], self._decode.max_pixels)


def arrivals(inbox: Inbox) -> Iterator[Arrival]:
    """Yield arrivals until there will be no more.

    Raises:
        LiveError: a listener failed, or this worker's parent process has died.
    """
    while not inbox.over:
        arrival = inbox.take(_TICK_S)
        if arrival is not None:
            yield arrival
        else:
            check_parent()


def _share(total: int, part: int, parts: int) -> int:
    """Return the size of one of `parts` nearly equal parts; the larger ones come first."""
    return total // parts + (part < total % parts)
