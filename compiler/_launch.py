"""Start a compiler from Python, for a training script that streams its samples.

with compiler.launch("falling_cubes", instances=2) as live:
    for batch in DataLoader(LiveDataset(live.address), num_workers=2): ...
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Literal, TypedDict, Unpack, cast
from urllib.parse import urlsplit

from compiler.errors import BlendshardError, Incomplete
from compiler.process_control import MainInterrupter

_PARTING_S = 10.0
_LOOK_EVERY_S = 0.05


class BuildOptions(TypedDict, total=False):
    """Further options of ``compile-dataset build``, each as there; `launch` has its own words for the others."""

    blend: str | Path
    trust_blend: bool
    missing_files: Literal["refuse", "allow"]
    samples_per_shard: int
    seed: int
    passes: str | Sequence[str]
    engine: Literal["cycles", "eevee", "workbench"]
    render_samples: int
    device: Literal["cpu", "cuda", "optix", "hip", "oneapi", "metal"]
    denoise: bool
    size: str
    """``WIDTHxHEIGHT`` in pixels."""
    image: Literal["png", "jpg", "webp"]
    quality: int
    blender: str | Path
    stall_timeout: float
    attempts: int
    on_poison: Literal["fail", "skip"]
    require_objects: bool
    recycle: int
    fresh: bool
    live_wait: int
    live_host: str
    live_token: str
    live_token_file: str | Path
    config: str | Path


class _Progress(TypedDict):
    plan_digest: str
    shards_wanted: int
    """0: there is no end."""
    samples_wanted: int
    shards_done: int
    samples_done: int
    samples_rendered: int
    restarts: int
    """Instances that were lost and replaced."""
    rate: float
    """Samples rendered in a second."""


class CompilerStatus(_Progress, total=False):
    """What a compiler says of itself: its progress, always; all else either while it runs, or once it has ended."""

    name: str
    finished: bool
    """Whether the last sample has been made; while it runs."""
    last_key: str | None
    connections: int
    """Listeners; while it runs, like the four counts of samples."""
    samples_offered: int
    samples_sent: int
    samples_dropped: int
    samples_abandoned: int
    live: dict[str, int]
    """These counts, once it has ended."""
    seconds: float
    failures: int
    skipped: dict[str, str]
    """The keys of samples that were left out, and why; at the end."""
    out: str
    digest: str
    """The dataset's; at the end."""


class Launched:
    """A compiler that runs for this process: see `launch`.

    State: the process, and the last lines it said.
    """

    def __init__(self, command: list[str], ready_file: Path, start_timeout_s: float, token: str | None = None) -> None:
        self._said: deque[str] = deque(maxlen=30)
        self._leaving = False
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, **({"BLENDSHARD_LIVE_TOKEN": token} if token else {})},
        )
        self._reader = threading.Thread(target=self._keep_what_it_says, daemon=True)
        self._reader.start()
        self._result: bytes | None = None
        try:
            ready = self._wait_until_ready(ready_file, start_timeout_s)
        except BaseException:
            self.close()
            raise
        self.address: str = ready["address"]
        """What `loaders.LiveDataset` takes."""
        self.token: str | None = ready["token"]

    @property
    def running(self) -> bool:
        """Whether the compiler runs; it ends by itself when its dataset is complete."""
        return self._process.poll() is None

    def status(self) -> CompilerStatus:
        """Return how far the compiler is: ``restarts`` of instances, ``samples_done``, ``rate``, and so on.

        While it runs this is ``GET /status``; once its dataset is complete, what ``compile-dataset --json`` prints.

        Raises:
            BlendshardError: it has failed.
        """
        self.check()
        if not self.running:
            return self._final_report()
        parts = urlsplit(self.address)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        try:
            connection.request("GET", "/status", headers=headers)
            return cast(CompilerStatus, json.loads(connection.getresponse().read()))
        except (OSError, http.client.HTTPException) as error:
            if self._ends_within(_PARTING_S):
                return self.status()
            raise Incomplete(f"the compiler at {self.address} does not answer: {error}") from None
        finally:
            connection.close()

    def _final_report(self) -> CompilerStatus:
        if self._result is None:
            self._result = cast(IO[bytes], self._process.stdout).read()
        return cast(CompilerStatus, json.loads(self._result))

    def _ends_within(self, seconds: float) -> bool:
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def check(self) -> None:
        """Raise the error that the compiler ended with, if it did."""
        if self.failed:
            raise self._error()

    @property
    def failed(self) -> bool:
        """Whether the compiler ended with an error."""
        return (self._process.poll() or 0) != 0 and not self._leaving

    def close(self) -> None:
        """Let the compiler go: it ends its instances and itself."""
        self._leaving = True
        with suppress(OSError):
            cast(IO[bytes], self._process.stdin).close()
        for end in (self._process.terminate, self._process.kill):
            if self._ends_within(_PARTING_S):
                break
            end()
        self._process.wait()
        self._reader.join(_PARTING_S)
        cast(IO[bytes], self._process.stdout).close()

    def interrupt_on_failure(self, interrupter: MainInterrupter) -> None:
        """Interrupt the main thread when the compiler fails: it may wait for samples that never come."""
        threading.Thread(target=self._watch, args=(interrupter,), daemon=True).start()

    def _watch(self, interrupter: MainInterrupter) -> None:
        self._process.wait()
        if self.failed:
            interrupter.interrupt()

    def _wait_until_ready(self, ready_file: Path, timeout_s: float) -> dict[str, Any]:
        end = time.monotonic() + timeout_s
        while not ready_file.exists():
            if not self.running:
                raise self._error()
            if time.monotonic() > end:
                raise Incomplete(f"the compiler was not ready after {timeout_s:g} s", details=list(self._said))
            time.sleep(_LOOK_EVERY_S)
        return cast(dict[str, Any], json.loads(ready_file.read_bytes()))

    def _error(self) -> BlendshardError:
        self._reader.join(1.0)
        lines = list(self._said)
        what = next((line for line in reversed(lines) if line.startswith("Error: ")), "Error: it said nothing")
        return Incomplete(f"the compiler ended with exit code {self._process.poll()}: {what[7:]}", details=lines)

    def _keep_what_it_says(self) -> None:
        with cast(IO[bytes], self._process.stderr) as stream:
            for line in stream:
                self._said.append(line.decode(errors="replace").rstrip())


