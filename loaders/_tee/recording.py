"""Live samples recorded as ordinary shards, and a recording sorted back into the compiler's own shards.

    recording/
      recording-train-000000.tar ...   in the order of arrival; each receiving process writes its own
      dataset.json                     as any dataset's: `ShardDataset`, `IndexedShards` and webdataset read it
      recording-<random>.tar.part      being written; its writer holds the lock of the same name

No name here comes from the wire. A shard with its final name is complete. What a killed writer left is recovered by the
next writer in the directory, or by `finish_recording`.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from loaders._shards.store import sample_spans
from loaders._tee.client import TeeStatus
from loaders.content import content_digest
from loaders.errors import SampleError, ShardError, SkipWarning, located
from loaders.files import strange_entry
from loaders.format import SPLIT, SampleKey, sample_digest, shard_name
from loaders.layout import ShardLayout
from loaders.manifest import FILE_NAME, RECORDED, Manifest, ShardInfo
from loaders.tarstream import (
    DEFAULT_MAX_BYTES,
    END,
    Sample,
    TarStreamError,
    parse_sample,
    read_samples,
    sample_record,
)

_LOCK = ".recording.lock"
_NAME = "recording"
_PREFIX = f"{_NAME}-"
_PART = ".tar.part"
_SHARD_SAMPLES = 1000
_SHARD_BYTES = 256 << 20
_LOCK_TIMEOUT_S = 60.0


def check_recording(folder: Path) -> None:
    """Check that a recording can be started or continued in `folder`.

    Raises:
        ShardError: it holds something else.
        ManifestError: its manifest is damaged.
    """
    ours = (FILE_NAME, _PREFIX, _LOCK)  # and their part files
    if folder.is_dir() and (strange := strange_entry(folder, lambda name: name.startswith(ours))):
        raise ShardError(f"{folder / strange[0]} is a {strange[1]}; record into another directory")
    if (folder / FILE_NAME).exists():
        if not Manifest.load(folder).recorded:
            raise ShardError(f"{folder} holds a dataset that is not a recording; record into another directory")
    elif folder.exists():
        if not folder.is_dir():
            raise ShardError(f"{folder} is not a directory; record into another one")
        if strangers := [path.name for path in folder.iterdir() if not path.name.startswith(ours)]:
            raise ShardError(f"{folder} holds other files ({min(strangers)}); record into another directory")


def finish_recording(folder: str | Path) -> Manifest:
    """Recover what killed writers left, and return the recording's manifest.

    Raises:
        ManifestError: there is no recording.
        ShardError: it cannot be written.
    """
    path = Path(folder)
    Manifest.load(path)  # raises before anything is made
    check_recording(path)
    with _written(path), _locked(path):
        check_recording(path)
        _recover_leftovers(path)
        return Manifest.load(path)


class Recorder:
    """Writes samples into its own shards; several processes may record into one directory. Use as a context manager.

    State: the dataset being recorded, and the shard being written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._plan_digest = ""
        self._part: _Part | None = None

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self._commit()

    def add(self, status: TeeStatus, sample: Sample, content: bytes) -> None:
        """Append a sample.

        Args:
            status: of the tee that it came from.
            sample: the sample.
            content: its `content_digest`.

        Raises:
            ShardError: the directory holds another dataset, or cannot be written.
        """
        with _written(self._folder):
            if status.plan_digest != self._plan_digest:
                _open(self._folder, status)
                self._plan_digest = status.plan_digest
            self._part = self._part or _Part(self._folder)
            self._part.add(sample, content)
        if self._part.full:
            self._commit()

    def _commit(self) -> None:
        part, self._part = self._part, None
        if part is not None:
            with _written(self._folder), _locked(self._folder):
                part.commit()


