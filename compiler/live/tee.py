"""The live tee: the samples of a dataset over HTTP while they are being written, the very bytes of the shards.

    with Tee(TeeOptions(policy="block"), describe) as tee:
        tee.wait_for(1)
        ...  # any thread: tee.offer(key, record)
        tee.finish()

``webdataset.WebDataset(tee.address)`` and ``curl -sN ADDRESS | tar t`` read it; ``docs/how-to/live.md`` says what else.
`live_tee` runs one for a build.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from compiler.build import Report, live_counts
from compiler.errors import UsageError
from compiler.live.groups import Groups
from compiler.live.options import Policy as Policy
from compiler.live.options import QueueLimits as QueueLimits
from compiler.live.options import TeeOptions as TeeOptions
from compiler.live.options import is_loopback
from compiler.planning.plan import Plan
from loaders.files import write_atomically

if TYPE_CHECKING:
    from compiler.live.server import TeeServer


def never() -> bool:
    """Return False: nothing interrupts."""
    return False


class Tee:
    """Serves what is offered to all who listen. Use as a context manager; its methods may be called from any thread.

    Leaving it cuts every response that is still open, so that its reader sees an error. After `finish` there is none
    but of listeners that did not read.
    """

    def __init__(self, options: TeeOptions | None = None, describe: Callable[[], Mapping[str, Any]] = dict) -> None:
        """Prepare; nothing listens yet.

        Args:
            options: where to listen, for whom, and what to do about slow listeners.
            describe: what ``GET /status`` says of the dataset (plan digest, schema, rates, shards). Called in the
                server's thread at each request: it must be quick, and safe to run next to the compiler's threads.
        """
        self.options = options or TeeOptions()
        self._describe = describe
        self._groups = Groups(self.options, self.options.max_connections)
        self._last_key: str | None = None
        self._port = self.options.port
        self._server: TeeServer | None = None

    def __enter__(self) -> Tee:
        """Begin to listen.

        Raises:
            UsageError: the address cannot be used, its port is taken.
        """
        from compiler.live.server import TeeServer  # aiohttp is slow to import, and only a tee needs it

        listener = _listen(self.options)
        self._port = listener.getsockname()[1]
        self._server = TeeServer(self._groups, self.options, self.status)
        self._server.start(listener)
        return self

    def __exit__(self, *_: object) -> None:
        """Cut what is still open and end the server's thread."""
        self.abort()

    @property
    def address(self) -> str:
        """Where to listen, as ``http://127.0.0.1:5555``: webdataset takes what ends in a slash for a directory."""
        host = self.options.host
        return f"http://[{host}]:{self._port}" if ":" in host else f"http://{host}:{self._port}"

    def wait_for(self, connections: int, timeout: float | None = None, interrupted: Callable[[], bool] = never) -> bool:
        """Wait until so many listeners are connected; False when it was interrupted or took `timeout` seconds."""
        return self._groups.wait_for(connections, timeout, interrupted)

    def offer(self, key: str, record: bytes, interrupted: Callable[[], bool] = never) -> bool:
        """Send a sample to every group that is there.

        With the policy ``drop`` this never waits. With ``block`` it waits while any group's queue is full, until the
        tee is finished or aborted or `interrupted`, asked several times a second, says so.

        Args:
            key: the sample's, shown in the status.
            record: its tar record, the very bytes that the shard holds (`loaders.tarstream.sample_record`). It is
                not copied, and one object serves all groups.
            interrupted: whether to give up waiting. It must be quick.

        Returns:
            False when the wait was given up; the sample was then offered to nobody.
        """
        offered = self._groups.offer(record, interrupted)
        if offered:
            self._last_key = key
        return offered

    def finish(self, interrupted: Callable[[], bool] = never) -> bool:
        """End the dataset: every listener gets what waits for it, the tar's end mark and a clean end.

        Waits for that, for as long as the listeners read. A group that takes nothing for the period of grace is given
        up. A listener that connects from now on gets an empty tar.

        Returns:
            False when a group was given up, now or before, or the wait was interrupted.
        """
        return self._groups.finish(interrupted)

    def abort(self) -> None:
        """Cut every open response, so that its reader sees an error; waiting offers return. Nothing listens then."""
        self._groups.close()
        if self._server is not None:
            self._server.stop()

    def status(self) -> dict[str, Any]:
        """Return what ``GET /status`` says: the dataset's description, counts in all and by group."""
        return {**self._describe(), "last_key": self._last_key, **self._groups.status()}


