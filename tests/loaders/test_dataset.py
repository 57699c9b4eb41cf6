"""ShardDataset in one process: sources, ranks, resuming anywhere, streams, damage."""

from __future__ import annotations

import io
import shutil
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loaders import IndexedShards, Loader, Manifest, ManifestError, ShardDataset, ShardError, SkipWarning
from loaders._shards.plans import Remainder, round_robin
from loaders.manifest import FILE_NAME
from loaders.tarstream import BLOCK, read_places
from tests import planned_dataset
from tests.synthetic import full_members, make_dataset

COUNTS = [5, 1, 8, 0, 3]
TOTAL = sum(COUNTS)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset whose samples hold their number alone; not to be changed."""
    folder = tmp_path_factory.mktemp("datasets") / "tiny"
    make_dataset(folder, COUNTS)
    return folder


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    make_dataset(tmp_path / "cubes", COUNTS, full_members, splits=["train", "val"])
    return tmp_path / "cubes"


def shards_of(folder: Path) -> list[Path]:
    """Return a dataset's shards in the manifest's order, whatever their split."""
    return sorted(folder.glob("*.tar"), key=lambda path: path.stem[-6:])


def piped(folder: Path) -> list[str]:
    """Return URLs of a dataset's shards that are streamed through a command."""
    return [f"pipe:cat '{path}'" for path in shards_of(folder)]


def frame(sample: dict[str, Any]) -> int:
    number: int = sample["annotations"]["frame"]
    return number


def frames_of(dataset: Any) -> list[int]:
    return [frame(sample) for sample in dataset]


def batches_of(dataset: ShardDataset, workers: int, batch: int, epoch: int = 0, seen: Any = None) -> list[list[int]]:
    """Return a rank's batches as a DataLoader with `workers` gives them, without starting any."""
    plan = dataset.plan(epoch, seen=seen, workers=workers, batch=batch)
    made = round_robin([dataset.read(plan, worker, workers) for worker in range(workers)])
    return [[frame(sample) for sample in samples] for samples in made]


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder's files; give the URL."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="webdataset opens http with curl")


# Sources


def test_every_kind_of_local_source_gives_the_same_samples(dataset: Path) -> None:
    paths = shards_of(dataset)
    bare = [dataset.parent / path.name for path in paths]
    for path, copy in zip(paths, bare, strict=True):
        shutil.copy(path, copy)
    sources: list[Any] = [dataset, str(dataset / FILE_NAME), paths, f"file://{dataset}", bare]
    sources.append(str(dataset / "cubes-{train-000000,val-000001,train-000002,val-000003,train-000004}.tar"))
    orders = [frames_of(ShardDataset(source)) for source in sources]
    assert all(order == orders[0] for order in orders)
    assert sorted(orders[0]) == list(range(TOTAL))


def test_a_split_is_chosen(dataset: Path) -> None:
    assert sorted(frames_of(ShardDataset(dataset, split="val"))) == [5]
    assert len(ShardDataset(dataset, split="train")) == 16
    (dataset / FILE_NAME).unlink()
    with pytest.raises(ShardError, match="its split is unknown without a manifest"):
        ShardDataset(shards_of(dataset), split="val")


