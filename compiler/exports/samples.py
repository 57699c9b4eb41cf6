"""The samples of a dataset as they are exported: each is read once and checked before anything of it is written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from compiler.errors import UsageError, VerificationFailed
from compiler.planning.schemas import annotation_problem
from compiler.storage.published import DAMAGED_HINT, Published, open_shard
from compiler.verification.shard import Tap, read_json
from loaders.content import open_image
from loaders.format import IMAGES, SAMPLE_DIGEST_DIGITS, SampleKey, is_member, is_plain, sample_digest, views_of
from loaders.manifest import Manifest, ShardInfo
from loaders.tarstream import Sample, TarStreamError, read_samples


@dataclass(frozen=True)
class View:
    """What one camera of a sample shows."""

    file_name: str
    """The name of the image's file: key and member, such as ``000003-000042.left.png``."""
    image: bytes
    width: int
    height: int
    objects: list[dict[str, Any]]
    segmentation: bytes | None
    """The pass of this name as ``.npy``, if the dataset has it."""


def splits_of(published: Published) -> list[str]:
    """Return the dataset's splits, each once, in the order of its shards.

    Raises:
        UsageError: no shard is finished, or a split has a name that could lead elsewhere as a folder's.
    """
    splits = list(dict.fromkeys(shard.split for shard in published.manifest.shards))
    if not splits:
        raise UsageError(f"{published.folder} has no finished shard yet", "run compile-dataset first")
    for split in splits:
        if not is_plain(split):
            raise UsageError(f"{published.folder}: {split!r} cannot name a split", DAMAGED_HINT)
    return splits


def samples_of(published: Published) -> Iterator[tuple[ShardInfo, Sample]]:
    """Yield all samples with their shards, in the order of the manifest.

    Raises:
        VerificationFailed: a shard is missing or is not as it was written, or a name could lead elsewhere.
    """
    keys = _Keys(published.manifest)
    for shard in published.manifest.shards:
        path = published.folder / shard.name
        try:
            with open_shard(path) as file:
                for sample in _intact(Tap(file, shard.bytes), shard, published.manifest):
                    keys.check(shard, sample)
                    yield shard, sample
        except OSError as error:
            raise VerificationFailed(f"{path}: {error.strerror or error}", DAMAGED_HINT) from None
        except (TarStreamError, _Damaged) as error:
            raise VerificationFailed(f"{path}: {error}", DAMAGED_HINT) from None


class _Damaged(ValueError):
    """A shard is not as it was written."""


def _intact(tap: Tap, shard: ShardInfo, manifest: Manifest) -> Iterator[Sample]:
    for at, sample in enumerate(read_samples(tap, whole=manifest.members.keys() or None)):
        record = tap.take(sample.end - sample.offset)
        if sample_digest(record) != shard.sample_digests[at * SAMPLE_DIGEST_DIGITS :][:SAMPLE_DIGEST_DIGITS]:
            raise _Damaged(f"sample {sample.key} is not as it was written")
        yield sample
    if tap.drain() or tap.size != shard.bytes or tap.sha256.hexdigest() != shard.sha256:
        raise _Damaged("is not as it was written: its sha256 differs")


class _Keys:
    """Checks the names in a dataset: files are named after them, so each occurs once and leads nowhere else.

    State: the last key; for a recording of a live tee, whose keys do not ascend, all of them.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._recorded = manifest.recorded
        self._last: SampleKey | None = None
        self._seen: set[str] = set()

    def check(self, shard: ShardInfo, sample: Sample) -> None:
        """Raise _Damaged where a name is wrong."""
        for name in sample.members:
            if not is_member(name):
                raise _Damaged(f"sample {sample.key}: {name!r} cannot name a member")
        if self._recorded:
            if not is_plain(sample.key) or sample.key in self._seen:
                raise _Damaged(f"{sample.key!r} cannot name a sample, or names two")
            self._seen.add(sample.key)
            return
        key = SampleKey.parse(sample.key)
        if key is None or key.shard != shard.number or (self._last is not None and key <= self._last):
            raise _Damaged(f"sample {sample.key!r} does not belong there")
        self._last = key


def views(sample: Sample) -> Iterator[View]:
    """Yield what each camera shows, in the order of the cameras' names.

    Raises:
        ValueError: the sample has no image with annotations, or they do not go together.
    """
    prefixes = views_of(sample.members)
    if not prefixes:
        raise ValueError("it has no image with annotations")
    for prefix in prefixes:
        name = next(f"{prefix}{kind}" for kind in IMAGES if f"{prefix}{kind}" in sample.members)
        annotations = read_json(sample.members[f"{prefix}json"])
        if problem := annotation_problem(annotations):
            raise ValueError(problem)
        size = annotations["image"]
        image = open_image(sample.members[name])
        if image.size != (size["width"], size["height"]):
            raise ValueError(f"{name} is {image.width}x{image.height}, not {size['width']}x{size['height']}")
        segmentation = sample.members.get(f"{prefix}segmentation.npy")
        file_name = f"{sample.key}.{name}"
        yield View(file_name, sample.members[name], *image.size, annotations["objects"], segmentation)
