"""One Blender process: start it, ask it, watch it, end it."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

from blender_jobs import orders, wire
from compiler.blender import executable
from compiler.errors import BlenderUnusable, Incomplete, InstanceLost, JobBroken
from compiler.terminal import plain
from loaders.installing import install_command

Kind = TypeVar("Kind", bound=orders.Answer)

_LOG_LINES = 30
"""How much of an instance's output is kept for an error."""

STALL_TIMEOUT_S = 600.0
"""How long a busy instance may be silent by default."""

_SMALL_BYTES = 1 << 18
"""What is always written in one go: where there is no room for it, the disk is full."""

_PARTING_S = 2.0
"""How long an instance may take to end by itself."""

_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)
"""What may pass: too many open files, no memory, too many processes."""

_SHORT = re.compile(r"failed to map segment|cannot allocate memory|MemoryError|cannot create TLS", re.IGNORECASE)
"""What the loader and Python say where a limit of memory keeps a library from being loaded."""

_PROGRESS = re.compile(
    r"Fra:\d+ Mem|^\d\d:\d\d\.\d+ +render +\| (Saved|Time): |^Saved: ['\"]|^ ?Time: \d\d:\d\d\.\d\d \("
)
"""What Blender says of each frame that it renders, in 3.4 to 5: dozens of lines, between those of the job."""


@dataclass(frozen=True)
class InstanceOptions:
    """How instances are started."""

    threads: int
    """Render threads of each."""
    stall_timeout: float
    """Seconds without a message after which a busy instance is given up."""
    echo: bool = False
    """Show on stderr what the job and Blender say, as it comes."""
    progress: bool = False
    """Also show the renderer's progress."""
    blender: str | None = None
    """A Blender executable, or a Python that has the bpy wheel; None: the wheel in this Python."""

    def command(self, scratch: str) -> list[str]:
        """Return the command line of an instance.

        Raises:
            BlenderUnusable: `blender` is no program that can be used.
        """
        return executable.find(self.blender).command(scratch)

    def environment(self, scratch: str) -> dict[str, str]:
        """Return an instance's environment: its share of the threads, and no order that varies with the process.

        A killed Blender leaves its temporary folders: they too go into `scratch`.
        """
        threads = dict.fromkeys(("LP_NUM_THREADS", "OMP_NUM_THREADS"), str(self.threads))
        folders = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), scratch)
        fixed = {"PYTHONHASHSEED": "0", "PYTHONUNBUFFERED": "1", "OPENBLAS_NUM_THREADS": "1"}
        program = executable.find(self.blender).environment(os.environ)
        return {**program, **threads, **folders, **executable.user_folders(scratch), **fixed}


