"""The samples of a dataset in an epoch's order, for training."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Unpack

from loaders._shards.order import SampleOrder
from loaders._shards.readers import LocalReader, Reader, StreamReader
from loaders._shards.sources import Source, resolve
from loaders._shards.split import Remainder, Share
from loaders._shards.store import LocalShards
from loaders.decode import Decoder, Decoding
from loaders.epochs import EpochDataset
from loaders.manifest import Manifest
from loaders.ranks import resolve_rank
from loaders.skips import OnError, Skips
from loaders.tarstream import DEFAULT_MAX_BYTES
from loaders.transforms import Transform


class ShardDataset(EpochDataset):
    """Samples from shards, in an order that seed and epoch give, shared out over ranks and DataLoader workers.

    Local shards are read at any place: the order is a permutation of all samples. Streamed ones (URLs) are read from
    their starts: their order is permuted, and samples are mixed within a buffer. Every sample comes exactly once an
    epoch, over all ranks and workers together (see `remainder`).

    `loaders.Loader` makes batches of it and resumes in the middle of an epoch. With a plain DataLoader, which can do
    neither that nor count epochs, call `set_epoch` before each epoch. torchdata's StatefulDataLoader resumes by way of
    `state_dict`.

    Args:
        source: a dataset's directory or manifest, a ``.tar``, a brace pattern, a URL as webdataset opens it
            (``http:``, ``gs:``, ``pipe:`` ...), or a list of these. ``pipe:`` runs a command: never from data.
        split: take the shards of this split alone.
        shuffle: False gives the shards' own order (streams: lane by lane, see docs/reference/loading.md).
        seed: any integer. The same seed, epoch and shards give the same order.
        window: mix the samples of so many shards at a time instead of all; for disks that are slow to seek.
        buffer: for streams, the samples held to be mixed, in each worker.
        transform: gets each sample (see `loaders.Decoder`) and returns what is to be used in its place; None leaves
            the sample out. It gets the epoch as well, if it has a parameter `epoch`.
        rank: which process this is of `world_size`; by default torch.distributed's, RANK's and WORLD_SIZE's, or the
            only one. Fixed when the dataset is made.
        world_size: see `rank`.
        remainder: "keep" gives every sample exactly once, and ranks may differ by one sample; "pad" repeats the
            epoch's first samples, "drop" leaves out its last, so that all ranks have equally many.
        on_error: "raise", or "skip" to leave out what cannot be read, warn of it and count it in `skipped`.
        verify: compare sha256 with the manifest: local shards before the first sample, streamed ones as they pass.
        manifest: of streamed shards that are given one by one, or of files with none beside them.
        max_bytes: largest sample that is read.
        decoding: what `Decoder` takes: ``image_layout``, ``output``, ``integers``, ``floats``, ``members``,
            ``max_pixels``.

    Raises:
        ManifestError: there is no valid manifest where one is needed.
        ShardError: a local shard is missing or not as long as its manifest says; there is no shard to read. While
            iterating: a shard is damaged, or a sample cannot be decoded.
    """

    def __init__(
        self,
        source: Source,
        *,
        split: str | None = None,
        shuffle: bool = True,
        seed: int = 0,
        window: int | None = None,
        buffer: int = 500,
        transform: Transform | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        remainder: Remainder = "keep",
        on_error: OnError = "raise",
        verify: bool = False,
        manifest: Manifest | str | Path | None = None,
        max_bytes: int = DEFAULT_MAX_BYTES,
        **decoding: Unpack[Decoding],
    ) -> None:
        share = Share(*resolve_rank(rank, world_size), remainder)
        decode = Decoder(**decoding)
        skips = Skips(on_error)
        reader: Reader[Any]
        shards = resolve(source, split=split, manifest=manifest)
        if shards[0].streamed:
            reader = StreamReader(
                shards, skips, seed=seed, shuffle=shuffle, buffer=buffer, verify=verify, max_bytes=max_bytes
            )
        else:
            lenient = skips.report if skips.lenient else None
            store = LocalShards(shards, lenient=lenient, verify=verify, max_bytes=max_bytes)
            skips.add(store.damaged_uncounted)  # at least one sample each
            order = SampleOrder(store.counts, seed=seed, shuffle=shuffle, window=window)
            reader = LocalReader(store, order, skips)
        super().__init__(reader, share, skips, decode, transform)
