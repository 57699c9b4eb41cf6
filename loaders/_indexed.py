"""The samples of a dataset by number or key, for validation, notebooks and map-style DataLoaders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Unpack, overload

from loaders._decode import Decoder, Decoding
from loaders._shards.sources import Source, resolve
from loaders._shards.store import LocalShards
from loaders.errors import ShardError, located
from loaders.manifest import Manifest
from loaders.tarstream import DEFAULT_MAX_BYTES, Sample


class IndexedShards:
    """Random access to the samples of local shards.

    ``shards[7]``, ``shards[-1]``, ``shards["000003-000042"]``; ``shards[10:20]`` is a list. Samples are decoded as by
    `ShardDataset`. You can use it from several threads, and pickle it.

    Args:
        source: a dataset's directory or manifest, a ``.tar``, a brace pattern, or a list of these.
        split: read only the shards of this split.
        verify: compare every shard's sha256 with the manifest first.
        manifest: the manifest of files without one in their folder.
        max_bytes: largest sample that is read.
        decoding: options of `Decoder`: ``image_layout``, ``output``, ``integers``, ``floats``, ``members``,
            ``max_pixels``.

    Raises:
        ManifestError: a manifest is needed, and there is no valid one.
        ShardError: a shard is missing, damaged, differs from its manifest, or is not a local file.
    """

    def __init__(
        self,
        source: Source,
        *,
        split: str | None = None,
        verify: bool = False,
        manifest: Manifest | str | Path | None = None,
        max_bytes: int = DEFAULT_MAX_BYTES,
        **decoding: Unpack[Decoding],
    ) -> None:
        shards = resolve(source, split=split, manifest=manifest)
        if shards[0].streamed:
            raise ShardError(f"{shards[0].location}: random access needs local files; download the shard first")
        self._store = LocalShards(shards, verify=verify, max_bytes=max_bytes)
        self._decode = Decoder(**decoding)

    def __len__(self) -> int:
        return len(self._store)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[number] for number in range(len(self)))

    @overload
    def __getitem__(self, place: int | str) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, place: slice) -> list[dict[str, Any]]: ...

    def __getitem__(self, place: int | str | slice) -> dict[str, Any] | list[dict[str, Any]]:
        """Return one sample by number or key, or a list of them.

        Raises:
            IndexError, KeyError: there is no such sample.
            ShardError: it cannot be read; the message names the file.
        """
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        number = self._number(place)
        raw = self._store.read(number)
        with located(self._store.path_of(number)):
            return self._decode(raw.key, raw.members)

    def record(self, place: int | str) -> Sample:
        """Return one sample's members as stored in the shard, undecoded."""
        return self._store.read(self._number(place))

    def _number(self, place: int | str) -> int:
        if isinstance(place, str):
            return self._store.find(place)
        return range(len(self))[place]  # counts negative ones from the end, and raises IndexError
