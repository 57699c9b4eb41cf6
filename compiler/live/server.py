"""The live tee's HTTP side: an event loop in its own thread, which answers with what `Groups` holds.

``GET /`` is a tar that never ends until the dataset does; ``GET /status`` is JSON. Parsing, chunking and time limits
are aiohttp's.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import re
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from compiler.live.groups import Groups, Member, TooManyGroups, Turn
from compiler.live.options import TeeOptions, is_loopback
from loaders.tarstream import END

_PIECE = 256 << 10
"""As much of a sample is copied at once on its way into a socket: what a slow connection holds stays small."""

_LINGER_S = 1.0
"""How long an unwanted body is read and thrown away, so that the refusal arrives."""

_JOIN_S = 5.0

_GROUP = re.compile(r"[A-Za-z0-9._-]{1,64}")

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_log = logging.getLogger("compiler.live.tee")
_log.addHandler(logging.NullHandler())  # what strangers send is no news on the user's terminal


class TeeServer:
    """Serves one `Groups`. Nothing of it outlives `stop`, or the process."""

    def __init__(self, groups: Groups, options: TeeOptions, status: Callable[[], Mapping[str, Any]]) -> None:
        """Prepare; `status` is called for each ``GET /status``, in the server's thread."""
        self._groups = groups
        self._options = options
        self._status = status
        self._ready: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        self._thread: threading.Thread | None = None

    def start(self, listener: socket.socket) -> None:
        """Serve at a socket that listens already; it is closed with the server."""
        self._thread = threading.Thread(target=self._run, args=(listener,), name="tee", daemon=True)
        self._thread.start()
        self._ready.result()

    def stop(self) -> None:
        """Cut every connection that is still open and end the thread."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        loop, stopping = self._ready.result()
        loop.call_soon_threadsafe(stopping.set)
        thread.join(_JOIN_S)

    def _run(self, listener: socket.socket) -> None:
        try:
            asyncio.run(self._serve(listener))
        except BaseException as error:
            if self._ready.done():
                raise
            self._ready.set_exception(error)

    async def _serve(self, listener: socket.socket) -> None:
        loop, stopping = asyncio.get_running_loop(), asyncio.Event()
        loop.set_exception_handler(lambda _, context: _log.error(context["message"], exc_info=context.get("exception")))
        runner = web.AppRunner(
            self._application(),
            handler_cancellation=True,  # a connection that dies while it waits leaves its group at once
            keepalive_timeout=self._options.request_timeout_s,
            lingering_time=_LINGER_S,
            shutdown_timeout=_LINGER_S,
            access_log=None,
            logger=_log,
        )
        await runner.setup()
        assert runner.server is not None
        server = await loop.create_server(partial(self._connection, runner.server), sock=listener)
        self._ready.set_result((loop, stopping))
        await stopping.wait()
        server.close()
        for connection in runner.server.connections:
            if connection.transport is not None:
                connection.transport.abort()
        await runner.cleanup()

    def _connection(self, server: web.Server) -> asyncio.Protocol:
        full = len(server.connections) >= self._options.max_connections
        return _Refused() if full else server()

    def _application(self) -> web.Application:
        app = web.Application(middlewares=[self._guard])
        app.router.add_get("/", self._stream, allow_head=False)
        app.router.add_get("/status", self._answer_status, allow_head=False)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Let in who may read."""
        token = self._options.token
        if token is None and not _from_this_machine(request):
            raise web.HTTPForbidden(text="only programs on this machine may read this tee, by its loopback address")
        if token is not None and not _knows(token, request):
            raise web.HTTPUnauthorized(headers={"WWW-Authenticate": "Bearer"})
        return await handler(request)

    async def _answer_status(self, _: web.Request) -> web.Response:
        text = json.dumps(self._status(), indent=1, allow_nan=False)
        return web.json_response(text=text + "\n", headers={"Cache-Control": "no-store"})

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        """Answer with a tar: as many samples as were asked for, or all until the dataset ends."""
        name, samples = _wanted(request)
        ready = asyncio.Event()
        loop = asyncio.get_running_loop()
        try:
            member = self._groups.join(name, partial(loop.call_soon_threadsafe, ready.set))
        except TooManyGroups:
            raise web.HTTPServiceUnavailable(text="too many groups listen", headers={"Retry-After": "5"}) from None
        try:
            response = web.StreamResponse(headers={"Content-Type": "application/x-tar", "Cache-Control": "no-store"})
            response.enable_chunked_encoding()
            writer = await response.prepare(request)
            assert writer is not None
            assert request.transport is not None
            request.transport.set_write_buffer_limits(high=0)  # drained means: all of it is the kernel's
            await self._send_samples(member, ready, writer, samples)
            await response.write_eof(END)
        finally:
            self._groups.leave(member)
        return response

    async def _send_samples(
        self, member: Member, ready: asyncio.Event, writer: AbstractStreamWriter, samples: int | None
    ) -> None:
        while samples is None or samples > 0:
            turn = self._groups.take(member)
            if turn is Turn.END:
                return
            if isinstance(turn, Turn):
                await ready.wait()
                ready.clear()
                continue
            for piece in _pieces(turn):
                await writer.write(piece)
                await writer.drain()
            self._groups.handed(member)
            samples = None if samples is None else samples - 1
            await asyncio.sleep(0)  # let others run: nothing above yields while the socket takes all at once


class _Refused(asyncio.Protocol):
    """A connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.abort()


def _pieces(record: bytes) -> Iterator[memoryview]:
    view = memoryview(record)
    return (view[start : start + _PIECE] for start in range(0, len(record), _PIECE))


def _wanted(request: web.Request) -> tuple[str | None, int | None]:
    """Return the group and the number of samples that a request names."""
    if request.version < (1, 1):  # without chunks, an abort would look like an end
        raise web.HTTPVersionNotSupported(text="HTTP/1.1 is needed")
    name, samples = request.query.get("group"), request.query.get("samples")
    if name is not None and not _GROUP.fullmatch(name):
        raise web.HTTPBadRequest(text="group must be 1 to 64 of A-Z a-z 0-9 . _ -")
    if samples is None:
        return name, None
    if not re.fullmatch(r"[1-9][0-9]{0,17}", samples):
        raise web.HTTPBadRequest(text="samples must be a whole number above 0")
    return name, int(samples)


def _from_this_machine(request: web.Request) -> bool:
    """Return False for what comes from a web page, which a browser on this machine fetches for a stranger.

    A page elsewhere gives itself away by ``Sec-Fetch-Site`` or ``Origin``; one whose name was bound to the loopback
    address (DNS rebinding) by ``Host``.
    """
    if request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        return False
    origin = request.headers.get("Origin")
    if origin is not None and origin != f"http://{request.host}":
        return False
    try:
        return is_loopback(request.url.host or "")
    except ValueError:
        return False


def _knows(token: str, request: web.Request) -> bool:
    scheme, _, shown = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        shown = request.query.get("token", "")
    return hmac.compare_digest(shown.strip().encode("utf-8", "surrogateescape"), token.encode())