class Instance:
    """A running Blender; as a context manager it is ended with the block.

    Blocking: each belongs to one thread; `kill` and `end` may come from any.

    State: the process, `_deadline` (when a silent instance is given up; infinite while nothing is awaited),
    and the last lines of its log.
    """

    def __init__(self, options: InstanceOptions) -> None:
        """Start the process and hear which Blender it is.

        Raises:
            BlenderUnusable: there is no Blender to start, or it cannot be imported there.
            InstanceLost: it died, hung or said something else.
        """
        self.options = options
        self.episodes = 0
        self._scratch = tempfile.mkdtemp(prefix="blendshard-")
        self._log: deque[str] = deque(maxlen=_LOG_LINES)
        self._deadline = time.monotonic() + options.stall_timeout
        self._stalled = False
        self._over = threading.Event()
        self._process = self._start()
        self._reader = threading.Thread(target=self._keep_log, daemon=True)
        self._reader.start()
        threading.Thread(target=self._watch, daemon=True).start()
        try:
            self.hello = self._hear_hello()
        except BaseException:
            self.end()
            raise

    def __enter__(self) -> Instance:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def describe(self, request: orders.Describe) -> orders.Described:
        """Return what the job is, as this Blender loads it.

        Raises:
            JobBroken: the job cannot be used.
            InstanceLost: the instance is gone.
        """
        self._send(request)
        return self._receive(orders.Described)[0]

    def probe(self, request: orders.Probe) -> orders.Probed:
        """Render one tiny image. Raises as `describe`."""
        self._send(request)
        return self._receive(orders.Probed)[0]

    def survey(self, request: orders.Survey) -> orders.Surveyed:
        """Return what this Blender has. Raises as `describe`."""
        self._send(request)
        return self._receive(orders.Surveyed)[0]

    def render(self, request: orders.Render) -> Iterator[tuple[orders.Rendered, dict[str, bytes]]]:
        """Yield each sample with its members, in the order of the request. Raises as `describe`."""
        self._send(request)
        for episode in request.episodes:
            for entry in episode.samples:
                rendered, payload = self._receive(orders.Rendered)
                if (rendered.key, rendered.frame, rendered.episode) != (entry.key, entry.frame, episode.episode):
                    raise self._lost(f"sent {rendered.key} instead of {entry.key}")
                yield rendered, self._members(rendered, payload)
            self.episodes += 1
        self._receive(orders.Done)

    def kill(self) -> None:
        """End the process at once; a thread that waits for it gets `InstanceLost`."""
        executable.kill(self._process)

    def end(self) -> None:
        """Let the process go: it ends when its stdin closes, and is killed if it does not."""
        self._over.set()
        with suppress(OSError):  # it is gone already
            cast(BinaryIO, self._process.stdin).close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_PARTING_S)
        self.kill()  # even where it has ended: an executable may be a script that started Blender and left it
        self._process.wait()
        self._reader.join(_PARTING_S)
        cast(BinaryIO, self._process.stdout).close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _start(self) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                self.options.command(self._scratch),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self.options.environment(self._scratch),
                start_new_session=True,  # Ctrl-C in the terminal is for the compiler, which ends its instances itself
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
        except BaseException as error:
            shutil.rmtree(self._scratch, ignore_errors=True)
            if isinstance(error, OSError) and error.errno in _SHORTAGES:
                raise InstanceLost(f"could not be started: {error.strerror}") from None
            if isinstance(error, OSError):
                raise BlenderUnusable(f"{error.filename} cannot be run: {error.strerror}") from None
            raise

    def _send(self, request: orders.Request) -> None:
        self._deadline = time.monotonic() + self.options.stall_timeout
        try:
            wire.send(cast(BinaryIO, self._process.stdin), orders.to_head(request))
        except OSError:
            raise self._lost("died") from None

    def _receive(self, kind: type[Kind]) -> tuple[Kind, bytes]:
        """Return the next message, which must be of this kind, and its payload."""
        self._deadline = time.monotonic() + self.options.stall_timeout
        try:
            frame = wire.receive(cast(BinaryIO, self._process.stdout))
            if frame is None:
                raise self._lost("died")
            message = orders.from_head(frame[0])
        except (wire.WireError, ValueError) as error:
            raise self._lost(f"sent garbage: {error}") from None
        self._deadline = float("inf")
        if isinstance(message, orders.JobFailed):
            if _is_full(self._scratch):  # images that Blender wrote there are cut short: not the job's fault
                raise Incomplete(
                    f"no room is left in {Path(self._scratch).parent}, where Blender writes its images",
                    "make room there, or name another folder in TMPDIR; then run the same command again",
                )
            raise JobBroken(message.message, details=message.trace)
        if not isinstance(message, kind):
            raise self._lost(f"sent {type(message).__name__} instead of {kind.__name__}")
        return message, frame[1]

    def _members(self, rendered: orders.Rendered, payload: bytes) -> dict[str, bytes]:
        if sum(rendered.members.values()) != len(payload) or min(rendered.members.values(), default=0) < 0:
            raise self._lost(f"sent members of {rendered.key} that do not fill its payload")
        members, at = {}, 0
        for name, size in rendered.members.items():
            members[name] = payload[at : at + size]
            at += size
        return members

    def _hear_hello(self) -> orders.Hello:
        try:
            wire.skip_to_sync(cast(BinaryIO, self._process.stdout))
        except wire.WireError as error:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_PARTING_S)
            raise self._lost(f"did not start: {error if self.alive else self._how_it_died()}") from None
        hello = self._receive(orders.Hello)[0]
        if hello.problem:
            raise BlenderUnusable(*_explain_import(hello, self.options.blender))
        return hello

    def _lost(self, reason: str) -> InstanceLost:
        """Return the error for an instance that is of no more use, with what it said last; the process is killed."""
        if reason == "died":
            reason = self._how_it_died()
        self.kill()
        self._process.wait()
        self._reader.join(_PARTING_S)
        return InstanceLost(reason, list(self._log))

    def _how_it_died(self) -> str:
        if self._stalled:
            return f"said nothing for {self.options.stall_timeout:g} s (--stall-timeout)"
        try:
            code = self._process.wait(_PARTING_S)
        except subprocess.TimeoutExpired:
            return "closed its channel"
        return f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    def _keep_log(self) -> None:
        """Read stderr to its end: a full pipe would hold Blender back."""
        with cast(BinaryIO, self._process.stderr) as stream:
            for raw in stream:
                line = raw.decode(errors="replace").rstrip()
                is_progress = _PROGRESS.search(line)
                if self.options.echo and (self.options.progress or not is_progress):
                    with suppress(OSError):  # the terminal is gone; the pipe must still be drained
                        sys.stderr.write(f"{plain(line)}\n")
                if line and not is_progress:
                    self._log.append(line)

    def _watch(self) -> None:
        """Kill the process when it is silent for too long; one that has left may have handed its pipes to another."""
        while not self._over.wait(min(0.25, self.options.stall_timeout / 4)):
            if time.monotonic() > self._deadline:
                self._stalled = True
                self.kill()
                return


def _is_full(folder: str) -> bool:
    """Return whether a small file cannot be written there."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_SMALL_BYTES))
    except OSError as error:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return False


def _explain_import(hello: orders.Hello, program: str | None) -> tuple[str, str]:
    """Return message and hint for a Blender that cannot be imported; `program` is what ``--blender`` names."""
    if _SHORT.search(hello.problem):
        return (
            f"there is not enough memory to load Blender: {hello.problem}",
            "raise the limit (ulimit -v; a container's or a job's), Blender alone takes 2 GB of addresses",
        )
    if library := executable.missing_library(hello.problem):
        return library
    if "numpy" in hello.problem:
        return (
            f"the Python {hello.python} of {program} has no numpy that works: {hello.problem}",
            "apt-get install python3-numpy for Debian's Blender; that of https://www.blender.org/download brings it",
        )
    if program and "PYTHONHASHSEED" in hello.problem:
        return f"{program}: {hello.problem}", "name Blender itself, not a script that changes its environment"
    if program and "bpy" in hello.problem:
        return f"{program} has no Blender: {hello.problem}", f"{program} -m pip install bpy, or name another program"
    if "bpy" in hello.problem and hello.python.split(".")[1] in ("11", "13"):
        return "Blender's Python module bpy is not installed", install_command("blender")
    if "bpy" in hello.problem:
        return (
            f"there is no Blender for Python {hello.python}: bpy comes for Python 3.11 and 3.13",
            f"use one of these for the virtual environment, then: {install_command('blender')};"
            " or name a Blender executable with --blender",
        )
    return f"Blender cannot be imported: {hello.problem}", "compile-dataset doctor says more"
