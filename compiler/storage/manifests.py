"""A dataset that a user names: by its directory, or by its manifest."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from compiler.errors import UsageError
from loaders.manifest import Manifest, ManifestError


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
        raise UsageError(str(error), "give the directory that compile-dataset wrote") from None
