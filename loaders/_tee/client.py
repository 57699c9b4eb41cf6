"""One connection to a live tee: its status, then its samples, with the standard library's HTTP.

What comes over the wire is not trusted: only two requests are made, redirects are not followed, every size is bounded.
Both requests use one connection, so the samples come from the process that sent the plan.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from typing import Any, NoReturn, cast
from urllib.parse import urlsplit

from loaders.errors import LiveError
from loaders.format import canonical_json, is_member, is_plain
from loaders.manifest import Manifest, schema_problem
from loaders.tarstream import Sample, TarStreamError, read_samples

MAX_STATUS_BYTES = 8 << 20
"""Largest answer to ``GET /status`` that is read."""

_PIECE = 1 << 20
"""Bytes read at once: what a header claims is not allocated before it arrives."""

_LONGEST_LINE = 256
"""Bytes of a chunk's size line, extensions included."""

_TICK_S = 0.1
"""How long a read waits before it asks whether to go on waiting."""

_MOST_MEMBERS = 64
_NO_TEE = "not a live tee of compile-dataset; check the address: another program may be using the port"
_REFUSALS = {
    401: "requires a token: pass token=, as compile-dataset printed it",
    403: "answers only programs on its own machine, through its loopback address",
}

Watch = Callable[[float], None]
"""Called repeatedly with the seconds of silence so far; raises to end the wait."""


class ConnectionLost(Exception):
    """This connection failed; another attempt may succeed."""


class StreamCut(ConnectionLost):
    """The stream had begun."""


