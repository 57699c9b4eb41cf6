"""What is at a place already: a dataset of this plan or of another, how the plans differ, and what would be lost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from blender_jobs.orders import Asset
from compiler.errors import OtherPlan, UsageError
from compiler.planning.document import source_digests
from compiler.planning.plan import Plan, differences
from compiler.storage import failures, sources
from compiler.storage.journal import JOURNAL_SUFFIX, read_entries
from compiler.terminal import counted
from loaders.files import PART_SUFFIX, strange_entry
from loaders.layout import shown
from loaders.manifest import FILE_NAME, Manifest, ManifestError


@dataclass(frozen=True)
class Remains:
    """Finished shards, and whole episodes of shards that were begun."""

    shards: int
    """Finished: the manifest knows them."""
    samples: int
    """In these."""
    begun: int
    """Shards of which whole episodes are kept."""
    kept: int
    """Samples in these."""
    unknown: int
    """Further .tar files, of which nothing tells what they are."""
    failed_in: int | None
    """The episode in which the job failed, and which no later build got past; None: in none."""

    @property
    def of_use(self) -> bool:
        """Whether a build could continue it.

        A job that fails stops every build of its plan at the same episode: the plan is given up with the job.
        """
        return bool(self.shards or self.unknown or (self.kept and self.failed_in is None))

    def __str__(self) -> str:
        finished = f"{counted(self.shards, 'finished shard')} with {counted(self.samples, 'sample')}"
        begun = f"{counted(self.begun, 'shard')} begun, with {counted(self.kept, 'sample')} in whole episodes"
        unknown = f"{counted(self.unknown, '.tar file')} that the manifest does not know"
        found = [finished] * bool(self.shards) + [begun] * bool(self.begun) + [unknown] * bool(self.unknown)
        return ", and ".join(found) or "nothing whole"


def _find_remains(folder: Path, manifest: Manifest) -> Remains:
    """Return what is there of the dataset that the manifest describes.

    Raises:
        OSError: it cannot be read.
    """
    known = {shard.name for shard in manifest.shards}
    journals = _journals(folder, manifest.plan_digest)
    begun = {name: keys for name, keys in journals if keys and name not in known}
    whole = {key for keys in begun.values() for key in keys}
    unknown = sum(path.name not in known and path.name not in begun for path in folder.glob("*.tar"))
    return Remains(len(known), manifest.samples, len(begun), len(whole), unknown, _failed_in(folder, whole))


def _journals(folder: Path, plan_digest: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each shard's name, and the keys of the samples that its journal says are whole."""
    for path in sorted(folder.glob(f"*.tar{JOURNAL_SUFFIX}")):
        entries = read_entries(path, plan_digest)
        yield path.name.removesuffix(JOURNAL_SUFFIX), [k for entry in entries if not entry.skipped for k in entry.keys]


def _failed_in(folder: Path, whole: set[str]) -> int | None:
    """Return where the job failed, unless a later run got past it: then the cause was temporary."""
    for entry in failures.read(folder):
        key, episode = entry.get("sample"), entry.get("episode")
        if entry.get("what") != failures.JOB_FAILED or not isinstance(key, str) or not isinstance(episode, int):
            continue
        if key not in whole:
            return episode
    return None


_INSTALLATION = ("blender.", "render.settings.", "code_sha256")
"""What of a plan's identity comes with the installation, not from the user: paths begin so."""

_MORE = 3
"""Differences that are spelled out after the first."""


def changes(plan: Plan, manifest: Manifest) -> tuple[list[str], list[str]]:
    """Return phrases for all that differs: first what is the user's, files before values; then the installation.

    Args:
        plan: as it is drawn up now.
        manifest: the dataset's, which holds the plan as it was.
    """
    values, installation = [], []
    for name, now, then in differences(plan.identity(), manifest.plan):
        if name == "code_sha256":
            installation.append("the rendering code of this installation differs")
        elif name.startswith(_INSTALLATION):
            installation.append(f"{name} was {shown(then)}, is {shown(now)}")
        elif name != "job.source_sha256" and not name.startswith("assets."):
            values.append(f"{name} was {shown(then)}, is {shown(now)}")
    return [*_sources(plan, manifest), *_assets(plan, manifest), *values], installation


def summarize(phrases: Sequence[str]) -> str:
    """Return the phrases as one, the first of them spelled out and a few more."""
    first, *others = phrases
    if not others:
        return first
    return f"{first}, and {len(others)} more: {'; '.join(others[:_MORE])}{'; ...' * (len(others) > _MORE)}"


def when(path: Path) -> str:
    """Return when a file was written, in local time; empty where it is not there."""
    try:
        return f"{datetime.fromtimestamp(path.stat().st_mtime):%Y-%m-%d %H:%M:%S}"
    except (OSError, OverflowError, ValueError):
        return ""