@pytest.mark.parametrize("name", ["pipe:touch ran;data", "http:cubes", "gs:cubes", "abc:cubes"])
def test_a_folder_named_like_a_url_is_no_url(
    dataset: Path, monkeypatch: pytest.MonkeyPatch, name: str, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    dataset.rename(name)
    tars = f"{name}/cubes-{{train-000000,val-000001,train-000002,val-000003,train-000004}}.tar"
    manifest = f"{name}/{FILE_NAME}"
    for source in (name, tars, manifest, [tars, tars]):
        said = rf"^{name}.* is read as a URL, but there is a file or folder {name}; write \./{name}.* for the path$"
        for kind in (ShardDataset, IndexedShards):
            with pytest.raises(ShardError, match=said):
                kind(source)
    sources: list[Any] = [f"./{name}", f"./{tars}", f"./{manifest}", Path(name), Path(manifest), tmp_path / name]
    for path in [*sources, [f"./{tars}"], sorted(Path(name).glob("*.tar"))]:
        assert sorted(frames_of(ShardDataset(path))) == list(range(TOTAL)), path
    assert not Path("ran").exists()
    long = f"pipe:true {'x' * 5000}; cat '{sorted(Path(name).glob('*.tar'))[0]}'"
    assert len(frames_of(ShardDataset(long))) == 5, "a command may be long"


def test_wrong_sources_are_clear_errors(dataset: Path) -> None:
    with pytest.raises(ShardError, match="mixes files and URLs"):
        ShardDataset([*dataset.glob("*.tar"), "pipe:cat x.tar"])
    with pytest.raises(ShardError, match="holds no finished shard"):
        ShardDataset([])
    (dataset / FILE_NAME).write_bytes((dataset / FILE_NAME).read_bytes()[:-40])
    with pytest.raises(ManifestError, match=f"{FILE_NAME} is not JSON"):
        ShardDataset(dataset)


# Order and ranks


def test_epochs_have_orders_of_their_own(tiny: Path) -> None:
    dataset = ShardDataset(tiny, seed=3)
    orders = []
    for epoch in range(3):
        dataset.set_epoch(epoch)
        orders.append(frames_of(dataset))
        assert orders[-1] == frames_of(dataset)
    assert all(sorted(order) == list(range(TOTAL)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    assert frames_of(ShardDataset(tiny, shuffle=False)) == list(range(TOTAL))


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("workers", [1, 2, 3, 4])
@pytest.mark.parametrize("streamed", [False, True], ids=["local", "streamed"])
def test_ranks_and_workers_share_out_every_sample_once(tiny: Path, ranks: int, workers: int, streamed: bool) -> None:
    # Five shards, one of them empty: fewer than most numbers of readers here.
    given_out = []
    for rank in range(ranks):
        options: dict[str, Any] = {"rank": rank, "world_size": ranks, "seed": ranks}
        dataset = ShardDataset(piped(tiny), manifest=tiny, **options) if streamed else ShardDataset(tiny, **options)
        batches = batches_of(dataset, workers, batch=2)
        assert len(dataset) == sum(map(len, batches))
        given_out += [number for batch in batches for number in batch]
    assert sorted(given_out) == list(range(TOTAL))


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_ranks_are_equal_in_number_where_that_is_asked(tiny: Path, ranks: int) -> None:
    expected: dict[Remainder, int] = {"pad": -(-TOTAL // ranks), "drop": TOTAL // ranks}
    for remainder, each in expected.items():
        datasets = [ShardDataset(tiny, rank=rank, world_size=ranks, remainder=remainder) for rank in range(ranks)]
        given_out = [frames_of(dataset) for dataset in datasets]
        assert [len(frames) for frames in given_out] == [len(dataset) for dataset in datasets] == [each] * ranks
        order = frames_of(ShardDataset(tiny))
        assert list(round_robin(list(map(iter, given_out)))) == (order + order)[: each * ranks], "the first ones again"


# Loader: batches, state


@settings(max_examples=40)
@given(data=st.data(), ranks=st.integers(1, 4), batch=st.integers(1, 5), window=st.none() | st.integers(1, 3))
def test_a_state_saved_at_any_step_continues_with_exactly_the_rest(
    tiny: Path, data: st.DataObject, ranks: int, batch: int, window: int | None
) -> None:
    def loaders(ranks: int, batch: int) -> list[Loader]:
        datasets = [ShardDataset(tiny, seed=5, window=window, rank=rank, world_size=ranks) for rank in range(ranks)]
        made = [Loader(dataset, batch, num_workers=0) for dataset in datasets]
        for loader in made:
            loader.set_epoch(2)
        return made

    def in_order(loaders: list[Loader]) -> list[int]:
        return [frame for some in round_robin([iter(loader) for loader in loaders]) for frame in frames_in(some)]

    whole = in_order(loaders(ranks, batch))
    first = data.draw(st.integers(0, ranks - 1))
    running = loaders(ranks, batch)
    loops = [iter(loader) for loader in running]
    seen: list[int] = []
    while True:  # a step of every rank, then a checkpoint of one of them
        later = loaders(data.draw(st.integers(1, 4)), data.draw(st.integers(1, 5)))
        for loader in later:
            loader.load_state_dict(running[first].state_dict())
        assert {loader.epoch for loader in later} == {3 if seen == whole else 2}
        assert seen == whole or seen + in_order(later) == whole
        assert {loader.epoch for loader in later} == {3}
        step = [next(loop, None) for loop in loops]
        if any(one is None for one in step):
            return
        seen += [frame for some in step for frame in frames_in(some)]


def frames_in(batch: Any) -> list[int]:
    return [annotations["frame"] for annotations in batch["annotations"]]


def test_every_worker_count_gives_the_same_batches(tiny: Path) -> None:
    dataset = ShardDataset(tiny)
    batches = [batches_of(dataset, workers, batch=3) for workers in range(1, 5)]
    assert all(some == batches[0] for some in batches)
    assert batches[0] == [frames_in(batch) for batch in Loader(dataset, 3)]


@settings(max_examples=15)
@given(data=st.data(), ranks=st.integers(1, 3), workers=st.integers(1, 3), batch=st.integers(1, 4))
def test_streams_resume_anywhere_with_other_ranks_and_workers(
    tiny: Path, data: st.DataObject, ranks: int, workers: int, batch: int
) -> None:
    def dataset(rank: int, ranks: int) -> ShardDataset:
        return ShardDataset(piped(tiny), manifest=tiny, buffer=4, seed=1, rank=rank, world_size=ranks)

    whole = [batches_of(dataset(rank, ranks), workers, batch) for rank in range(ranks)]
    done = data.draw(st.integers(0, max(map(len, whole))))
    plan = dataset(0, ranks).plan(0, workers=workers, batch=batch)
    seen = plan.progress_after(done)
    rest = [[frame for some in batches[done:] for frame in some] for batches in whole]
    same = [batches_of(dataset(rank, ranks), workers, batch, seen=seen) for rank in range(ranks)]
    assert [[frame for some in batches for frame in some] for batches in same] == rest, "in the same order"
    now = data.draw(st.integers(1, 3))
    other = [batches_of(dataset(rank, now), data.draw(st.integers(1, 3)), 2, seen=seen) for rank in range(now)]
    later = [frame for batches in other for some in batches for frame in some]
    assert sorted(later) == sorted(frame for frames in rest for frame in frames), "each once, none that was seen"


def test_a_finished_loop_goes_on_to_the_next_epoch(tiny: Path) -> None:
    loader = Loader(ShardDataset(tiny), 4)
    epochs = [[frames_in(batch) for batch in loader] for _ in range(3)]
    assert loader.epoch == 3
    assert len(loader) == len(epochs[0])
    assert epochs[0] != epochs[1] != epochs[2]
    again = Loader(ShardDataset(tiny), 4)
    again.set_epoch(1)
    assert [frames_in(batch) for batch in again] == epochs[1]


@pytest.mark.parametrize("streamed", [False, True], ids=["local", "streamed"])
@pytest.mark.parametrize("batch", [1, 4, 5, TOTAL])
def test_an_epoch_is_over_when_its_batches_have_been_handed_out(tiny: Path, streamed: bool, batch: int) -> None:
    """Lightning stops at ``len(loader)`` without asking for more; other loops ask."""

    def loader() -> Loader:
        return Loader(ShardDataset(piped(tiny) if streamed else tiny, manifest=tiny), batch)

    asking, counting = loader(), loader()
    for epoch in range(3):
        assert counting.epoch == epoch
        some = [frames_in(batch) for batch in islice(counting, len(counting))]
        assert some == [frames_in(batch) for batch in asking]
        assert sorted(frame for frames in some for frame in frames) == list(range(TOTAL))
        assert counting.state_dict() == asking.state_dict() == {**counting.state_dict(), "epoch": epoch + 1}
    counting.set_epoch(1)
    again = [frames_in(batch) for batch in islice(counting, len(counting))]
    counting.set_epoch(1)
    assert [frames_in(batch) for batch in counting] == again, "an epoch that is over can be chosen again"


def test_a_loop_that_asks_late_does_not_take_the_next_ones_batches(tiny: Path) -> None:
    loader = Loader(ShardDataset(tiny), 4)
    first = iter(loader)
    list(islice(first, len(loader)))
    second = iter(loader)
    begun = frames_in(next(second))
    assert not list(first)
    rest = [frame for batch in second for frame in frames_in(batch)]
    assert sorted(begun + rest) == list(range(TOTAL))
    assert loader.epoch == 2


def test_a_state_in_which_nothing_is_left_is_the_next_epochs(tiny: Path) -> None:
    state = Loader(ShardDataset(tiny), 4).state_dict()
    resumed = Loader(ShardDataset(tiny), 4, drop_last=True)
    for seen, epoch in ((TOTAL, 1), (TOTAL - 3, 1), (TOTAL - 4, 0)):
        resumed.load_state_dict({**state, "seen": seen})
        assert resumed.epoch == epoch
        assert list(resumed), "no loop without a batch"


def test_a_loop_that_is_left_begins_again_where_it_began(tiny: Path) -> None:
    loader = Loader(ShardDataset(tiny), 4)
    first = frames_in(next(iter(loader)))
    assert frames_in(next(iter(loader))) == first
    loop = iter(loader)
    next(loop), next(loop)
    loader.load_state_dict(loader.state_dict())
    third = frames_in(next(iter(loader)))
    assert frames_in(next(iter(loader))) == third == frames_in(next(loop))
    loader.set_epoch(0)
    assert frames_in(next(iter(loader))) == third, "the epoch that the state is in"
    loader.set_epoch(1)
    loader.set_epoch(0)
    assert frames_in(next(iter(loader))) == first


def test_a_state_fits_its_own_order_alone(tiny: Path, dataset: Path) -> None:
    state = Loader(ShardDataset(tiny, seed=1)).state_dict()
    Loader(ShardDataset(shards_of(tiny), seed=1)).load_state_dict(state)
    others = [ShardDataset(tiny, seed=2), ShardDataset(tiny, seed=1, window=2), ShardDataset(dataset, split="train")]
    for other in [*others, ShardDataset(piped(tiny), seed=1)]:
        with pytest.raises(ValueError, match="belongs to another order of samples"):
            Loader(other).load_state_dict(state)
    with pytest.raises(ValueError, match="not a state of format 1: None"):
        Loader(ShardDataset(tiny)).load_state_dict({})


def test_batches_of_one_rank(tiny: Path) -> None:
    dataset = ShardDataset(tiny, shuffle=False)
    assert [len(frames_in(batch)) for batch in Loader(dataset, 5)] == [5, 5, 5, 2]
    assert [len(frames_in(batch)) for batch in Loader(dataset, 5, drop_last=True)] == [5, 5, 5]
    assert frames_of(Loader(dataset, None)) == list(range(TOTAL))
    doubled = ShardDataset(
        tiny, shuffle=False, transform=lambda sample: 2 * frame(sample) if frame(sample) % 2 else None
    )
    assert list(Loader(doubled, 4, collate=sum)) == [2 * (1 + 3), 2 * (5 + 7), 2 * (9 + 11), 2 * (13 + 15)]


@pytest.mark.parametrize("streamed", [False, True], ids=["local", "streamed"])
@pytest.mark.parametrize("remainder", ["keep", "drop"])
def test_a_datasets_state_goes_on_behind_the_last_sample(tiny: Path, streamed: bool, remainder: Remainder) -> None:
    def dataset(**options: Any) -> ShardDataset:
        options = {"rank": 0, "world_size": 2, "remainder": remainder, "seed": 4, **options}
        return ShardDataset(piped(tiny) if streamed else tiny, manifest=tiny, buffer=3, **options)

    running = dataset(transform=lambda sample: sample if frame(sample) % 3 else None)
    running.set_epoch(2)
    whole = frames_of(running)
    seen, loop = list[int](), iter(running)
    for number in [*whole, None]:
        later = dataset(transform=lambda sample: sample if frame(sample) % 3 else None)
        later.load_state_dict(running.state_dict())
        assert later.state_dict() == running.state_dict(), "before it is used, too"
        assert seen + frames_of(later) == whole
        later.set_epoch(2)
        assert frames_of(later) == whole, "the next one is a whole epoch again"
        seen += [] if number is None else [frame(next(loop))]
    state = running.state_dict()
    with pytest.raises(ValueError, match="belongs to another order of samples"):
        dataset(seed=5).load_state_dict(state)
    with pytest.raises(ValueError, match=r"is of rank 0 of 2, .* this is 1 of 2"):
        dataset(rank=1).load_state_dict(state)
    with pytest.raises(ValueError, match="not a state of format 1: None"):
        dataset().load_state_dict({})
    later = dataset()
    later.load_state_dict({**state, "worker": 1, "workers": 3})
    with pytest.raises(ValueError, match=r"worker 1 of 3, but this is 0 of 1: .* use a loaders\.Loader"):
        iter(later)


# Streams


@needs_curl
def test_streams_over_http(dataset: Path) -> None:
    with served(dataset) as url:
        for source in (f"{url}/", f"{url}/{FILE_NAME}"):
            streamed = ShardDataset(source, verify=True)
            assert len(streamed) == TOTAL
            assert sorted(frames_of(streamed)) == list(range(TOTAL))
        assert sorted(frames_of(ShardDataset(f"{url}/", split="train"))) == [*range(5), *range(6, 17)]
        uncounted = ShardDataset(f"{url}/cubes-train-{{000000,000002}}.tar?signature=1")
        assert sorted(frames_of(uncounted)) == [*range(5), *range(6, 14)]
        with pytest.raises(ShardError, match=rf"{url}/missing.tar: .*exit status 22"):
            next(iter(ShardDataset(f"{url}/missing.tar")))
        with pytest.raises(ManifestError, match=rf"no dataset at {url}/nowhere/{FILE_NAME}: .*exit status 22"):
            ShardDataset(f"{url}/nowhere/")


def test_streams_without_a_manifest_are_read_but_not_resumed(tiny: Path) -> None:
    dataset = ShardDataset(piped(tiny), buffer=4)
    orders = [[frame for batch in batches_of(dataset, 2, 3, epoch) for frame in batch] for epoch in range(2)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(TOTAL))
    assert orders[0] != orders[1]
    counted = ShardDataset(piped(tiny), manifest=tiny, buffer=4)
    assert batches_of(counted, 2, 3) == batches_of(dataset, 2, 3), "a manifest does not change the order"
    loader = Loader(dataset, 4)
    loader.state_dict()
    next(iter(loader))
    for question in (lambda: len(dataset), lambda: len(loader), loader.state_dict):
        with pytest.raises(TypeError, match="pass the dataset's manifest="):
            question()


def test_streams_are_shared_out_equally_where_that_can_be(tiny: Path) -> None:
    counted = partial(ShardDataset, piped(tiny), manifest=tiny, world_size=3, remainder="drop")
    lengths = {len(batches_of(counted(rank=rank), workers, 2)) for rank in range(3) for workers in (2,)}
    assert len(lengths) == 1
    for options, message in (
        ({"remainder": "pad", "manifest": tiny}, "cannot be padded; use remainder='keep' or 'drop'"),
        ({"remainder": "drop"}, "needs the number of samples; pass the dataset's manifest="),
        (
            {"remainder": "drop", "manifest": tiny, "world_size": 6, "rank": 0},
            "5 streamed shards cannot be divided equally among 6 ranks",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            list(ShardDataset(piped(tiny), **options))


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("pipe:exit 3", r"cut short: no end mark \(byte 0\); the command that reads it ended with exit status 3"),
        ("pipe:cat {path}; exit 4", "the command that reads it ended with exit status 4"),
        ("pipe:head -c 3000 {path}", "cut short"),
        ("pipe:head -c 512 /dev/urandom", "not a tar header"),
        ("nosuch://a/b.tar", "no gopen handler defined"),
    ],
)
def test_a_stream_that_fails_is_an_error_with_its_url(dataset: Path, command: str, message: str) -> None:
    url = command.format(path=shards_of(dataset)[0])
    with pytest.raises(ShardError, match=f"^{url}: .*{message}"):
        list(ShardDataset(url))


def test_a_command_that_hangs_is_not_waited_for(dataset: Path) -> None:
    path = shards_of(dataset)[0]
    began = time.monotonic()
    with pytest.raises(ShardError, match="not a tar header"):
        list(ShardDataset("pipe:head -c 2048 /dev/zero | tr '\\0' x; exec sleep 60"))
    loop = iter(ShardDataset(f"pipe:head -c 7000 {path}; exec sleep 60", buffer=0))
    next(loop)
    loop.close()  # type: ignore[attr-defined]
    assert time.monotonic() - began < 30


def test_a_stream_is_held_against_its_manifest(dataset: Path) -> None:
    path = shards_of(dataset)[0]
    manifest = Manifest.load(dataset)
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"frame": 3', b'"frame": 4'))
    assert sorted(frames_of(ShardDataset(f"pipe:cat {path}", manifest=manifest))) == [0, 1, 2, 4, 4]
    with pytest.raises(ShardError, match=f"pipe:cat {path}: sha256 is .*, but its manifest says"):
        list(ShardDataset(f"pipe:cat {path}", manifest=manifest, verify=True))
    path.write_bytes(content + bytes(BLOCK))
    with pytest.raises(ShardError, match=f"{len(content) + BLOCK} bytes long, but its manifest says {len(content)}"):
        list(ShardDataset(f"pipe:cat {path}", manifest=manifest))
    info = manifest.shards[0]
    for said in (4, 6):
        wrong = manifest.with_shard(type(info)(**(vars(info) | {"samples": said, "bytes": len(content) + BLOCK})))
        with pytest.raises(ShardError, match=f"holds (5 samples,.* |more than the ){said}"):
            list(ShardDataset(f"pipe:cat {path}", manifest=wrong))


# Damage


def damage(folder: Path) -> None:
    """Cut the first shard in its fourth sample, spoil one picture of the third, remove the last."""
    first, _, third, _, last = shards_of(folder)
    content = first.read_bytes()
    first.write_bytes(content[: content.index(b"000000-000003.png") + BLOCK])
    spoiled = third.read_bytes()
    at = spoiled.index(b"000002-000005.png") + BLOCK
    third.write_bytes(spoiled[:at] + b"spoiled!" + spoiled[at + 8 :])
    last.unlink()


def read_leniently(source: Any, **options: Any) -> tuple[ShardDataset, list[int]]:
    dataset = ShardDataset(source, on_error="skip", **options)
    return dataset, frames_of(dataset)


REST = [0, 1, 2, 5, 6, 7, 8, 9, 10, 12, 13]
"""What is left of the samples after `damage`."""


@pytest.mark.parametrize("streamed", [False, True], ids=["local", "streamed"])
def test_damage_is_an_error_or_a_counted_skip(dataset: Path, streamed: bool) -> None:
    damage(dataset)
    manifest = Manifest.load(dataset)
    source = [f"pipe:cat {dataset / info.name}" for info in manifest.shards] if streamed else dataset
    with pytest.raises(ShardError, match=str(dataset)):
        list(ShardDataset(source, manifest=manifest))
    with pytest.warns(SkipWarning) as caught:
        lenient, frames = read_leniently(source, manifest=manifest, buffer=3)
    assert sorted(frames) == REST
    assert lenient.skipped == TOTAL - len(REST)
    told = [str(warning.message) for warning in caught]
    for cause in (
        "cubes-train-000000.tar: ",
        "cubes-train-000002.tar: 000002-000005.png: not a readable image",
        "cubes-train-000004.tar: ",
    ):
        assert any(cause in message for message in told), cause
    with warnings.catch_warnings(record=True) as repeated:
        warnings.simplefilter("always")
        assert frames_of(lenient) == frames
    assert not repeated, "told once"
    assert lenient.skipped == 2 * (TOTAL - len(REST))


@pytest.mark.parametrize("streamed", [False, True], ids=["local", "streamed"])
def test_what_is_skipped_changes_no_other_samples_place(dataset: Path, tmp_path: Path, streamed: bool) -> None:
    make_dataset(tmp_path / "whole", COUNTS, full_members, splits=["train", "val"])
    damage(dataset)

    def batches(folder: Path) -> list[list[int]]:
        manifest = Manifest.load(folder)
        source = [f"pipe:cat {folder / info.name}" for info in manifest.shards] if streamed else folder
        return batches_of(ShardDataset(source, manifest=manifest, on_error="skip", buffer=3), 2, 4)

    with pytest.warns(SkipWarning):
        found = batches(dataset)
    assert found == [[number for number in batch if number in REST] for batch in batches(tmp_path / "whole")]


def test_damage_without_a_manifest_is_skipped_too(dataset: Path) -> None:
    paths = shards_of(dataset)
    damage(dataset)
    (dataset / FILE_NAME).unlink()
    with pytest.raises(ShardError, match=f"{paths[4]}: No such file"):
        ShardDataset(paths)
    for source in (paths, [f"pipe:cat {path}" for path in paths]):
        with pytest.warns(SkipWarning, match="skipped: "):
            lenient, frames = read_leniently(source)
        assert sorted(frames) == REST
        assert lenient.skipped == 3, "two shards and a picture: how many samples were in them nobody knows"


@pytest.mark.parametrize("manifest", [True, False], ids=["manifest", "bare"])
@pytest.mark.parametrize("streamed", [False, True], ids=["local", "streamed"])
@pytest.mark.parametrize("spoil", ["overwritten", "cut"])
def test_damage_costs_no_sample_that_ends_before_it(tmp_path: Path, spoil: str, streamed: bool, manifest: bool) -> None:
    """At each header of a shard in turn. Only without a manifest nobody knows whether a lone first sample is whole."""
    planned = planned_dataset.make(tmp_path, planned_dataset.Recipe(shards=1, samples_per_shard=3))
    path = tmp_path / planned.shards[0].name
    if not manifest:
        (tmp_path / FILE_NAME).unlink()
    content = path.read_bytes()
    places = list(read_places(io.BytesIO(content), len(content)))
    ends = [place.end for place, after in pairwise(places) if place.key != after.key]
    for offset in [place.offset for place in places] + [places[-1].end]:
        path.write_bytes(content[:offset] + (b"" if spoil == "cut" else b"spoiled!" + content[offset + 8 :]))
        source = f"pipe:cat {path}" if streamed else str(path)
        with pytest.warns(SkipWarning):
            _, given = read_leniently(source, manifest=planned if manifest else None)
        before = sum(end <= offset for end in [*ends, places[-1].end])
        assert len(given) == (0 if offset == ends[0] and not manifest else before), offset


def test_a_shard_with_another_digest_is_skipped_whole(dataset: Path) -> None:
    path = shards_of(dataset)[0]
    path.write_bytes(path.read_bytes().replace(b'"frame": 3', b'"frame": 4'))
    with pytest.warns(SkipWarning, match="sha256 is"):
        lenient, frames = read_leniently(dataset, verify=True)
    assert sorted(frames) == list(range(5, TOTAL))
    assert lenient.skipped == 5


def test_a_batch_of_skips_alone_is_passed_over(tmp_path: Path) -> None:
    make_dataset(tmp_path, [4, 4])
    (tmp_path / "cubes-train-000000.tar").unlink()
    with pytest.warns(SkipWarning, match="No such file"):
        loader = Loader(ShardDataset(tmp_path, shuffle=False, on_error="skip"), 2)
    with pytest.warns(SkipWarning) as caught:
        batches = [frames_in(batch) for batch in loader]
    assert batches == [[4, 5], [6, 7]]
    assert "epoch 0: 4 samples were skipped" in [str(warning.message) for warning in caught]
    assert loader.epoch == 1


def test_a_mistake_in_a_transform_is_not_skipped(tiny: Path) -> None:
    with pytest.raises(KeyError, match="image"):
        list(ShardDataset(tiny, on_error="skip", transform=lambda sample: sample["image"]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_error": "ignore"}, "on_error must be 'raise' or 'skip'"),
        ({"remainder": "even"}, "remainder must be 'keep', 'pad' or 'drop'"),
        ({"image_layout": "WHC"}, "image_layout must be 'CHW' or 'HWC'"),
        ({"output": "jax"}, "output must be 'torch' or 'numpy'"),
        ({"integers": "int16"}, "integers must be 'int32' or 'int64', not 'int16'"),
        ({"floats": "float64"}, "floats must be 'float32', not 'float64'"),
        ({"output": "tv_tensors", "image_layout": "HWC"}, r"tv_tensors are \(3, H, W\): leave image_layout out"),
        ({"window": 0}, "window must be at least one shard"),
    ],
)
def test_a_wrong_option_is_an_error(tiny: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ShardDataset(tiny, **options)
