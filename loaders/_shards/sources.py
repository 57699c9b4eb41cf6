"""The shards of a path, a brace pattern or URLs, what their manifest says about each, and how a URL is opened."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from subprocess import Popen, TimeoutExpired
from typing import Any
from urllib.parse import urljoin, urlparse
from urllib.request import url2pathname

from braceexpand import braceexpand

from loaders.errors import ShardError, located
from loaders.format import shard_file_in
from loaders.manifest import FILE_NAME, MOST_BYTES, Manifest, ManifestError, ShardInfo
from loaders.tarstream import Readable, TarStreamError

Source = str | Path | Sequence[str | Path]

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
_GOOD_EXITS = (None, 0, 23, 141, -13, -9)
"""Exit statuses of commands that succeeded or were cut off by us (curl, the shell, SIGPIPE, SIGKILL)."""

_PATIENCE_SECONDS = 2.0
"""How long a command may take to notice that its output is closed."""


@dataclass(frozen=True)
class Shard:
    """One tar file and, if a manifest lists it, what it says."""

    location: str
    """A path, or a URL as webdataset opens it."""
    info: ShardInfo | None = None
    members: frozenset[str] | None = None
    """The names of each sample's members, if a manifest says."""

    @property
    def streamed(self) -> bool:
        """Whether it can only be read from start to end."""
        return is_url(self.location)


def is_url(location: str) -> bool:
    """Return whether `location` goes to webdataset's openers: ``http:``, ``pipe:``, ``gs:`` ... but not ``C:``."""
    return bool(_URL.match(location)) and not location.startswith("file:")


def _as_location(path: Path) -> str:
    """Return a path that cannot be taken for a URL, even if its first folder is called ``pipe:data``."""
    return f"./{path}" if is_url(str(path)) else str(path)


def resolve(source: Source, *, split: str | None = None, manifest: Manifest | str | Path | None = None) -> list[Shard]:
    """Return the shards of `source`, in order.

    Args:
        source: a dataset's directory or its manifest (as a path or a URL), a ``.tar``, a brace pattern of these
            (``data/cubes-train-{000000..000099}.tar``), a URL that webdataset opens, or a list of these. What begins
            with a scheme (``pipe:data``) is a URL if it is a string, and a path if it is a `Path`.
        split: read only the shards of this split. Needs a manifest.
        manifest: the shards' manifest, if it is not in their folder.

    Raises:
        ShardError: there are no shards, no such split, or both files and URLs; a string could be a path or a URL.
        ManifestError: a manifest is needed and missing, or not valid.
    """
    known = {} if manifest is None else _by_name(manifest)
    given = [source] if isinstance(source, str | Path) else list(source)
    shards = [shard for one in given for shard in _expand(one, known)]
    if split is not None:
        shards = _of_split(shards, split)
    if not shards:
        raise ShardError(f"{_shown(source)} holds no finished shard")
    if len({shard.streamed for shard in shards}) > 1:
        raise ShardError(f"{_shown(source)} mixes files and URLs; pass either files or URLs")
    return shards


def _shown(source: Source) -> str:
    return str(source) if isinstance(source, str | Path) else ", ".join(map(str, source))


def listed(manifest: Manifest) -> dict[str, Shard]:
    """Return a manifest's shards by name, in order, each at its bare name."""
    members = frozenset(manifest.members) or None
    return {info.name: Shard(info.name, info, members) for info in manifest.shards}


def _by_name(manifest: Manifest | str | Path) -> dict[str, Shard]:
    return listed(manifest if isinstance(manifest, Manifest) else Manifest.load(manifest))


def _at(location: str, shard: Shard | None) -> Shard:
    return Shard(location) if shard is None else replace(shard, location=location)


def _expand(source: str | Path, known: Mapping[str, Shard]) -> list[Shard]:
    location = str(source)
    if location.startswith("file:"):
        location = url2pathname(urlparse(location).path)
    elif isinstance(source, str) and is_url(location):
        _check_that_no_path_is_meant(location)
        return _expand_url(location, known)
    path = Path(location)
    if path.is_dir() or path.name == FILE_NAME:
        folder = path if path.is_dir() else path.parent
        return [_at(_as_location(folder / name), shard) for name, shard in _by_name(path).items()]
    paths = [path] if path.exists() else [Path(name) for name in _braces(location)]
    listed_in = {folder: _listed_in(folder) for folder in {path.parent for path in paths}}
    return [_at(_as_location(path), known.get(path.name, listed_in[path.parent].get(path.name))) for path in paths]


