"""Parts of shards: what an earlier run finished is kept if it is what was written, and the bytes come out the same."""

from __future__ import annotations

import hashlib
import io
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from compiler.planning.schemas import SchemaConflict
from compiler.storage.journal import Entry, Recovered, Stored, journal_of, read_entries
from compiler.storage.writer import ShardWriter, find_kept, part_of
from loaders.manifest import ShardInfo
from loaders.tarstream import END, sample_record

NAME = "cubes-train-000000.tar"
PLAN = "5" * 64
MEMBERS = ["png", "json", "keypoints.npy"]
QUICK = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where syncing costs nothing."""
STORED = Stored(1024, "0" * 8, b"")
EPISODES = [["000000-000000", "000000-000001"], ["000000-000002", "000000-000003"], ["000000-000004"]]


def members(key: str) -> dict[str, bytes]:
    """Return the members of a sample like no other."""
    noise = hashlib.shake_256(key.encode()).digest(400)
    file = io.BytesIO()
    Image.frombytes("RGB", (8, 8), noise[:192]).save(file, "PNG")
    rare = "1.5" if key.endswith("3") else "null"
    return {"png": file.getvalue(), "json": f'{{"key":"{key}","rare":{rare}}}'.encode(), "keypoints.npy": noise}


def render(shard: Path, plan: str = PLAN, stop_after: int = 5, skipping: bool = False) -> ShardInfo | None:
    """Write the shard, or go on with it, episode by episode; be cut off after so many samples in all."""
    kept = find_kept(shard, plan, EPISODES, MEMBERS, skipping)
    writer = ShardWriter(shard, plan, kept)
    for keys in EPISODES[len(kept.entries) :]:
        for key in keys:
            if writer.samples == stop_after:
                for file in (writer._file, writer._journal):
                    file.close()  # as the system does for a process that was killed
                return None
            writer.add(key, members(key))
        writer.seal()
    return writer.commit(0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, ShardInfo]:
    """The shard as it is written in one go."""
    folder = tmp_path_factory.mktemp("whole")
    info = render(folder / NAME)
    assert info
    return (folder / NAME).read_bytes(), info


def kept_of(shard: Path, plan: str = PLAN) -> Recovered:
    return find_kept(shard, plan, EPISODES, MEMBERS, skipping=False)


@pytest.mark.parametrize(("stop_after", "episodes", "samples"), [(1, 0, 0), (2, 1, 2), (3, 1, 2), (4, 2, 4)])
def test_whole_episodes_are_kept_and_at_most_one_is_lost(
    stop_after: int, episodes: int, samples: int, whole: tuple[bytes, ShardInfo], tmp_path: Path
) -> None:
    shard = tmp_path / NAME
    render(shard, stop_after=stop_after)
    found = kept_of(shard)
    assert (len(found.entries), len(found.samples)) == (episodes, samples)
    assert (render(shard), shard.read_bytes()) == (whole[1], whole[0])


def test_annotations_of_kept_samples_are_gathered(tmp_path: Path) -> None:
    render(tmp_path / NAME, stop_after=4)
    assert kept_of(tmp_path / NAME).annotations == {"key": "str", "rare": "float"}


@given(st.integers(0, 20_000), st.integers(0, 7), st.booleans(), st.booleans(), st.integers(1, 4))
@settings(max_examples=200)
def test_whatever_a_power_failure_leaves_the_bytes_come_out_the_same(
    whole: tuple[bytes, ShardInfo], place: int, bit: int, in_journal: bool, cut: bool, stop_after: int
) -> None:
    """A bit is flipped or all is cut from a place on, in the part or in its journal."""
    with tempfile.TemporaryDirectory(dir=QUICK) as folder:
        shard = Path(folder) / NAME
        render(shard, stop_after=stop_after)
        victim = journal_of(shard) if in_journal else part_of(shard)
        content = bytearray(victim.read_bytes())
        place %= len(content)
        if cut:
            del content[place:]
        else:
            content[place] ^= 1 << bit
        victim.write_bytes(content)
        assert (render(shard), shard.read_bytes()) == (whole[1], whole[0])


def zeros(part: Path, start: int) -> None:
    size = part.stat().st_size
    with part.open("rb+") as file:
        file.seek(start)
        file.write(bytes(size - start))


STALE: dict[str, Callable[[Path], object]] = {
    "zero blocks behind the first episode": lambda shard: zeros(part_of(shard), 5000),
    "nothing but zeros": lambda shard: zeros(part_of(shard), 0),
    "episodes in another order": lambda shard: part_of(shard).write_bytes(
        b"".join(sample_record(key, members(key)) for episode in (1, 0) for key in EPISODES[episode])
    ),
    "no part": lambda shard: part_of(shard).unlink(),
    "no journal": lambda shard: journal_of(shard).unlink(),
    "a journal of other keys": lambda shard: journal_of(shard).write_bytes(
        journal_of(shard).read_bytes().replace(b"000000-000002", b"000000-000009")
    ),
    "a journal that is no JSON object": lambda shard: journal_of(shard).write_bytes(b"[]\n[]\n"),
    "a line that is no entry": lambda shard: journal_of(shard).write_bytes(
        journal_of(shard).read_bytes().replace(b'"keys"', b'"kez"')
    ),
}


@pytest.mark.parametrize("damage", STALE)
def test_stale_or_foreign_bytes_are_not_kept(damage: str, whole: tuple[bytes, ShardInfo], tmp_path: Path) -> None:
    shard = tmp_path / NAME
    render(shard, stop_after=4)
    STALE[damage](shard)
    assert len(kept_of(shard).entries) < 2
    assert (render(shard), shard.read_bytes()) == (whole[1], whole[0])


def test_a_part_of_another_plan_is_not_kept(whole: tuple[bytes, ShardInfo], tmp_path: Path) -> None:
    render(tmp_path / NAME, plan="6" * 64, stop_after=4)
    assert kept_of(tmp_path / NAME).entries == []
    assert (render(tmp_path / NAME), (tmp_path / NAME).read_bytes()) == (whole[1], whole[0])


def test_bytes_that_were_written_and_are_no_sample_are_not_kept(tmp_path: Path) -> None:
    """Even where the digest fits: what is kept passes all checks that a fresh sample passes."""
    shard = tmp_path / NAME
    for wrong in ({"png": b"no image"}, {"json": b"{"}, {"depth.npy": b""}):
        record = b"".join(sample_record(key, {**members(key), **wrong}) for key in EPISODES[0])
        part_of(shard).write_bytes(record + END)
        entry = Entry(EPISODES[0], hashlib.sha256(record).hexdigest())
        journal_of(shard).write_bytes(b'{"plan": "%s"}\n' % PLAN.encode() + entry.line())
        assert read_entries(journal_of(shard), PLAN) == [entry]
        assert kept_of(shard).entries == []


def test_a_shard_that_the_manifest_does_not_know_yet_is_kept_whole(
    whole: tuple[bytes, ShardInfo], tmp_path: Path
) -> None:
    """The compiler died between the shard's getting its name and its entry into the manifest."""
    shard = tmp_path / NAME
    render(shard)
    assert not part_of(shard).exists()
    assert len(kept_of(shard).entries) == 3
    before = shard.stat().st_ino
    assert (render(shard), shard.read_bytes()) == (whole[1], whole[0])
    assert shard.stat().st_ino == before


