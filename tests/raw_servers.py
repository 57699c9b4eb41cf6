"""Servers that do what no tee does."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

Answer = Callable[[socket.socket, str], object]
"""Gets the connection and the path that was asked for."""

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(content: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(content), content)


def answer(content: bytes, status: str = "200 OK") -> bytes:
    """Return a whole HTTP answer."""
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content


def telling(status: dict[str, Any], stream: Answer) -> Answer:
    """Return what answers GET /status like a tee, and everything else by `stream`."""
    told = answer(json.dumps({"finished": False, **status}).encode())

    def tell(connection: socket.socket, path: str) -> None:
        if path == "/status":
            connection.sendall(told)
        else:
            stream(connection, path)

    return tell


def sending(*parts: bytes) -> Answer:
    """Return what sends these and closes."""

    def send(connection: socket.socket, _: str) -> None:
        for part in parts:
            connection.sendall(part)
        raise ConnectionResetError

    return send


@contextmanager
def serving(respond: Answer) -> Iterator[str]:
    """Run a server; give its address. A connection is closed when `respond` raises an OSError."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as listener:
        ended = threading.Event()

        def serve(connection: socket.socket) -> None:
            with connection, suppress(OSError), connection.makefile("rb") as requests:
                connection.settimeout(20)
                while head := requests.readline():
                    while requests.readline() not in (b"\r\n", b""):
                        pass
                    respond(connection, head.split()[1].decode())

        def accept() -> None:
            while not ended.is_set():
                with suppress(OSError):
                    connection, _ = listener.accept()
                    threading.Thread(target=serve, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        host, port = listener.getsockname()
        try:
            yield f"http://{host}:{port}"
        finally:
            ended.set()
            with suppress(OSError), socket.create_connection((host, port), timeout=1):
                pass