def _listen(options: TeeOptions) -> socket.socket:
    """Return a listening socket.

    Raises:
        UsageError: the address cannot be used.
    """
    try:
        family, *_, address = socket.getaddrinfo(options.host, options.port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=128)
    except OSError as error:
        where = f"{options.host}:{options.port}"
        if error.errno == errno.EADDRINUSE:
            hint = "name another port, or 0 for any that is free"
            raise UsageError(f"the live tee cannot listen at {where}: the port is taken", hint) from None
        reason = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
        hint = "name an address of this machine and a port above 1023"
        raise UsageError(f"the live tee cannot listen at {where}: {reason}", hint) from None


DEFAULT_URL = "http://127.0.0.1:5555"

_Announce = Callable[[str], None]


@dataclass(frozen=True)
class LiveOptions:
    """How a build goes live."""

    tee: TeeOptions
    wait: int = 0
    """Wait for this many listeners before anything is rendered."""
    token_made: bool = False
    """Whether the token was made here and must be announced; the user's own is not shown again."""
    ready_file: Path | None = None
    """Gets the address and the token as JSON once the tee listens: for a program that started the build."""


def tee_options(url: str, host: str | None, policy: Policy, token: str | None) -> TeeOptions:
    """Return where the tee listens and for whom; where other machines can connect, a token is made if none is given.

    Args:
        url: ``http://127.0.0.1:5555``; port 0 takes any that is free.
        host: another address to listen at than the URL's, which must be this machine's loopback.
        policy: what slow listeners cause.
        token: what listeners must show.

    Raises:
        UsageError: not such a URL, an address of the network not named by `host`, a token that does not fit.
    """
    parts = urlsplit(url)
    try:
        port = 5555 if parts.port is None else parts.port
    except ValueError:
        port = -1
    if parts.scheme != "http" or not parts.hostname or port < 0 or parts.path not in ("", "/") or parts.query:
        raise UsageError(f"--live {url!r} is not an address to listen at", f"use one like {DEFAULT_URL}")
    if host is None and not is_loopback(parts.hostname):
        hint = f"to let other machines connect, add --live-host {parts.hostname}; a token is then needed"
        raise UsageError(f"--live {url}: {parts.hostname} can be reached from other machines", hint)
    chosen = host or parts.hostname
    if token is None and not is_loopback(chosen):
        token = secrets.token_urlsafe(24)
    return TeeOptions(host=chosen, port=port, policy=policy, token=token)


@contextmanager
def live_tee(live: LiveOptions, plan: Plan, report: Report, announce: _Announce) -> Iterator[Tee]:
    """Listen while the dataset is built; end the streams cleanly if it is, cut them if it is not.

    Args:
        live: where and for whom.
        plan: the dataset's plan.
        report: the build's, which grows; listeners may ask for it.
        announce: called with where the tee listens, and what it waits for.

    Raises:
        UsageError: the address cannot be used.
    """
    with Tee(live.tee, _describer(plan, report)) as tee:
        made = f" with token {live.tee.token}" if live.token_made else ", with your token"
        announce(f"live at {tee.address}{made if live.tee.token else ''}")
        if live.ready_file is not None:
            ready = {"address": tee.address, "token": live.tee.token}
            write_atomically(live.ready_file, json.dumps(ready).encode())
        if live.wait:
            announce(f"waiting for {live.wait} listeners")
            tee.wait_for(live.wait)
        try:
            yield tee
            tee.finish()
        finally:
            report.live = live_counts(tee)


def _describer(plan: Plan, report: Report) -> Callable[[], dict[str, Any]]:
    """Return what tells listeners which dataset this is and how far it is (``GET /status``)."""
    fixed = {
        "name": plan.name,
        "plan": plan.identity(),
        "plan_digest": plan.digest,
        "schema": {"members": plan.members()},
    }
    moving = ("shards_wanted", "samples_wanted", "shards_done", "samples_done", "samples_rendered", "restarts", "rate")
    return lambda: {**fixed, **{name: getattr(report, name) for name in moving}}