@pytest.fixture
def gapped(tmp_path: Path) -> Iterator[Path]:
    """A part whose second episode was skipped."""
    shard = tmp_path / NAME
    writer = ShardWriter(shard, PLAN)
    for key in EPISODES[0]:
        writer.add(key, members(key))
    writer.seal()
    writer.add(EPISODES[1][0], members(EPISODES[1][0]))
    writer.skip(EPISODES[1], "died of SIGSEGV")
    for key in EPISODES[2]:
        writer.add(key, members(key))
    writer.seal()
    writer.close()
    yield shard
    shutil.rmtree(tmp_path)


def test_a_unit_whose_annotations_do_not_fit_is_not_taken_in_halves() -> None:
    kept = Recovered(annotations={"episode": "int"})
    with pytest.raises(SchemaConflict):
        kept.add(Entry(["000000-000000"], "5" * 64), Recovered(samples=[STORED], annotations={"episode": "str"}))
    assert kept == Recovered(annotations={"episode": "int"})
    kept.add(Entry(["000000-000000"], "5" * 64), Recovered(samples=[STORED], annotations={"episode": "int"}))
    assert kept.samples == [STORED]


def test_a_skipped_episode_stays_skipped_where_that_is_wanted(gapped: Path) -> None:
    found = find_kept(gapped, PLAN, EPISODES, MEMBERS, skipping=True)
    assert [entry.skipped for entry in found.entries] == ["", "died of SIGSEGV", ""]
    assert len(found.samples) == 3


def test_otherwise_rendering_goes_on_before_the_skipped_episode(gapped: Path, whole: tuple[bytes, ShardInfo]) -> None:
    assert len(kept_of(gapped).entries) == 1
    assert (render(gapped), gapped.read_bytes()) == (whole[1], whole[0])
