"""Framed messages between the compiler and an instance, over pipes that nothing else writes to.

A frame is ``BSH1``, the length of the head (uint32) and of the payload (uint64), both big-endian; then the head, a
JSON object, and the payload, raw bytes. Nothing is ever unpickled; lengths are bounded.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any, BinaryIO

SYNC = b"\0blendshard\0"
"""Sent once before the first frame: a Blender executable prints its banner before any Python runs."""

MAX_NOISE = 1 << 20
MAX_HEAD = 64 << 20
MAX_PAYLOAD = 4 << 30

_FRAME = struct.Struct(">4sIQ")
_MAGIC = b"BSH1"


class WireError(Exception):
    """The peer broke the protocol, or the stream ended within a frame."""


def send(stream: BinaryIO, head: dict[str, Any], payload: Sequence[bytes] = ()) -> None:
    """Write one frame and flush it.

    Raises:
        OSError: the peer is gone.
    """
    encoded = json.dumps(head, allow_nan=False, separators=(",", ":")).encode()
    stream.write(_FRAME.pack(_MAGIC, len(encoded), sum(map(len, payload))))
    stream.write(encoded)
    for part in payload:
        stream.write(part)
    stream.flush()


def receive(stream: BinaryIO) -> tuple[dict[str, Any], bytes] | None:
    """Read one frame; None where the stream ends between frames.

    Raises:
        WireError: not a frame, cut short, too large, or its head is not a JSON object.
    """
    start = stream.read(_FRAME.size)
    if not start:
        return None
    if len(start) < _FRAME.size:
        raise WireError("the stream ends within a frame")
    magic, head_size, payload_size = _FRAME.unpack(start)
    if magic != _MAGIC or head_size > MAX_HEAD or payload_size > MAX_PAYLOAD:
        raise WireError(f"not a frame: {start!r}")
    encoded, payload = stream.read(head_size), stream.read(payload_size)
    if len(encoded) + len(payload) < head_size + payload_size:
        raise WireError("the stream ends within a frame")
    try:
        head = json.loads(encoded)
    except (ValueError, RecursionError) as error:
        raise WireError(f"the head of a frame is not JSON: {error}") from None
    if not isinstance(head, dict):
        raise WireError("the head of a frame is not a JSON object")
    return head, payload


def skip_to_sync(stream: BinaryIO) -> None:
    """Read up to and over `SYNC`.

    Raises:
        WireError: the stream ended, or a mebibyte of other things came first.
    """
    window = b""
    for _ in range(MAX_NOISE):
        byte = stream.read(1)
        if not byte:
            raise WireError("the stream ended before its first message")
        window = (window + byte)[-len(SYNC) :]
        if window == SYNC:
            return
    raise WireError("no message within the first mebibyte")