def _check_that_no_path_is_meant(url: str) -> None:
    """Refuse a URL that could be a path: a folder's name must not run as a command.

    Raises:
        ShardError: a file or folder has the name that `url` begins with.
    """
    first = Path(url).parts[0]
    try:
        is_here = "://" not in url and Path(first).exists()
    except OSError:  # a command that is too long for a name
        return
    if is_here:
        raise ShardError(f"{url} is read as a URL, but there is a file or folder {first}; write ./{url} for the path")


def _listed_in(folder: Path) -> Mapping[str, Shard]:
    return _by_name(folder) if (folder / FILE_NAME).is_file() else {}


def _braces(pattern: str) -> list[str]:
    if "{" not in pattern:
        return [pattern]  # braceexpand would remove its backslashes
    try:
        return list(braceexpand(pattern))
    except ValueError as error:  # a brace without its partner
        raise ShardError(f"{pattern}: {error}") from None


def _expand_url(url: str, known: Mapping[str, Shard]) -> list[Shard]:
    if not url.startswith("pipe:") and url.endswith(("/", f"/{FILE_NAME}")):
        url = urljoin(url, FILE_NAME)
        return [_at(urljoin(url, name), shard) for name, shard in listed(_manifest_at(url)).items()]
    return [_at(one, known.get(shard_file_in(one))) for one in _braces(url)]


def _manifest_at(url: str) -> Manifest:
    try:
        with opened(url) as stream:
            content = stream.read(MOST_BYTES + 1)
    except ShardError as error:
        raise ManifestError(f"no dataset at {error}") from None
    if len(content) > MOST_BYTES:
        raise ManifestError(f"no dataset at {url}: more than {MOST_BYTES} bytes")
    return Manifest.from_json(content, url)


def _of_split(shards: list[Shard], split: str) -> list[Shard]:
    if unknown := [shard.location for shard in shards if shard.info is None]:
        raise ShardError(f"{unknown[0]}: its split is unknown without a manifest; pass manifest= or leave out split=")
    chosen = [shard for shard in shards if shard.info and shard.info.split == split]
    if not chosen:
        splits = sorted({shard.info.split for shard in shards if shard.info})
        raise ShardError(f"no shard of split {split!r}; there is {', '.join(splits) or 'none'}")
    return chosen


@contextmanager
def opened(url: str) -> Iterator[Readable]:
    """Open `url` as webdataset does.

    Raises:
        ShardError: it cannot be opened, or reading fails (a missing page, a command's exit status).
    """
    import webdataset  # slow to import, and only streams need it

    with located(url):
        try:
            stream = webdataset.gopen(url)
        except ValueError as error:  # no opener for the scheme
            raise ShardError(str(error)) from None
    try:
        # webdataset's Pipe checks its command at each read, so whether the last bytes of a failing command are read is
        # a race. Its inner stream has no such checks; the command's exit status is checked at the end.
        yield getattr(stream, "stream", stream)
        stream.close()
    except (TarStreamError, OSError) as error:
        raise ShardError(f"{url}: {_reason(stream, error)}") from None
    except BaseException:
        _end(stream)
        raise


def _reason(stream: Any, error: Exception) -> str:
    """Close a stream that failed and return why: its command's exit status says more than that bytes are missing."""
    status = _end(stream)
    problem = "" if isinstance(error, OSError) else str(error)
    ended = f"the command that reads it ended with exit status {status}" if status not in _GOOD_EXITS else ""
    return "; ".join(filter(None, [problem, ended])) or str(error)


def _end(stream: Any) -> int | None:
    """Close a stream early and return its command's exit status, if it has one; kill a command that hangs."""
    command: Popen[bytes] | None = getattr(stream, "proc", None)
    if command is None:
        stream.close()
        return None
    stream.stream.close()
    try:
        return command.wait(_PATIENCE_SECONDS)
    except TimeoutExpired:
        command.kill()
        return command.wait()
