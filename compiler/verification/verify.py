"""Check a dataset against its manifest without rendering: every byte, and what the bytes mean.

Each shard is read once. Its sha256 tells whether it is what was written; the walk through its samples tells where it
is not, and holds healthy bytes to the schema and the plan as well.
"""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from compiler.errors import Incomplete, VerificationFailed
from compiler.planning.document import source_digests
from compiler.planning.plan import members_of
from compiler.planning.schemas import manifest_problem
from compiler.process_control import die_with_pool
from compiler.storage import sources
from compiler.storage.published import load_manifest, open_shard
from compiler.verification.findings import Problem, ShardReport
from compiler.verification.shard import SampleChecker, Tap, Walk
from loaders.children import safe_path
from loaders.files import read_regular
from loaders.format import SPLIT
from loaders.layout import PlannedSample, ShardLayout
from loaders.manifest import FILE_NAME, Manifest, ManifestError, ShardInfo

_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
"""A copy of the dataset may well lack its sources; no file can have a name that is too long."""

_WORTH_PROCESSES = 32 << 20
"""Bytes below which one process is done before others have started."""


def intact_manifest(dataset: Path) -> Manifest:
    """Return the manifest of a dataset that is named by its directory or by the manifest itself.

    Raises:
        UsageError: there is no dataset.
        VerificationFailed: its manifest is not as it was written.
    """
    if not _is_there(dataset):
        return load_manifest(dataset)
    try:
        return Manifest.load(dataset)
    except ManifestError as error:
        raise VerificationFailed(
            str(error), "restore it from a copy, or render the dataset again with --fresh"
        ) from None


def _is_there(dataset: Path) -> bool:
    with suppress(OSError):
        return dataset.is_file() or (dataset / FILE_NAME).is_file()
    return False


class Verifier:
    """Checks the shards of one dataset."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self.problems: list[Problem] = []
        """What is wrong with the manifest and the copies of the job's sources."""
        self._layout = self._read_layout()
        self._lacking = Counter(key.shard for key in manifest.skipped_keys)
        self._check_names()
        self._check_skipped()
        self._check_sources()
        self._checker: SampleChecker | None = None
        if problem := manifest_problem(manifest.as_json()):
            self._blame_manifest(problem)
        else:
            self._checker = SampleChecker(manifest.schema, self._layout.seed if self._layout else None)
            self._check_members()

    def examine(self, shard: ShardInfo) -> ShardReport:
        """Read one shard to its end and return what is wrong with it."""
        report = ShardReport(shard.name, shard.bytes)
        report.problems += self._misnumbered(shard)
        due: list[PlannedSample] = []
        if self._layout is not None and not report.problems:
            due = self._layout.samples(shard.number, self.manifest.skipped)
        try:
            with open_shard(self.folder / shard.name) as file:
                Walk(shard, due, self._checker, Tap(file, shard.bytes), report).run()
        except OSError as error:
            report.problems.append(Problem(shard.name, str(error.strerror or error)))
        return report

    def _misnumbered(self, shard: ShardInfo) -> Iterator[Problem]:
        """Yield where the manifest's entry is not as the plan has it."""
        if self._layout is None:
            return
        for what, found, planned in (
            ("name", shard.name, self._layout.shard_name(shard.number)),
            ("split", shard.split, SPLIT),
            ("samples", shard.samples, self._layout.samples_per_shard - self._lacking[shard.number]),
        ):
            if found != planned:
                yield Problem(FILE_NAME, f"shard {shard.number}: {what} is {found}, not {planned}")

    def _read_layout(self) -> ShardLayout | None:
        if self.manifest.recorded:
            return None
        try:
            layout = ShardLayout.parse(self.manifest.plan)
            members_of(layout)  # an unknown pass
        except ValueError as error:
            self._blame_manifest(f"the plan cannot be read: {error}")
            return None
        return layout

    def _check_names(self) -> None:
        if self._layout is not None and self.manifest.name != self._layout.name:
            self._blame_manifest(f"name is {self.manifest.name!r}, in the plan {self._layout.name!r}")

    def _check_skipped(self) -> None:
        """Only a shard that is there can lack samples, and only some that the plan gives it."""
        if strange := self._lacking.keys() - {shard.number for shard in self.manifest.shards}:
            self._blame_manifest(f"skipped: there is no shard {min(strange)}")
        if self._layout is None:
            return
        for key in sorted(self.manifest.skipped_keys):
            if key.sample >= self._layout.samples_per_shard:
                self._blame_manifest(f"skipped: {key} is not a sample of the plan")

    def _check_sources(self) -> None:
        """Check the copies of the job's files against their digests. A copy of the dataset may well lack them."""
        for name, sha256 in sorted(source_digests(self.manifest).items()):
            place = PurePosixPath(sources.FOLDER, name)
            if ".." in place.parts or place.parts[0] != sources.FOLDER:
                continue
            try:
                content = read_regular(self.folder / place, sources.MOST_BYTES)
                if hashlib.sha256(content).hexdigest() != sha256:
                    self.problems.append(Problem(str(place), "its sha256 is not the one in the manifest's provenance"))
            except ValueError:
                pass  # no file can have a name with a zero
            except OSError as error:
                if error.errno not in _NOT_THERE:
                    self.problems.append(Problem(str(place), str(error.strerror or error)))

    def _check_members(self) -> None:
        """Check the schema's members against the plan's."""
        if self._layout is None:
            return
        found, planned = self.manifest.members, members_of(self._layout)
        for name in sorted(found.keys() | planned.keys()):
            shown = [[entry.get(name, {}).get(what) for what in ("dtype", "shape")] for entry in (found, planned)]
            if (name in found) != (name in planned) or shown[0] != shown[1]:
                self._blame_manifest(f"schema.members: {name!r} is not as the plan has it")

    def _blame_manifest(self, what: str) -> None:
        self.problems.append(Problem(FILE_NAME, what))


def examine_all(verifier: Verifier, jobs: int) -> Iterator[ShardReport]:
    """Yield the report of each shard in the manifest's order; up to `jobs` processes read them.

    Processes, not threads: parsing and checking annotations holds Python's lock.

    Raises:
        Incomplete: one of the processes was killed.
    """
    shards = verifier.manifest.shards
    jobs = min(jobs, len(shards)) if verifier.manifest.bytes >= _WORTH_PROCESSES else 1
    if jobs <= 1:
        yield from map(verifier.examine, shards)
        return
    others = set(multiprocessing.active_children())
    spawn = multiprocessing.get_context("spawn")
    with safe_path():
        pool = ProcessPoolExecutor(jobs, spawn, initializer=_begin, initargs=(verifier,))
    try:
        with _interrupts_ignored(), safe_path():
            reports = pool.map(_examine, range(len(shards)))
        yield from reports
    except BrokenProcessPool:
        raise Incomplete("a process that read shards was killed", "use fewer --jobs if memory is short") from None
    except BaseException:  # interrupted, or the caller has stopped: do not read a large shard to its end
        for process in set(multiprocessing.active_children()) - others:
            process.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Let only this process handle Ctrl-C: those started meanwhile ignore it from their first instruction."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


_verifier: Verifier
"""Of a process that reads shards."""


def _begin(verifier: Verifier) -> None:
    global _verifier
    _verifier = verifier
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where it is not inherited
    die_with_pool()


def _examine(at: int) -> ShardReport:
    return _verifier.examine(_verifier.manifest.shards[at])
