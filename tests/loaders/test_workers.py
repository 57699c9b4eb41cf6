"""The same guarantees with real DataLoader workers: processes, prefetching, shared memory."""

from __future__ import annotations

import gc
from itertools import islice
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from loaders import Loader, ShardDataset, ShardError, SkipWarning, collate
from loaders._batches import BatchReceiver, BatchSender, SharedBatch
from loaders.tarstream import BLOCK
from tests.synthetic import full_members, image_bytes, make_dataset, npy_bytes, pixels_of

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")

COUNTS = [5, 1, 8, 0, 9]
TOTAL = sum(COUNTS)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workers") / "cubes"
    make_dataset(folder, COUNTS, full_members)
    return folder


def frames_in(batch: Any) -> list[int]:
    return [annotations["frame"] for annotations in batch["annotations"]]


def frames_of(loader: Any) -> list[list[int]]:
    return [frames_in(batch) for batch in loader]


def test_any_number_of_workers_gives_the_same_batches_epoch_by_epoch(dataset: Path) -> None:
    def epochs(workers: int, **options: Any) -> list[list[list[int]]]:
        loader = Loader(ShardDataset(dataset), 3, num_workers=workers, **options)
        return [frames_of(loader) for _ in range(2)]

    alone = epochs(0)
    assert alone[0] != alone[1]
    for workers in (1, 2, 4):
        assert epochs(workers) == alone
    assert epochs(2, persistent_workers=True) == alone


def test_workers_that_persist_do_so_though_no_loop_asks_for_more(dataset: Path) -> None:
    """As Lightning does, which keeps its iterator, too."""
    whole = Loader(ShardDataset(dataset), 3)
    loader = Loader(ShardDataset(dataset), 3, num_workers=2, persistent_workers=True)
    kept, pids = [], set[int]()
    for _ in range(3):
        kept.append(iter(loader))
        assert [frames_in(batch) for batch in islice(kept[-1], len(loader))] == frames_of(whole)
        pids |= {child.pid for child in active_children()}
    assert len(pids) == 2
    assert not [batch for loop in kept for batch in loop]
    assert loader.epoch == 3


def test_spawned_workers_see_what_forked_ones_do(dataset: Path) -> None:
    loader = Loader(ShardDataset(dataset), 3, num_workers=1, persistent_workers=True, multiprocessing_context="spawn")
    assert [frames_of(loader) for _ in range(2)] == [frames_of(loop) for loop in [Loader(ShardDataset(dataset), 3)] * 2]


@pytest.mark.parametrize("persistent", [False, True])
def test_prefetched_batches_do_not_count_as_seen(dataset: Path, persistent: bool) -> None:
    # Workers are batches ahead at every step; the state says what the loop has got.
    whole = [frame for batch in frames_of(Loader(ShardDataset(dataset), 2)) for frame in batch]
    running = Loader(ShardDataset(dataset), 2, num_workers=2, prefetch_factor=3, persistent_workers=persistent)
    later = Loader(ShardDataset(dataset), 5, num_workers=0)
    seen: list[int] = []
    for batch in running:
        seen += frames_in(batch)
        later.load_state_dict(running.state_dict())
        assert later.epoch == (seen == whole)
        assert seen == whole or seen + [frame for some in frames_of(later) for frame in some] == whole
    assert seen == whole
    later.load_state_dict({**running.state_dict(), "epoch": 0, "seen": 7})
    running.load_state_dict(later.state_dict())
    assert [frame for some in frames_of(running) for frame in some] == whole[7:]


def test_streams_resume_with_another_number_of_workers(dataset: Path) -> None:
    urls = [f"pipe:cat {path}" for path in sorted(dataset.glob("*.tar"))]

    def loader(workers: int) -> Loader:
        return Loader(ShardDataset(urls, manifest=dataset, buffer=4), 2, num_workers=workers)

    whole, running, seen = frames_of(loader(2)), loader(2), list[int]()
    assert sorted(frame for batch in whole for frame in batch) == list(range(TOTAL))
    for step, batch in enumerate(running):
        seen += frames_in(batch)
        if step in (0, 4, 9):
            same, other = loader(2), loader(3)
            same.load_state_dict(running.state_dict())
            other.load_state_dict(running.state_dict())
            assert frames_of(same) == whole[step + 1 :]
            assert sorted(seen + [frame for some in frames_of(other) for frame in some]) == list(range(TOTAL))


def test_a_plain_dataloader_gives_every_sample_once(dataset: Path) -> None:
    shards = ShardDataset(dataset)
    assert len(shards) == TOTAL
    epochs = []
    plain = DataLoader(shards, batch_size=4, num_workers=2, collate_fn=collate, persistent_workers=True)
    for epoch in range(2):
        shards.set_epoch(epoch)
        epochs.append([frame for batch in frames_of(plain) for frame in batch])
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(TOTAL))
    assert epochs[0] != epochs[1], "workers that persist hear of the epoch"
    one_by_one = DataLoader(shards, batch_size=None, num_workers=3)
    single = [sample["annotations"]["frame"] for sample in one_by_one]
    assert single == [sample["annotations"]["frame"] for sample in shards], "in the order of the epoch"