def _sources(plan: Plan, manifest: Manifest) -> list[str]:
    was = manifest.plan.get("job")
    if not isinstance(was, dict) or plan.job.source_sha256 == was.get("source_sha256"):
        return []
    then = source_digests(manifest)
    found = list(_files(plan.job.sources, then, "the job file", "module")) if then else []
    return found or [f"the job file {plan.source.path} has changed ({when(Path(plan.source.path))})"]


def _assets(plan: Plan, manifest: Manifest) -> Iterator[str]:
    then = manifest.plan.get("assets")
    yield from _files(plan.job.assets, then if isinstance(then, dict) else {}, "the asset", "asset")


def _files(now: list[Asset], then: Mapping[str, Any], first: str, kind: str) -> Iterator[str]:
    """Yield which files have changed; the first of them, where it is a job's, is the job file itself."""
    for at, file in enumerate(now):
        what = first if at == 0 else f"the {kind}"
        if file.name not in then:
            yield f"the {kind} {file.path} is new"
        elif file.sha256 != then[file.name]:
            yield f"{what} {file.path} has changed ({when(Path(file.path))})"
    for name in sorted(then.keys() - {file.name for file in now}):
        yield f"the {kind} {name} is no longer used"


LOCK_NAME = ".lock"


def _is_written_in_place(name: str) -> bool:
    """Tell whether a file of this name is one that we write to where it lies."""
    whole = name.removesuffix(PART_SUFFIX)
    if whole in (FILE_NAME, failures.FILE_NAME, LOCK_NAME) or whole.endswith(f".tar{JOURNAL_SUFFIX}"):
        return True
    return whole != name and whole.endswith(".tar")


def _check_places(path: Path) -> None:
    """Refuse what we must not write to: above all links, as what they point to is not ours.

    A finished shard may be a link: it is read, or replaced as a whole.

    Raises:
        UsageError: there is a link, a folder or a pipe.
    """
    try:
        strange = strange_entry(path, _is_written_in_place)
        if (path / sources.FOLDER).is_symlink():
            strange = strange or (sources.FOLDER, "link")
    except OSError as error:
        raise not_writable(path, error) from None
    if strange:
        name, kind = strange
        raise UsageError(
            f"{path / name} is a {kind}, where a file of the dataset must go",
            "move it away, or name another place with --out",
        )


@dataclass(frozen=True)
class Found:
    """A dataset that is there already."""

    manifest: Manifest
    started_over: str = ""
    """Why a build starts it over, though nobody asked for that, in a line; empty: it goes on with it."""


def peek(path: Path, plan: Plan, fresh: bool | None) -> Found | None:
    """Return what is at `path` if it is a dataset of `plan` (of any, where `fresh`), None if it is free.

    A dataset of another plan that is of no more use is started over: see `Remains.of_use`.

    Raises:
        UsageError, OtherPlan: as `open_directory`.
    """
    if not path.exists():
        return None
    if not path.is_dir():
        raise UsageError(f"{path} is not a directory", "name another place with --out")
    _check_places(path)
    if not (path / FILE_NAME).exists():
        ours = (LOCK_NAME, f"{FILE_NAME}{PART_SUFFIX}")  # a compiler that was killed at once leaves them
        if others := sorted(entry.name for entry in path.iterdir() if entry.name not in ours):
            raise UsageError(f"{path} holds something else ({others[0]})", "name another place with --out")
        return None
    try:
        manifest = Manifest.load(path)
    except ManifestError as error:
        raise UsageError(str(error), "move it away, or name another place with --out") from None
    if fresh or not list(differences(plan.identity(), manifest.plan)):
        return Found(manifest)
    try:
        left = _find_remains(path, manifest)
    except OSError as error:
        raise not_writable(path, error) from None
    chosen, installation = changes(plan, manifest)  # what the user has changed comes before the installation's
    changed = summarize([*chosen, *installation])
    if not left.of_use:
        return Found(manifest, _started_over(path, left, changed))
    start_over = "" if fresh is None else f", or start over with --fresh, which removes {left}"
    raise OtherPlan(
        f"{path} holds another plan, last rendered {when(path / FILE_NAME)}: {changed}",
        f"name another place with --out to keep both{start_over}",
    )


def _started_over(path: Path, left: Remains, changed: str) -> str:
    """Return the note on a dataset of another plan that a build starts over."""
    if left.kept:
        return (
            f"{path} holds another plan ({changed}), whose job failed in episode {left.failed_in} with no shard"
            f" finished: a build starts it over and removes {left}"
        )
    return f"{path} holds another plan ({changed}) and {left}: a build starts it over"


def not_writable(path: Path, error: OSError) -> UsageError:
    """Return what to tell the user when a directory cannot be written."""
    return UsageError(f"cannot write to {path}: {error.strerror}", "name another place with --out")
