"""The live tee: the samples of a dataset over HTTP while they are being written, the very bytes of the shards.

    with Tee(TeeOptions(policy="block"), describe) as tee:
        tee.wait_for(1)
        ...  # any thread: tee.offer(key, record)
        tee.finish()

``webdataset.WebDataset(tee.address)`` and ``curl -sN ADDRESS | tar t`` read it; ``docs/how-to/live.md`` says what else.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from compiler.errors import UsageError
from compiler.live.groups import Groups
from compiler.live.options import Policy as Policy
from compiler.live.options import QueueLimits as QueueLimits
from compiler.live.options import TeeOptions as TeeOptions

if TYPE_CHECKING:
    from compiler.live.server import TeeServer


def never() -> bool:
    """Return False: nothing interrupts."""
    return False


class Tee:
    """Serves what is offered to whoever listens. Use as a context manager; its methods may be called from any thread.

    Leaving it cuts every response that is still open, so that its reader sees an error. After `finish` there is none
    but of listeners that did not read.
    """

    def __init__(self, options: TeeOptions | None = None, describe: Callable[[], Mapping[str, Any]] = dict) -> None:
        """Prepare; nothing listens yet.

        Args:
            options: where to listen, for whom, and what to do about slow listeners.
            describe: what ``GET /status`` says of the dataset (plan digest, schema, rates, shards). Called in the
                server's thread at each request: it must be quick, and safe beside the compiler's threads.
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
        up. Whoever connects from now on gets an empty tar.

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
