"""Samples collated into batches, and batches sent from workers to the main process in reused shared memory.

A DataLoader gives each tensor its own shared memory. Allocating it, faulting it in and freeing it takes longer than
decoding a small JPEG. Here each worker keeps a few buffers and copies a batch into a free one. The main process makes
tensors on that memory, and once the last of them (or the last view of one) is gone, the buffer is free again. If no
buffer is free because the consumer keeps its batches, a batch is sent as the DataLoader would send it.
"""

from __future__ import annotations

import weakref
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from multiprocessing.synchronize import Semaphore
from typing import Any

import numpy as np
import torch

from loaders.children import safe_path
from loaders.errors import SampleError

_ALIGNMENT = 64
_WORTH_BYTES = 1 << 16
"""Batches with less tensor data than this are sent as they are."""


def collate(samples: Sequence[dict[str, Any]], *, lists: Collection[str] = ()) -> dict[str, Any]:
    """Return a batch: values that can be stacked are stacked, others become lists in the samples' order.

    Tensors and arrays of one shape and dtype are stacked along a new first axis, and numbers become one tensor. Keys,
    annotations, bytes and ragged arrays (keypoints, if the number of objects varies) become lists.

    Args:
        samples: dicts with the same names.
        lists: names that become lists in every batch, for arrays that are ragged in some batches only.

    Raises:
        SampleError: the samples have different names.
    """
    names = samples[0].keys()
    for sample in samples:
        if sample.keys() != names:
            raise SampleError(
                f"sample {sample.get('key')!r} has {sorted(sample)}, {samples[0].get('key')!r} has {sorted(names)}; "
                "choose members= that all samples have"
            )
    columns = {name: [sample[name] for sample in samples] for name in names}
    return {name: values if name in lists else _stacked(values) for name, values in columns.items()}


def _stacked(values: list[Any]) -> Any:
    first = values[0]
    if isinstance(first, torch.Tensor) and _alike(values):
        return _stack_tensors(values)
    if isinstance(first, np.ndarray) and _alike(values):
        return _stack_arrays(values)
    if isinstance(first, int | float) and all(type(value) is type(first) for value in values):
        return torch.tensor(values)
    return values


def _alike(values: list[Any]) -> bool:
    kind, shape, dtype = type(values[0]), values[0].shape, values[0].dtype
    return all(type(value) is kind and value.shape == shape and value.dtype == dtype for value in values)


def _stack_tensors(tensors: list[torch.Tensor]) -> torch.Tensor:
    """Stack (3, H, W) views of (H, W, 3) memory without transposing it, which is three times as fast."""
    if tensors[0].dim() == 3 and not tensors[0].is_contiguous() and tensors[0].permute(1, 2, 0).is_contiguous():
        return torch.stack([tensor.permute(1, 2, 0) for tensor in tensors]).permute(0, 3, 1, 2)
    return torch.stack(tensors)


def _stack_arrays(arrays: list[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    first = arrays[0]
    if first.ndim == 3 and not first.flags.c_contiguous and first.transpose(1, 2, 0).flags.c_contiguous:
        stacked: np.ndarray[Any, Any] = np.stack([array.transpose(1, 2, 0) for array in arrays])
        return stacked.transpose(0, 3, 1, 2)
    return np.stack(arrays)


@dataclass(frozen=True)
class _Layout:
    """Where one tensor is in a buffer."""

    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        return self.dtype.itemsize * torch.Size(self.shape).numel()

    def of(self, memory: torch.Tensor) -> torch.Tensor:
        """Return the tensor in `memory`, which is (n,) uint8."""
        flat = memory[self.offset : self.offset + self.bytes].view(self.dtype)
        return flat.as_strided(self.shape, self.stride)


class SharedBatch:
    """A batch in transit: its tensors in one buffer, the rest unchanged."""

    def __init__(
        self, batch: dict[str, Any], memory: torch.Tensor, layouts: dict[str, _Layout], buffer: tuple[int, int]
    ) -> None:
        self.batch, self.memory, self.layouts, self.buffer = batch, memory, layouts, buffer

    def pin_memory(self) -> SharedBatch:
        """Return the batch in its own pinned memory; called by the DataLoader's pinning thread."""
        return SharedBatch(self.batch, self.memory.pin_memory(), self.layouts, self.buffer)


class BatchSender:
    """A worker's side: copies batches into buffers."""

    def __init__(self, worker: int, free: list[Semaphore]) -> None:
        self._worker, self._free = worker, free
        self._memories: list[torch.Tensor | None] = [None] * len(free)

    def pack(self, batch: Any) -> Any:
        """Return `batch` in a buffer, or `batch` itself if it is too small to gain or no buffer is free."""
        layouts, size = _layouts(batch)
        if size < _WORTH_BYTES:
            return batch
        for buffer, free in enumerate(self._free):
            if free.acquire(block=False):
                memory = self._memory(buffer, size)
                for name, layout in layouts.items():
                    layout.of(memory).copy_(batch[name])
                rest = {name: None if name in layouts else value for name, value in batch.items()}
                return SharedBatch(rest, memory, layouts, (self._worker, buffer))
        return batch

    def _memory(self, buffer: int, size: int) -> torch.Tensor:
        memory = self._memories[buffer]
        if memory is None or len(memory) < size:
            memory = torch.empty(size, dtype=torch.uint8).share_memory_()  # type: ignore[no-untyped-call]
            self._memories[buffer] = memory
        return memory


def _layouts(batch: Any) -> tuple[dict[str, _Layout], int]:
    """Return where each tensor of a batch goes in a buffer, and the size of all together."""
    layouts: dict[str, _Layout] = {}
    size = 0
    for name, tensor in batch.items() if type(batch) is dict else ():
        if type(tensor) is torch.Tensor and _is_plain(tensor):
            layouts[name] = layout = _Layout(size, tuple(tensor.shape), _dense_stride(tensor), tensor.dtype)
            size += layout.bytes + -layout.bytes % _ALIGNMENT
    return layouts, size


def _is_plain(tensor: torch.Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.layout is torch.strided and not tensor.requires_grad


def _dense_stride(tensor: torch.Tensor) -> tuple[int, ...]:
    """Return the strides of a copy without gaps: channels last stays so."""
    return tuple(torch.empty_like(tensor, device="meta").stride())


class BatchReceiver:
    """The main process's side: makes batches from buffers, and frees a buffer once its tensors are gone."""

    def __init__(self, workers: int, buffers: int, context: BaseContext | None) -> None:
        with safe_path():
            self.free = [[context.Semaphore(1) for _ in range(buffers)] for _ in range(workers)] if context else []
        self._kept: dict[tuple[int, int], torch.Tensor] = {}
        """Buffers stay mapped: mapping memory and faulting it in for each batch costs as much as copying it."""

    def unpack(self, received: Any) -> Any:
        """Return the batch that a worker packed."""
        if not isinstance(received, SharedBatch):
            return received
        worker, buffer = received.buffer
        memory = received.memory
        if memory.is_shared():  # type: ignore[no-untyped-call]
            self._kept[received.buffer] = memory
            # The new tensor's storage, which all its views share, keeps this array alive.
            array = memory.numpy()
            weakref.finalize(array, self.free[worker][buffer].release).atexit = False
            memory = torch.from_numpy(array)
        else:
            self.free[worker][buffer].release()
        return received.batch | {name: layout.of(memory) for name, layout in received.layouts.items()}
