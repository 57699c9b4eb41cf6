"""Train from shards and from the live tee. Names are imported when first used, so reading a manifest needs no torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loaders._batches import collate as collate
    from loaders._dataset import ShardDataset as ShardDataset
    from loaders._decode import Decoder as Decoder
    from loaders._depth_cameras import KinectAzure as KinectAzure
    from loaders._depth_cameras import RealSense as RealSense
    from loaders._indexed import IndexedShards as IndexedShards
    from loaders._live import LiveDataset as LiveDataset
    from loaders._live_then_shards import LiveThenShards as LiveThenShards
    from loaders._loader import Loader as Loader
    from loaders._tee.recording import finish_recording as finish_recording
    from loaders._tee.recording import rebuild_shards as rebuild_shards
    from loaders.errors import LiveError as LiveError
    from loaders.errors import SampleError as SampleError
    from loaders.errors import ShardError as ShardError
    from loaders.errors import SkipWarning as SkipWarning
    from loaders.manifest import Manifest as Manifest
    from loaders.manifest import ManifestError as ManifestError

_HOMES = {
    "Decoder": "loaders._decode",
    "IndexedShards": "loaders._indexed",
    "KinectAzure": "loaders._depth_cameras",
    "LiveDataset": "loaders._live",
    "LiveError": "loaders.errors",
    "LiveThenShards": "loaders._live_then_shards",
    "Loader": "loaders._loader",
    "Manifest": "loaders.manifest",
    "ManifestError": "loaders.manifest",
    "RealSense": "loaders._depth_cameras",
    "SampleError": "loaders.errors",
    "ShardDataset": "loaders._dataset",
    "ShardError": "loaders.errors",
    "SkipWarning": "loaders.errors",
    "collate": "loaders._batches",
    "finish_recording": "loaders._tee.recording",
    "rebuild_shards": "loaders._tee.recording",
}

__all__ = [
    "Decoder",
    "IndexedShards",
    "KinectAzure",
    "LiveDataset",
    "LiveError",
    "LiveThenShards",
    "Loader",
    "Manifest",
    "ManifestError",
    "RealSense",
    "SampleError",
    "ShardDataset",
    "ShardError",
    "SkipWarning",
    "collate",
    "finish_recording",
    "rebuild_shards",
]


_EXTRA = ("braceexpand", "torch", "webdataset")
"""The packages of the extra ``loaders``."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        from loaders.installing import install_command

        what = f"loaders.{name} needs {error.name}, part of the extra 'loaders'; try: {install_command('loaders')}"
        raise ModuleNotFoundError(what, name=error.name) from None


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