class _Part:
    """A shard that is being written.

    State: the locked file, and the digests of its content.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / f"{_PREFIX}{secrets.token_hex(8)}{_PART}"
        self._lock = _lock_of(self._path)
        self._lock.acquire(timeout=0)
        self._file = self._path.open("xb")
        self._sha256, self._content = hashlib.sha256(), hashlib.sha256()
        self._records: list[str] = []
        self._bytes = 0

    @property
    def full(self) -> bool:
        return len(self._records) >= _SHARD_SAMPLES or self._bytes >= _SHARD_BYTES

    def add(self, sample: Sample, content: bytes) -> None:
        try:
            record = sample_record(sample.key, sample.members)
        except ValueError as error:  # readers accept folders in keys, recordings have none
            raise ShardError(f"sample {sample.key!r} cannot be recorded: {error}") from None
        self._append(record)
        self._file.flush()  # if this process is killed, what it has received stays
        self._content.update(content)
        self._records.append(sample_digest(record))

    def commit(self) -> None:
        """Give the shard its name and add it to the manifest. The directory must be locked."""
        self._append(END)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        manifest = Manifest.load(self._folder)
        number = max((shard.number for shard in manifest.shards), default=-1) + 1
        name = shard_name(_NAME, number)
        digests = self._sha256.hexdigest(), self._content.hexdigest()
        self._path.replace(self._folder / name)
        shard = ShardInfo(
            name, SPLIT, number, len(self._records), self._bytes, *digests, sample_digests="".join(self._records)
        )
        manifest.with_shard(shard).save(self._folder)
        _release(self._lock)

    def _append(self, content: bytes) -> None:
        self._file.write(content)
        self._sha256.update(content)
        self._bytes += len(content)


def _open(folder: Path, status: TeeStatus) -> None:
    """Start or continue the recording of a dataset.

    Raises:
        ShardError: the directory holds another dataset.
    """
    folder.mkdir(parents=True, exist_ok=True)
    check_recording(folder)  # before the lock, which is a file there
    with _locked(folder):
        check_recording(folder)
        if not (folder / FILE_NAME).exists():
            provenance = {RECORDED: "from a live tee, in the order of arrival"}
            Manifest(status.name, status.plan, status.schema, provenance).save(folder)
        found = Manifest.load(folder).plan_digest
        if found != status.plan_digest:
            raise ShardError(
                f"{folder} holds a recording of plan {found[:16]}..., but the tee serves "
                f"{status.plan_digest[:16]}...; record each dataset into its own directory"
            )
        _recover_leftovers(folder)


def _recover_leftovers(folder: Path) -> None:
    """Turn what killed writers left into shards. The directory must be locked."""
    if not (folder / FILE_NAME).exists():
        return
    listed = {shard.name for shard in Manifest.load(folder).shards}
    for path in [path for path in folder.glob(f"{_PREFIX}*.tar") if path.name not in listed]:
        path.replace(path.with_name(f"{_PREFIX}{secrets.token_hex(8)}{_PART}"))  # named, but not in the manifest
    for path in folder.glob(f"{_PREFIX}*{_PART}"):
        lock = _lock_of(path)
        with suppress(Timeout):
            lock.acquire(timeout=0)
            _recover(folder, path)
            path.unlink()
            _release(lock)


def _recover(folder: Path, path: Path) -> None:
    part, manifest = None, Manifest.load(folder)
    with path.open("rb") as file, suppress(TarStreamError, SampleError):
        for sample in read_samples(file, whole=manifest.members):
            part = part or _Part(folder)
            part.add(sample, content_digest(sample.key, sample.members, manifest.members))
    if part is not None:
        part.commit()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        with FileLock(folder / _LOCK, timeout=_LOCK_TIMEOUT_S):
            yield
    except Timeout:
        raise ShardError(f"{folder} has been locked by another process for {_LOCK_TIMEOUT_S:g} s") from None


@contextmanager
def _written(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ShardError(f"cannot record in {folder}: {error.strerror or error}") from None


def _lock_of(part: Path) -> FileLock:
    return FileLock(part.with_name(part.name + ".lock"))


def _release(lock: FileLock) -> None:
    lock.release()
    Path(lock.lock_file).unlink(missing_ok=True)


class _Place(NamedTuple):
    path: Path
    start: int
    end: int

    def read(self) -> Sample:
        with located(str(self.path)), self.path.open("rb") as file:
            file.seek(self.start)
            return parse_sample(file.read(self.end - self.start), self.start)


def rebuild_shards(recording: str | Path, out: str | Path) -> Manifest:
    """Sort a recording's samples into the shards that they came from, and return the manifest of these.

    The shards equal the compiler's, byte for byte. A shard that lacks a sample is left out with a warning. A sample
    that was recorded more than once is written once.

    Args:
        recording: what ``LiveDataset(..., record=...)`` wrote; call `finish_recording` first if a writer was killed.
        out: a directory that is empty or does not exist yet.

    Raises:
        ManifestError: there is no recording.
        ShardError: its plan does not say how samples are numbered, a shard is damaged, different samples have the same
            key, or `out` is not empty.
    """
    recorded, target = Manifest.load(recording), Path(out)
    try:
        layout = ShardLayout.parse(recorded.plan)
    except ValueError as error:
        raise ShardError(f"{recording} does not say how its dataset's samples are numbered: {error}") from None
    target.mkdir(parents=True, exist_ok=True)
    if any(target.iterdir()):
        raise ShardError(f"{target} is not empty; rebuild into another directory")
    manifest = replace(recorded, shards=())
    for number, places in sorted(_by_shard(Path(recording), recorded).items()):
        if len(places) == layout.samples_per_shard and max(places) < layout.samples_per_shard:
            path = target / layout.shard_name(number)
            with located(str(path)):
                manifest = manifest.with_shard(_write_shard(path, number, _in_order(places)))
        else:
            lacking = f"{len(places)} of {layout.samples_per_shard} samples were recorded"
            warnings.warn(f"left out shard {number}: {lacking}", SkipWarning, stacklevel=2)
    manifest.save(target)
    return manifest


def _by_shard(folder: Path, recorded: Manifest) -> Mapping[int, Mapping[int, list[_Place]]]:
    """Return the places of the samples, by shard and by number in the shard."""
    found: defaultdict[int, defaultdict[int, list[_Place]]] = defaultdict(lambda: defaultdict(list))
    for shard in recorded.shards:
        path = folder / shard.name
        with located(str(path)):
            for key, start, end in sample_spans(str(path), DEFAULT_MAX_BYTES):
                if (parsed := SampleKey.parse(key)) is None:
                    raise ShardError(f"{path}: the key {key!r} does not name its shard")
                found[parsed.shard][parsed.sample].append(_Place(path, start, end))
    return found


def _in_order(places: Mapping[int, list[_Place]]) -> Iterator[Sample]:
    for _, copies in sorted(places.items()):
        first, *others = [place.read() for place in copies]
        if any((other.key, other.members) != (first.key, first.members) for other in others):
            raise ShardError(f"{copies[0].path}: different samples have the key {first.key!r}")
        yield first


def _write_shard(path: Path, number: int, samples: Iterator[Sample]) -> ShardInfo:
    records, sha256, content = [], hashlib.sha256(), hashlib.sha256()
    with path.open("xb") as file:
        for sample in samples:
            record = sample_record(sample.key, sample.members)
            file.write(record)
            sha256.update(record)
            content.update(content_digest(sample.key, sample.members))
            records.append(sample_digest(record))
        file.write(END)
        sha256.update(END)
        digests = sha256.hexdigest(), content.hexdigest(), "".join(records)
        return ShardInfo(path.name, SPLIT, number, len(records), file.tell(), *digests)
