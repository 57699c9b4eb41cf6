"""Check a dataset against its manifest, and say which file is damaged and where."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from compiler.content import IMAGES, decode_image
from compiler.directory import shard_problem
from compiler.errors import UsageError
from loaders.manifest import Manifest, ManifestError, ShardInfo
from loaders.tarstream import TarStreamError, read_samples


def load_manifest(folder: Path) -> Manifest:
    """Return the manifest of the dataset in `folder`.

    Raises:
        UsageError: there is none that can be read.
    """
    try:
        return Manifest.load(folder)
    except ManifestError as error:
        raise UsageError(str(error), "give the directory that compile-dataset wrote") from None


def verify(folder: Path, manifest: Manifest) -> Iterator[tuple[ShardInfo, str]]:
    """Yield each shard with what is wrong with it: empty where its file is as it was written."""
    for shard in manifest.shards:
        problem = shard_problem(folder, shard)
        if problem and (place := _where(folder / shard.name)):
            problem = f"{problem}; {place}"
        yield shard, problem


def strangers(folder: Path, manifest: Manifest) -> list[str]:
    """Return the names of shards in the folder that the manifest does not know."""
    known = {shard.name for shard in manifest.shards}
    return sorted(path.name for path in folder.glob("*.tar") if path.name not in known)


def _where(path: Path) -> str:
    """Return the first place where a damaged shard shows it, empty where only its digest does."""
    key = ""
    try:
        with path.open("rb") as file:
            for sample in read_samples(file):
                key = sample.key
                for name in sorted(IMAGES & set(sample.members)):
                    decode_image(sample.members[name])
    except TarStreamError as error:
        return f"after sample {key}: {error}" if key else str(error)
    except ValueError as error:
        return f"sample {key}: {error}"
    except OSError:
        return ""
    return ""