@dataclass(frozen=True)
class Address:
    """Where a tee serves."""

    url: str
    """Without a trailing slash."""
    host: str
    port: int | None
    path: str
    secure: bool

    @classmethod
    def parse(cls, url: str) -> Address:
        """Parse an http or https URL.

        Raises:
            ValueError: it is no such URL, or it has a query, a fragment or credentials.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        if parts.scheme not in ("http", "https") or not parts.hostname or not re.fullmatch("[!-~]+", url):
            raise ValueError(f"{url!r} is not the address of a live tee; write it like 'http://127.0.0.1:5555'")
        if parts.query or parts.fragment or "@" in parts.netloc:
            raise ValueError(f"{url!r} is more than an address; pass the group as group=, the token as token=")
        path = parts.path.rstrip("/")
        return cls(f"{parts.scheme}://{parts.netloc}{path}", parts.hostname, port, path, parts.scheme == "https")

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True)
class TeeStatus:
    """What a tee says about its dataset: checked for form, not for truth."""

    plan_digest: str
    schema: Mapping[str, Any]
    name: str
    plan: Mapping[str, Any]
    """Its digest is `plan_digest`."""
    shards_wanted: int
    """How many shards the finished dataset will have; 0 if it is compiled without end."""
    finished: bool
    """Whether the last sample has been made."""

    @property
    def members(self) -> frozenset[str]:
        """The member names of each sample."""
        return frozenset(self.schema["members"])

    @classmethod
    def parse(cls, content: bytes, source: str) -> TeeStatus:
        """Parse the answer to ``GET /status``; `source` names the server in errors.

        Raises:
            LiveError: it is not a tee's answer.
        """
        try:
            value = json.loads(content)
            canonical_json(value)  # Python reads NaN, infinity and halves of characters, which are no JSON
            values = {each.name: value[each.name] for each in fields(cls)}
        except (ValueError, RecursionError, LookupError, TypeError):
            values = {}
        if not values or not _is_sound(**values):
            raise LiveError(f"{source} is {_NO_TEE}")
        return cls(**values)


def _is_sound(plan_digest: Any, schema: Any, name: Any, plan: Any, shards_wanted: Any, finished: Any) -> bool:
    kinds = ((plan, dict), (schema, dict), (name, str), (finished, bool))
    if not all(isinstance(value, kind) for value, kind in kinds) or type(shards_wanted) is not int:
        return False
    members = schema.get("members")
    if not isinstance(members, dict) or not 0 < len(members) <= _MOST_MEMBERS:
        return False
    return (
        Manifest(name, plan, schema, {}).plan_digest == plan_digest
        and shards_wanted >= 0
        and not schema_problem(schema)
        and all(map(is_member, members))
    )


class _Response(http.client.HTTPResponse):
    """A response whose chunks begin with short lines and have no trailers, so that what is read is bounded.

    It overrides the standard library's methods, which bound each line but not their number.
    """

    fp: Any

    def _read_next_chunk_size(self) -> int:
        line = self.fp.readline(_LONGEST_LINE + 1)
        if len(line) > _LONGEST_LINE:
            raise http.client.LineTooLong("chunk size")
        try:
            return int(line.split(b";")[0], 16)
        except ValueError:
            self._close_conn()  # type: ignore[attr-defined]
            raise

    def _read_and_discard_trailer(self) -> None:
        if self.fp.readline(2) not in (b"\r\n", b"\n", b""):
            raise http.client.HTTPException("trailers")


class _PlainSocket(socket.socket):
    watch: Watch

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        return _watched(self.watch, lambda: super(_PlainSocket, self).recv_into(buffer, nbytes, flags))


class _TLSSocket(ssl.SSLSocket):
    watch: Watch

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        return _watched(self.watch, lambda: super(_TLSSocket, self).recv_into(buffer, nbytes, flags))


def _watched(watch: Watch, receive: Callable[[], int]) -> int:
    """Receive; while nothing arrives, ask `watch` ten times a second whether to go on waiting."""
    began = time.monotonic()
    while True:
        watch(time.monotonic() - began)
        with suppress(TimeoutError):
            return receive()


@dataclass
class TeeConnection:
    """A connection to a tee. Use as a context manager.

    State: the HTTP connection, the deadline of the current request, and whether samples are being received.
    """

    address: Address
    token: str | None
    timeout_s: float
    """How long an answer may take to begin."""
    watch: Watch
    """For the stream, which may be silent while a sample is rendered."""
    _http: http.client.HTTPConnection = field(init=False)
    _due: float = field(init=False, default=0.0)
    _streaming: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        host, port = self.address.host, self.address.port
        if self.address.secure:
            context = ssl.create_default_context()
            context.sslsocket_class = _TLSSocket
            self._http = http.client.HTTPSConnection(host, port, timeout=self.timeout_s, context=context)
        else:
            self._http = http.client.HTTPConnection(host, port, timeout=self.timeout_s)

    def __enter__(self) -> TeeConnection:
        """Connect.

        Raises:
            ConnectionLost: nothing answers at the address.
        """
        with self._losses():
            try:
                self._http.connect()
            except OSError:
                self._http.close()
                raise
        self._http.response_class = _Response
        self._http.auto_open = 0  # another connection may lead to another server
        if not self.address.secure:
            self._http.sock = _PlainSocket(fileno=self._http.sock.detach())
        sock = cast(_PlainSocket | _TLSSocket, self._http.sock)
        sock.watch = self._wait
        sock.settimeout(_TICK_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def status(self) -> TeeStatus:
        """Request the tee's status.

        Raises:
            LiveError: this is not a tee, or it refuses the request.
            ConnectionLost: no complete answer came.
        """
        self._begin_wait()
        with self._losses(), self._get("/status") as response:
            if response.status != 200:
                self._refused(response)
            body, content = _Body(response), bytearray()
            while (part := body.read(_PIECE)) and len(content) <= MAX_STATUS_BYTES:
                content += part
        if len(content) > MAX_STATUS_BYTES:
            raise LiveError(f"{self.address} is {_NO_TEE}")
        return TeeStatus.parse(bytes(content), str(self.address))

    def samples(self, status: TeeStatus, group: str, wanted: int | None, max_bytes: int) -> Iterator[Sample]:
        """Yield samples, each as it arrives, until there are `wanted` or the dataset ends.

        Args:
            status: this connection's status.
            group: connections of one group share the samples.
            wanted: how many to ask for; None for all.
            max_bytes: largest sum of member sizes in one sample.

        Raises:
            TarStreamError: the stream is not what a tee sends.
            LiveError: this is not a tee, or it refuses the request.
            ConnectionLost: the stream was cut, or did not begin.
        """
        self._begin_wait()
        asked = f"/?group={group}" + ("" if wanted is None else f"&samples={wanted}")
        with self._losses(), self._get(asked) as response:
            if response.status != 200:
                self._refused(response)
            if not response.chunked:  # an end and a cut would look alike
                raise LiveError(f"{self.address} is {_NO_TEE}")
            self._streaming = True
            yield from _checked_samples(_Body(response), status.members, wanted, max_bytes)
            self._streaming = False

    @contextmanager
    def _get(self, target: str) -> Iterator[http.client.HTTPResponse]:
        headers = {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
        self._http.request("GET", self.address.path + target, headers=headers)
        with self._http.getresponse() as response:
            yield response

    def _refused(self, response: http.client.HTTPResponse) -> NoReturn:
        if response.status in _REFUSALS:
            raise LiveError(f"{self.address} {_REFUSALS[response.status]}")
        if response.status == 503:
            raise ConnectionLost("it has as many listeners as it accepts")
        raise LiveError(f"{self.address} is {_NO_TEE} (HTTP status {response.status})")

    @contextmanager
    def _losses(self) -> Iterator[None]:
        try:
            yield
        except (OSError, http.client.HTTPException) as error:
            lost = StreamCut if self._streaming else ConnectionLost
            raise lost(_reason(error)) from None

    def _begin_wait(self) -> None:
        self._due = time.monotonic() + self.timeout_s

    def _wait(self, silence_s: float) -> None:
        self.watch(silence_s if self._streaming else 0.0)
        if not self._streaming and time.monotonic() > self._due:
            raise TimeoutError(f"no answer in {self.timeout_s:g} s")


def _checked_samples(body: _Body, members: frozenset[str], wanted: int | None, max_bytes: int) -> Iterator[Sample]:
    """Yield the samples of a response, which must end with its end mark and hold no more than were requested."""
    for count, sample in enumerate(read_samples(body, whole=members, max_bytes=max_bytes), 1):
        if not is_plain(sample.key):
            raise TarStreamError(f"the key {sample.key!r} is not made of A-Z a-z 0-9 _ - (byte {sample.offset})")
        if wanted is not None and count > wanted:
            raise TarStreamError(f"holds more samples than the {wanted} that were requested")
        yield sample
    if body.read(1):
        raise TarStreamError("continues after its end mark")


def _reason(error: Exception) -> str:
    """Return why a connection failed, for the user."""
    if isinstance(error, http.client.RemoteDisconnected | http.client.IncompleteRead | http.client.NotConnected):
        return "the connection was closed"
    if isinstance(error, http.client.HTTPException):
        return f"the answer is not HTTP ({type(error).__name__})"
    assert isinstance(error, OSError)
    return error.strerror or str(error) or type(error).__name__


class _Body:
    """A response's content as a stream."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self._response = response

    def read(self, size: int, /) -> bytes:
        # Not `response.read`: it takes a chunk of size -1 to mean everything to come, and holds it in memory.
        part = memoryview(bytearray(min(size, _PIECE)))
        return bytes(part[: self._response.readinto(part)])
