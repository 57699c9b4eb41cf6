"""A finished dataset that the user names: its manifest, its samples, and where the user says that its job is now."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from compiler.errors import UsageError
from loaders.files import open_regular
from loaders.format import SampleKey
from loaders.manifest import Manifest, ManifestError
from loaders.tarstream import Sample, TarStreamError, read_samples


@dataclass(frozen=True)
class Places:
    """Where the user says that things are, and what the user trusts; None: where they were.

    The manifest says neither: see `compiler.trust`.
    """

    job: Path | None = None
    """The job's file."""
    assets: Path | None = None
    """The folder that holds the job's assets, as the job's own folder did."""
    trust_source: bool = False
    """Whether code of the dataset may run, though it is not the user's own."""
    trust_blend: bool = False
    """Whether scripts and drivers in its ``.blend`` may run."""


@dataclass(frozen=True)
class Published:
    """A dataset on the disk, and where what it was made of is now."""

    folder: Path
    manifest: Manifest
    places: Places = Places()

    @classmethod
    def load(cls, dataset: Path, places: Places | None = None) -> Published:
        """Return the dataset that is named by its directory or by its manifest.

        Raises:
            UsageError: there is no manifest that can be read.
        """
        return cls(folder_of(dataset), load_manifest(dataset), places or Places())


def folder_of(dataset: Path) -> Path:
    """Return the directory of a dataset that is named by it or by its manifest."""
    with suppress(OSError):
        return dataset.parent if dataset.is_file() else dataset
    return dataset


def load_manifest(dataset: Path) -> Manifest:
    """Return the manifest of a dataset that is named by its directory or by the manifest itself.

    Raises:
        UsageError: there is none that can be read.
    """
    try:
        return Manifest.load(dataset)
    except ManifestError as error:
        raise UsageError(str(error), "name the directory that compile-dataset wrote") from None


DAMAGED_HINT = "compile-dataset verify says what is damaged"
"""What to do about a shard that cannot be read."""


def open_shard(path: Path) -> BinaryIO:
    """Open a shard. Raises OSError where it is no regular file, too: a pipe or a device might never end."""
    return BufferedReader(open_regular(path))


def samples_of(path: Path) -> Iterator[Sample]:
    """Yield a shard's samples.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        with open_shard(path) as file:
            yield from read_samples(file)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}", DAMAGED_HINT) from None
    except TarStreamError as error:
        raise UsageError(f"{path}: {error}", DAMAGED_HINT) from None


def find_sample(published: Published, key: str) -> Sample:
    """Return the sample called `key`.

    Raises:
        UsageError: there is none, or its shard cannot be read.
    """
    folder, manifest = published.folder, published.manifest
    wanted = SampleKey.parse(key)
    shard = next((shard for shard in manifest.shards if wanted and shard.number == wanted.shard), None)
    if shard is not None:
        for sample in samples_of(folder / shard.name):
            if sample.key == key:
                return sample
    example = SampleKey(manifest.shards[0].number, 0) if manifest.shards else "none: no shard is finished"
    raise UsageError(f"{folder} has no sample {key!r}", f"a key is as {example}")


def spread(published: Published, count: int) -> list[Sample]:
    """Return `count` samples evenly spread over the dataset.

    Raises:
        UsageError: there is no finished shard, or one cannot be read.
    """
    folder, manifest = published.folder, published.manifest
    if not manifest.samples:
        raise UsageError(f"{folder} has no finished shard yet", "run compile-dataset first")
    count = min(count, manifest.samples)
    wanted = {at * manifest.samples // count for at in range(count)}
    found, start = [], 0
    for shard in manifest.shards:
        inside = {index - start for index in wanted if start <= index < start + shard.samples}
        if inside:
            found += [sample for at, sample in enumerate(samples_of(folder / shard.name)) if at in inside]
        start += shard.samples
    if len(found) < count:
        raise UsageError(f"{folder}: shards hold fewer samples than the manifest says", DAMAGED_HINT)
    return found
