"""From a recording back to the shards that its samples came from."""

from __future__ import annotations

import hashlib
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from loaders._shards.index import sample_spans
from loaders.content import content_digest
from loaders.errors import ShardError, SkipWarning, located
from loaders.format import SPLIT, SampleKey, sample_digest
from loaders.layout import ShardLayout
from loaders.manifest import Manifest, ShardInfo
from loaders.tarstream import DEFAULT_MAX_BYTES, END, Sample, parse_sample, sample_record


class _Place(NamedTuple):
    path: Path
    start: int
    end: int

    def read(self) -> Sample:
        with located(str(self.path)), self.path.open("rb") as file:
            file.seek(self.start)
            return parse_sample(file.read(self.end - self.start), self.start)


def rebuild_shards(recording: str | Path, out: str | Path) -> Manifest:
    """Sort a recording's samples into the shards that they came from, and return their manifest.

    The shards are the compiler's, byte for byte. A shard of which a sample is missing is left out with a warning. A
    sample that was recorded more than once counts once.

    Args:
        recording: what ``LiveDataset(..., record=...)`` has written; `finish_recording` comes first where a writer was
            killed.
        out: a directory that is empty, or does not exist yet.

    Raises:
        ManifestError: there is no recording, or it does not tell how many samples a shard has.
        ShardError: a shard of it is damaged, or two samples have one key; `out` is not empty.
    """
    recorded, target = Manifest.load(recording), Path(out)
    try:
        layout = ShardLayout.parse(recorded.plan)
    except ValueError as error:
        raise ShardError(f"{recording} does not tell how its dataset's samples are numbered: {error}") from None
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
    """Return where the samples lie, by shard and by number in it."""
    found: defaultdict[int, defaultdict[int, list[_Place]]] = defaultdict(lambda: defaultdict(list))
    for shard in recorded.shards:
        path = folder / shard.name
        with located(str(path)):
            for key, start, end in sample_spans(str(path), DEFAULT_MAX_BYTES):
                if (parsed := SampleKey.parse(key)) is None:
                    raise ShardError(f"{path}: the key {key!r} does not tell which shard it belongs to")
                found[parsed.shard][parsed.sample].append(_Place(path, start, end))
    return found


def _in_order(places: Mapping[int, list[_Place]]) -> Iterator[Sample]:
    for _, copies in sorted(places.items()):
        first, *others = [place.read() for place in copies]
        if any((other.key, other.members) != (first.key, first.members) for other in others):
            raise ShardError(f"{copies[0].path}: there are different samples with the key {first.key!r}")
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
