"""Check a dataset against its manifest without rendering: every byte, and what the bytes mean.

Each shard is read once. Its sha256 tells whether it is what was written; the walk through its samples tells where it
is not, and holds healthy bytes to the schema and the plan as well.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path, PurePosixPath

from compiler.errors import Incomplete, UsageError, VerificationFailed
from compiler.planning.annotation_schema import manifest_problem
from compiler.planning.plan import Plan
from compiler.proof.planned import Due, plan_of, samples_due
from compiler.proof.shard_walk import Problem, ShardReport, Tap, Walk
from compiler.proof.structure import SampleChecker
from compiler.storage import sources
from loaders.manifest import FILE_NAME, Manifest, ManifestError, ShardInfo, shard_of

_WORTH_PROCESSES = 32 << 20
"""Bytes below which one process is done before others have started."""

_RECORDED = "recorded"
"""In the provenance of a recording: its samples stand in the order of arrival, not in the plan's."""


def load_manifest(folder: Path) -> Manifest:
    """Return the manifest of the dataset in `folder`.

    Raises:
        UsageError: there is none that can be read.
    """
    try:
        return Manifest.load(folder)
    except ManifestError as error:
        raise UsageError(str(error), "give the directory that compile-dataset wrote") from None


def intact_manifest(folder: Path) -> Manifest:
    """Return the manifest of the dataset in `folder`.

    Raises:
        UsageError: there is no dataset.
        VerificationFailed: its manifest is not as it was written.
    """
    if not (folder / FILE_NAME).is_file():
        return load_manifest(folder)
    try:
        return Manifest.load(folder)
    except ManifestError as error:
        raise VerificationFailed(
            str(error), "restore it from a copy, or render the dataset anew with --fresh"
        ) from None


class Verifier:
    """Checks the shards of one dataset."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self.problems: list[Problem] = []
        """What is wrong with the manifest and the copies of the job's sources."""
        self._plan = self._read_plan()
        self._check_sources()
        self._checker: SampleChecker | None = None
        if problem := manifest_problem(json.loads(manifest.to_json())):
            self._blame_manifest(problem)
        else:
            self._checker = SampleChecker(manifest.schema, self._plan.seed if self._plan else None)
            self._check_members()

    def examine(self, shard: ShardInfo) -> ShardReport:
        """Read one shard to its end and return what is wrong with it."""
        report = ShardReport(shard.name, shard.bytes)
        report.problems += self._misnumbered(shard)
        due: list[Due] = []
        if self._plan is not None and not report.problems:
            due = samples_due(self._plan, shard.number, self.manifest.skipped)
        try:
            with (self.folder / shard.name).open("rb") as file:
                Walk(shard, due, self._checker, Tap(file), report).run()
        except OSError as error:
            report.problems.append(Problem(shard.name, str(error.strerror or error)))
        return report

    def _misnumbered(self, shard: ShardInfo) -> Iterator[Problem]:
        """Yield where the manifest's entry is not as the plan has it."""
        if self._plan is None:
            return
        lacking = sum(1 for key in self.manifest.skipped if shard_of(key) == shard.number)
        for what, found, planned in (
            ("name", shard.name, self._plan.shard_name(shard.number)),
            ("samples", shard.samples, self._plan.samples_per_shard - lacking),
        ):
            if found != planned:
                yield Problem(FILE_NAME, f"shard {shard.number}: {what} is {found}, not {planned}")

    def _read_plan(self) -> Plan | None:
        if _RECORDED in self.manifest.provenance:
            return None
        try:
            return plan_of(self.manifest)
        except ValueError as error:
            self._blame_manifest(str(error))
            return None

    def _check_sources(self) -> None:
        """Hold the job's files beside the shards to their digests. A copy of the dataset may well lack them."""
        job = self.manifest.provenance.get("job")
        digests = job.get("sources") if isinstance(job, dict) else None
        for name, sha256 in sorted(digests.items()) if isinstance(digests, dict) else ():
            place = PurePosixPath(sources.FOLDER, name)
            if ".." in place.parts or place.parts[0] != sources.FOLDER or not (self.folder / place).is_file():
                continue
            if hashlib.sha256((self.folder / place).read_bytes()).hexdigest() != sha256:
                self.problems.append(Problem(str(place), "its sha256 is not the one in the manifest's provenance"))

    def _check_members(self) -> None:
        """Hold the schema's members to the plan's."""
        if self._plan is None:
            return
        found, planned = self.manifest.schema["members"], self._plan.members()
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
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, context, initializer=_begin, initargs=(verifier,))
    try:
        yield from pool.map(_examine, range(len(shards)))
    except BrokenProcessPool:
        raise Incomplete("a process that read shards was killed", "give fewer --jobs, if memory is short") from None
    finally:
        pool.shutdown(cancel_futures=True)


_verifier: Verifier
"""Of a process that reads shards."""


def _begin(verifier: Verifier) -> None:
    global _verifier
    _verifier = verifier
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asked


def _examine(at: int) -> ShardReport:
    return _verifier.examine(_verifier.manifest.shards[at])
