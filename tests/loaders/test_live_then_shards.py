"""From live to disk: every sample once in the first epoch, whenever the listener came, then a ShardDataset's epochs."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from loaders import LiveError, LiveThenShards, Loader, ShardDataset, ShardError, SkipWarning, collate
from loaders.manifest import FILE_NAME
from loaders.tarstream import BLOCK
from tests.commands import TINY, start
from tests.live_tees import Compiler, beside, free_port
from tests.synthetic import tiny_members

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


def both(compiler: Compiler, **options: Any) -> LiveThenShards:
    assert compiler.folder is not None
    return LiveThenShards(compiler.folder, compiler.address, **{"timeout_s": 20, **options})


def keys_of(dataset: Any, workers: int = 0, batch: int = 2) -> list[str]:
    loader = DataLoader(dataset, batch_size=batch, num_workers=workers, collate_fn=collate)
    return [key for given in loader for key in given["key"]]


def tiny(folder: Path, **options: Any) -> Compiler:
    return Compiler(**{"folder": folder, "members": tiny_members, "shards": 6, **options})


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("policy", ["block", "drop"])
@pytest.mark.parametrize("before", [0, 3, 6])
def test_the_first_epoch_gives_every_sample_once(policy: str, workers: int, before: int, tmp_path: Path) -> None:
    # `before` shards are finished when the listener comes, two samples of the next have gone by, and with `drop` the
    # tee keeps three.
    compiler = tiny(tmp_path)
    with compiler.listening(policy=policy, queue_samples=3):
        for shard in range(before):
            compiler.compile(shard)
        under_way = [number for number in compiler.numbers if number >= before * compiler.per_shard]
        compiler.offer(*under_way[:2])

        def go_on() -> None:
            assert before == 6 or compiler.tee.wait_for(1, timeout=20)
            for shard in range(before, 6):
                first = shard * compiler.per_shard
                compiler.offer(*range(max(first, under_way[2]), first + compiler.per_shard))
                compiler.commit(shard)
            compiler.tee.finish()

        with beside(go_on):
            given = keys_of(both(compiler), workers)
    assert sorted(given) == compiler.keys


def test_live_samples_come_before_there_is_a_shard(tmp_path: Path) -> None:
    with tiny(tmp_path).listening() as compiler:
        given = iter(both(compiler))
        with beside(compiler.offer_when_heard, 0, 1):
            assert [next(given)["key"] for _ in range(2)] == compiler.keys[:2]
        compiler.offer(2, 3, 4)
        compiler.commit(0)
        with beside(compiler.compile, 1, 2, 3, 4, 5):
            rest = [sample["key"] for sample in islice(given, 28)]
        assert sorted(rest) == compiler.keys[2:]
        with beside(compiler.tee.finish):
            assert not list(given)


def test_what_waits_on_the_disk_does_not_hold_up_what_comes(tmp_path: Path) -> None:
    # A listener that comes late has a backlog; the compiler, which waits for it, is served first.
    compiler = tiny(tmp_path, shards=40)
    with compiler.listening(queue_samples=1):
        compiler.compile(*range(39))
        given = iter(both(compiler))
        first = [next(given)["key"] for _ in range(5)]
        assert all(key < compiler.key(39 * 5) for key in first)
        live: list[str] = []
        with beside(compiler.compile, 39):
            while len(live) < 5:
                key = next(given)["key"]
                live += [key] if key >= compiler.key(39 * 5) else []
                first.append(key)
                time.sleep(0.001)
        assert len(first) < 150, "it did not read the disk to its end first"
        with beside(compiler.tee.finish):
            first += [sample["key"] for sample in given]
    assert sorted(first) == compiler.keys


@pytest.mark.parametrize("workers", [0, 2])
def test_later_epochs_are_those_of_the_shards(workers: int, tmp_path: Path) -> None:
    with tiny(tmp_path).listening() as compiler, beside(compiler.run):
        dataset = both(compiler, seed=7)
        assert sorted(keys_of(dataset, workers)) == compiler.keys
    shards = ShardDataset(tmp_path, seed=7)
    for epoch in (1, 2):
        dataset.set_epoch(epoch)
        shards.set_epoch(epoch)
        assert keys_of(dataset, workers, batch=1) == keys_of(shards)
    dataset.set_epoch(0)  # there is no tee any more
    assert sorted(keys_of(dataset, workers)) == compiler.keys


def test_the_samples_are_the_same_tensors(tmp_path: Path) -> None:
    with Compiler(folder=tmp_path).listening() as compiler:
        compiler.compile(0, 1)
        with beside(compiler.run, 2, 3):
            given = {sample["key"]: sample for sample in both(compiler)}
    for sample in ShardDataset(tmp_path):
        mine = given.pop(sample["key"])
        assert list(mine) == list(sample)
        assert all(
            torch.equal(mine[name], value) if isinstance(value, torch.Tensor) else mine[name] == value
            for name, value in sample.items()
        )
    assert not given


def test_a_loader_counts_the_epochs_and_resumes_in_the_later_ones(tmp_path: Path) -> None:
    with tiny(tmp_path).listening() as compiler, beside(compiler.run):
        loader = Loader(both(compiler, seed=3), batch_size=4, num_workers=2)
        given = []
        for batch in loader:
            given += batch["key"]
            if len(given) == 4:
                with pytest.raises(TypeError, match="cannot be resumed in the middle"):
                    loader.state_dict()
        assert sorted(given) == compiler.keys
        assert len(loader) == 8
    assert loader.epoch == 1
    second = iter(loader)
    seen = [key for batch in islice(second, 3) for key in batch["key"]]
    state = loader.state_dict()
    rest = [key for batch in second for key in batch["key"]]
    assert sorted(seen + rest) == compiler.keys
    resumed = Loader(ShardDataset(tmp_path, seed=3), batch_size=5)  # in another process there is no tee
    resumed.load_state_dict(state)
    assert [key for batch in resumed for key in batch["key"]] == rest


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_loop_that_counts_its_batches_loses_none_of_the_first_epoch(tmp_path: Path, workers: int) -> None:
    """Each worker may end with a batch that is not full: ``len(loader)`` allows for that."""
    with tiny(tmp_path).listening() as compiler, beside(compiler.run):
        loader = Loader(both(compiler), batch_size=4, num_workers=workers)
        given = [key for batch in islice(loader, len(loader)) for key in batch["key"]]
    assert sorted(given) == compiler.keys
    assert loader.epoch == 1
    assert len(loader) == 8


@pytest.mark.parametrize(("remainder", "counts"), [("keep", [10, 10, 9]), ("drop", [9, 9, 9]), ("pad", [10, 10, 10])])
def test_ranks_share_the_first_epoch(remainder: Any, counts: list[int], tmp_path: Path) -> None:
    compiler = tiny(tmp_path, shards=29, per_shard=1)
    ranks: list[list[str]] = [[], [], []]
    with compiler.listening(policy="drop", queue_samples=2):
        compiler.compile(0, 1)
        datasets = [both(compiler, rank=rank, world_size=3, remainder=remainder) for rank in range(3)]
        assert [len(dataset) for dataset in datasets] == counts
        with ExitStack() as stack:
            for rank, dataset in enumerate(datasets):
                stack.enter_context(beside(_extend, ranks[rank], dataset))
            compiler.run(*range(2, 29), listeners=3)
    assert [len(rank) for rank in ranks] == counts
    given = Counter(key for rank in ranks for key in rank)
    expected = {"keep": compiler.keys, "drop": compiler.keys[:27], "pad": [*compiler.keys, compiler.keys[0]]}
    assert given == Counter(expected[remainder])


def _extend(keys: list[str], dataset: LiveThenShards) -> None:
    keys.extend(keys_of(dataset))


def test_a_loop_that_is_left_begins_its_epoch_again(tmp_path: Path) -> None:
    with tiny(tmp_path).listening() as compiler, beside(compiler.compile_when_heard):
        dataset = both(compiler)
        left = iter(DataLoader(dataset, batch_size=2, num_workers=2, collate_fn=collate))
        next(left)
        del left
        again = islice(dataset, len(compiler.keys))
        assert sorted(sample["key"] for sample in again) == compiler.keys


def test_loops_with_the_same_seed_are_told_apart(tmp_path: Path) -> None:
    # Workers know their loop by the seed that the DataLoader draws for them.
    with tiny(tmp_path).listening() as compiler, beside(compiler.run):
        dataset = both(compiler)
        for _ in range(3):
            torch.manual_seed(0)
            assert sorted(keys_of(dataset, workers=2)) == compiler.keys


def test_a_sample_that_is_offered_twice_is_given_once(tmp_path: Path) -> None:
    # A compiler that was started again renders what it had not finished anew.
    compiler, port = tiny(tmp_path, shards=2), free_port()
    with compiler.listening(port=port):
        given = iter(both(compiler))
        with beside(compiler.offer_when_heard, 0, 1, 2):
            keys = [next(given)["key"] for _ in range(3)]
    with compiler.listening(port=port), beside(compiler.run):
        keys += [sample["key"] for sample in given]
    assert keys == compiler.keys


def test_the_disk_is_enough_when_the_tee_dies(tmp_path: Path) -> None:
    with tiny(tmp_path).listening() as compiler:
        given = iter(both(compiler, timeout_s=1.0))
        with beside(compiler.offer_when_heard, 0, 1):
            keys = [next(given)["key"] for _ in range(2)]
    compiler.commit(*range(6))
    assert sorted(keys + [sample["key"] for sample in given]) == compiler.keys


def test_missing_shards_are_an_error_that_names_them(tmp_path: Path) -> None:
    for end in ("finish", "abort"):
        compiler = tiny(tmp_path / end)
        with compiler.listening():
            dataset = both(compiler, timeout_s=0.5)
            given = iter(dataset)
            with beside(compiler.compile_when_heard, 0, 2, 3, 5):
                assert len(list(islice(given, 20))) == 20
            said = r"still lacks shards 1, 4 of 6; run the same" if end == "finish" else "did not resume"
            with beside(getattr(compiler.tee, end)), pytest.raises(LiveError, match=said):
                list(given)
        dataset.set_epoch(1)
        with pytest.raises(LiveError, match=r"no longer compiles, but .* lacks shards 1, 4 of 6"):
            next(iter(dataset))


def test_a_later_epoch_waits_for_the_compiler(tmp_path: Path) -> None:
    with tiny(tmp_path).listening() as compiler:
        dataset = both(compiler, timeout_s=0.4)
        dataset.set_epoch(1)

        def slowly() -> None:
            for shard in range(6):
                time.sleep(0.2)
                compiler.commit(shard)

        with beside(slowly):
            assert sorted(keys_of(dataset)) == compiler.keys


def test_a_directory_that_is_not_the_compilers_is_an_error(tmp_path: Path) -> None:
    tiny(tmp_path / "other", seed=1)
    with tiny(tmp_path / "own").listening() as compiler:
        with pytest.raises(ShardError, match=r"holds plan .*, but the compiler serves .*; pass the directory"):
            LiveThenShards(tmp_path / "other", compiler.address)
        with pytest.raises(LiveError, match="there is no dataset in"):
            LiveThenShards(tmp_path / "none", compiler.address, timeout_s=0.2)
    with pytest.raises(LiveError, match="no compiler at"):
        LiveThenShards(tmp_path / "own", compiler.address, timeout_s=0.2)
    with tiny(tmp_path / "endless", shards=0).listening() as compiler, pytest.raises(LiveError, match="without end"):
        both(compiler)


def test_it_waits_for_a_directory_that_comes_later(tmp_path: Path) -> None:
    compiler = tiny(tmp_path)
    manifest = (tmp_path / FILE_NAME).read_bytes()
    (tmp_path / FILE_NAME).unlink()
    timer = threading.Timer(0.5, lambda: (tmp_path / FILE_NAME).write_bytes(manifest))
    timer.start()
    with compiler.listening():
        assert len(both(compiler)) == 30


def test_damage_on_the_disk_is_an_error_or_a_skip(tmp_path: Path) -> None:
    compiler = tiny(tmp_path)
    compiler.commit(*range(6))
    path = tmp_path / "cubes-train-000002.tar"
    content = bytearray(path.read_bytes())
    content[6 * BLOCK : 6 * BLOCK + 8] = b"garbage!"  # the header of its fourth sample
    path.write_bytes(content)
    with compiler.listening():
        with pytest.raises(ShardError, match=r"cubes-train-000002\.tar"):
            keys_of(both(compiler))
        live, shards = both(compiler, on_error="skip"), ShardDataset(tmp_path, on_error="skip")
        with pytest.warns(SkipWarning, match=r"cubes-train-000002\.tar"):
            assert sorted(keys_of(live)) == sorted(keys_of(shards))
    assert live.skipped == shards.skipped > 0


@contextmanager
def running(folder: Path, *options: Any) -> Iterator[str]:
    """Run compile-dataset; give the address of its tee."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    process = start("cube", *TINY, "--out", folder, "--live", address, *options)
    try:
        yield address
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
    finally:
        process.kill()


@pytest.mark.slow
def test_a_real_compiler(tmp_path: Path) -> None:
    options = ["--shards", 3, "--samples-per-shard", 6, "--live-policy", "drop", "--live-wait", 1]
    with running(tmp_path / "cube", *options) as address:
        dataset = LiveThenShards(tmp_path / "cube", address)
        given = keys_of(dataset, workers=2)
    assert sorted(given) == sorted(sample["key"] for sample in ShardDataset(tmp_path / "cube"))
    assert len(given) == 18