def test_an_error_in_a_worker_names_the_file(tmp_path: Path) -> None:
    first, _ = make_dataset(tmp_path, [2, 2])
    first.write_bytes(b"x" * BLOCK + first.read_bytes()[BLOCK:])
    with pytest.raises(ShardError, match=rf"{first}: not a tar header"):
        frames_of(Loader(ShardDataset(tmp_path), num_workers=1))


def test_the_main_process_knows_what_workers_skipped(tmp_path: Path) -> None:
    first, _ = make_dataset(tmp_path, [4, 6])
    first.unlink()
    with pytest.warns(SkipWarning, match="No such file"):
        shards = ShardDataset(tmp_path, on_error="skip", shuffle=False)
    loader = Loader(shards, 2, num_workers=2, worker_init_fn=quiet)
    for epoch in (0, 1):
        with pytest.warns(SkipWarning, match=f"epoch {epoch}: 4 samples were skipped"):
            assert frames_of(loader) == [[4, 5], [6, 7], [8, 9]]
    assert shards.skipped == 8


def quiet(_: int) -> None:
    import warnings

    warnings.simplefilter("ignore", SkipWarning)


def test_arrays_come_through_workers_as_arrays(dataset: Path) -> None:
    shards = ShardDataset(dataset, output="numpy", image_layout="HWC", shuffle=False)
    batch = next(iter(Loader(shards, 2, num_workers=1)))
    assert isinstance(batch["image"], np.ndarray)
    assert (batch["image"] == [pixels_of(0), pixels_of(1)]).all()


def test_an_empty_dataset_gives_no_batch(tmp_path: Path) -> None:
    make_dataset(tmp_path, [0, 0])
    for source in (tmp_path, [f"pipe:cat {path}" for path in tmp_path.glob("*.tar")]):
        loader = Loader(ShardDataset(source, manifest=tmp_path), 2, num_workers=1)
        assert (len(loader), list(loader), loader.epoch) == (0, [], 1)


# Shared memory that is used again: nothing in it changes while anybody can see it.


def large_members(number: int) -> dict[str, bytes]:
    return {
        "json": b'{"frame": %d}' % number,
        "depth.npy": npy_bytes(np.full((100, 100), number, np.float32)),
        "segmentation.npy": npy_bytes(np.full((70, 90), number, np.uint16)),
    }


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workers") / "large"
    make_dataset(folder, [40], large_members)
    return folder


def test_batches_that_are_kept_keep_their_content(large: Path) -> None:
    loader = Loader(ShardDataset(large), 2, num_workers=2, persistent_workers=True)
    kept: list[tuple[list[int], torch.Tensor, torch.Tensor]] = []
    for epoch in range(2):
        for step, batch in enumerate(loader):
            if step % 3 == 0:  # a view is kept, the batch itself goes
                kept.append((frames_in(batch), batch["depth"][:, 5:, 7], batch["segmentation"][1]))
            del batch
            if step % 5 == 0:
                gc.collect()
            for frames, depth, segmentation in kept:
                assert depth.shape == (2, 95)
                assert depth[:, -1].tolist() == depth[:, 0].tolist() == frames
                assert (segmentation.numpy() == frames[1]).all()
        assert loader.epoch == epoch + 1
    assert len(kept) == 14, "more than there are buffers"


def test_memory_is_used_again_once_it_is_free(large: Path) -> None:
    # 4 buffers for one worker: without holding on, 20 batches lie at 4 places; a batch that is held keeps its own.
    loader = Loader(ShardDataset(large), 2, num_workers=1)
    assert len({batch["depth"].data_ptr() for batch in loader}) <= 4
    held, places = None, []
    for batch in loader:
        held = batch["depth"].view(-1)[3:] if held is None else held
        places.append(batch["depth"].data_ptr())
    assert places.count(places[0]) == 1


def test_images_keep_their_memory_layout(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 120, 160, 3), dtype=np.uint8)
    make_dataset(tmp_path, [4], lambda number: {"png": image_bytes(pixels[number])})
    (batch,) = Loader(ShardDataset(tmp_path, shuffle=False), 4, num_workers=1)
    assert batch["image"].is_contiguous(memory_format=torch.channels_last)
    assert (batch["image"].numpy() == pixels.transpose(0, 3, 1, 2)).all()


def test_a_batch_that_was_pinned_frees_its_slot_at_once() -> None:
    # Pinning needs a GPU's driver; a copy into other memory is what it comes to.
    buffers = BatchReceiver(1, 1, torch.multiprocessing.get_context())
    worker = BatchSender(0, buffers.free[0])
    batch = {"depth": torch.arange(40_000, dtype=torch.float32).view(2, -1), "key": ["a", "b"]}
    packet = worker.pack(batch)
    assert isinstance(packet, SharedBatch)
    assert worker.pack(batch) is batch, "no buffer is free: sent as it is"
    pinned = buffers.unpack(SharedBatch(packet.batch, packet.memory.clone(), packet.layouts, packet.buffer))
    again = worker.pack({"depth": torch.zeros(2, 20_000), "key": []})
    assert isinstance(again, SharedBatch)
    assert pinned["key"] == ["a", "b"]
    assert torch.equal(pinned["depth"], batch["depth"])