@contextmanager
def launch(
    job: str = "falling_cubes",
    *,
    shards: int = 0,
    out: str | Path | None = None,
    instances: int = 0,
    settings: Mapping[str, Any] | None = None,
    live_policy: Literal["drop", "block"] = "block",
    port: int = 0,
    start_timeout_s: float = 120.0,
    **options: Unpack[BuildOptions],
) -> Iterator[Launched]:
    """Run a live compiler for as long as the ``with`` block runs; no process stays, however the block ends.

    Where the compiler fails, the block is interrupted at once and the error raised; an instance that was replaced
    only counts (`Launched.status`). Call it in the main thread: elsewhere, and where SIGINT is ignored, the error comes
    at the block's end.

    Args:
        job: a built-in name or ``path/to/job.py[:Class]``.
        shards: how many; 0 renders without end.
        out: the dataset's directory; without it nothing is written.
        instances: Blenders at once; 0 chooses.
        settings: the job's fields.
        live_policy: ``block`` waits for slow listeners, ``drop`` drops and counts.
        port: where to listen on loopback; 0 takes any that is free.
        start_timeout_s: how long Blender may take to start.
        options: further options of ``compile-dataset build`` (`BuildOptions`), as ``engine="workbench"``,
            ``size="320x240"``, ``seed=1``, ``passes=["depth", "flow"]``, ``denoise=True``.

    Yields:
        `Launched`, whose `address` is what `loaders.LiveDataset` takes.

    Raises:
        BlendshardError: the compiler could not be started, or failed; its last lines are in `details`.
    """
    token = options.pop("live_token", None)  # not among the words: everybody sees the list of processes
    chosen = {"shards": shards, "instances": instances, "live_policy": live_policy, **options}
    words = [word for name, value in chosen.items() for word in _option(name, value)]
    words += [word for name, value in (settings or {}).items() for word in ("--set", f"{name}={_spell(value)}")]
    words += ["--live-only"] if out is None else ["--out", os.fspath(out)]
    with tempfile.TemporaryDirectory(prefix="blendshard-") as folder:
        ready = Path(folder) / "ready.json"
        words += [
            "--live",
            f"http://127.0.0.1:{port}",
            "--live-ready-file",
            str(ready),
            "--quiet",
            "--json",
            "--end-with-parent",
        ]
        command = [sys.executable, "-P", "-m", "compiler", "build", job, *words]
        launched = Launched(command, ready, start_timeout_s, token)
        try:
            with MainInterrupter() as interrupter:
                launched.interrupt_on_failure(interrupter)
                yield launched
            launched.check()
        except KeyboardInterrupt:
            launched.check()  # it was not the user
            raise
        finally:
            launched.close()


def _option(name: str, value: Any) -> list[str]:
    """Return an option as the command line has it; a flag alone if it is True, nothing if it is False."""
    flag = f"--{name.replace('_', '-')}"
    if isinstance(value, bool):
        return [flag] if value else []
    return [flag, _spell(value)]


def _spell(value: Any) -> str:
    """Return a field's value as the command line has it."""
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
