"""Image files as bytes, without Blender: OpenEXR read, PNG, JPEG and WebP stripped of all but their pixels."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

_MAGIC = b"v/1\x01"
_VERSION = 2
_LONG_NAMES = 0x400
"""The one flag of the version's word that a plain image may have: names of more than 31 bytes."""
_PIXEL_TYPES = {0: np.dtype("<u4"), 1: np.dtype("<f2"), 2: np.dtype("<f4")}
_ENDED_EARLY = "the EXR file ends early"


def read_exr(data: bytes) -> dict[str, npt.NDArray[Any]]:
    """Return an EXR file's channels by name, each (H, W): uint32, float16 or float32, as stored; views of `data`.

    Raises:
        ValueError: not such a file: cut, compressed, tiled, deep, of several parts, or with subsampled channels.
    """
    attributes, start = _header(data)
    for name in ("channels", "compression", "dataWindow", "lineOrder"):
        if name not in attributes:
            raise ValueError(f"the EXR file has no attribute {name!r}")
    if attributes["compression"] != b"\0" or attributes["lineOrder"] != b"\0":
        raise ValueError("the EXR file is compressed, or its rows do not run downwards")
    if len(attributes["dataWindow"]) != 16:
        raise ValueError("the EXR file's dataWindow is not four integers")
    left, top, right, bottom = struct.unpack("<4i", attributes["dataWindow"])
    width, height = right - left + 1, bottom - top + 1
    if width < 1 or height < 1:
        raise ValueError(f"the EXR file is an image of {width}x{height} pixels")
    row = np.dtype([("y", "<i4"), ("size", "<i4"), ("channels", _channels(attributes["channels"], width))])
    if len(data) != start + height * (8 + row.itemsize):
        raise ValueError(
            f"the EXR file has {len(data)} bytes, not the {start + height * (8 + row.itemsize)} of its rows"
        )
    places = np.frombuffer(data, "<u8", height, start)
    rows = np.frombuffer(data, row, height, start + 8 * height)
    order = np.arange(height)
    regular = (places == start + 8 * height + order * row.itemsize) & (rows["y"] == top + order)
    if not (regular & (rows["size"] == row.itemsize - 8)).all():
        raise ValueError("the EXR file's rows are not one after another")
    channels = rows["channels"]
    return {name: channels[name] for name in channels.dtype.names or ()}


def _header(data: bytes) -> tuple[dict[str, bytes], int]:
    """Return the attributes' values by name, and where the header ends."""
    if data[:4] != _MAGIC:
        raise ValueError("not an EXR file")
    if len(data) < 8:
        raise ValueError(_ENDED_EARLY)
    version = struct.unpack_from("<I", data, 4)[0] & ~_LONG_NAMES
    if version != _VERSION:
        raise ValueError(f"the EXR file is tiled, deep or of several parts (version word {version:#x})")
    attributes = {}
    at = 8
    while data[at : at + 1] != b"\0":
        name, at = _text(data, at)
        _type, at = _text(data, at)
        if at + 4 > len(data):
            raise ValueError(_ENDED_EARLY)
        end = at + 4 + struct.unpack_from("<I", data, at)[0]
        if end > len(data):
            raise ValueError(_ENDED_EARLY)
        attributes[name], at = data[at + 4 : end], end
    return attributes, at + 1


def _channels(described: bytes, width: int) -> np.dtype[Any]:
    """Return what a row holds: each channel's name with `width` pixels of its type."""
    fields: list[tuple[str, Any, tuple[int]]] = []
    at = 0
    while described[at : at + 1] != b"\0":
        name, at = _text(described, at)
        if at + 16 > len(described):
            raise ValueError(_ENDED_EARLY)
        pixel_type, _linear, across, down = struct.unpack_from("<4I", described, at)
        if pixel_type not in _PIXEL_TYPES or (across, down) != (1, 1):
            raise ValueError(f"channel {name!r} of the EXR file is of an unknown type, or subsampled")
        fields.append((name, _PIXEL_TYPES[pixel_type], (width,)))
        at += 16
    if not fields or len({name for name, _, _ in fields}) < len(fields):
        raise ValueError("the EXR file has no channels, or two of one name")
    return np.dtype(fields)


def _text(data: bytes, at: int) -> tuple[str, int]:
    """Return the zero-terminated text, and where it is over."""
    end = data.find(b"\0", at)
    if end <= at:
        raise ValueError(_ENDED_EARLY)
    return data[at:end].decode("utf-8", "surrogateescape"), end + 1


_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
_JPEG_DROPPED = {*range(0xE1, 0xEE), 0xEF, 0xFE}  # APP1 to APP15 (Exif, profiles), comments; not Adobe's colour model


def strip_metadata(content: bytes, image: str) -> bytes:
    """Return the image file (``png``, ``jpg`` or ``webp``) without text, time stamps, Exif or colour profiles.

    Raises:
        ValueError: the bytes are not such a file.
    """
    return {"png": _strip_png, "jpg": _strip_jpeg, "webp": _strip_webp}[image](content)


def _strip_png(content: bytes) -> bytes:
    if not content.startswith(_PNG_SIGNATURE):
        raise ValueError("not a PNG file")
    return _PNG_SIGNATURE + b"".join(chunk for kind, chunk in _png_chunks(content) if kind in _PNG_KEPT)


def _png_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    at, kind = len(_PNG_SIGNATURE), b""
    while kind != b"IEND":
        kind = content[at + 4 : at + 8]
        end = at + 12 + int.from_bytes(content[at : at + 4], "big")  # length, type, data, CRC
        if end > len(content):
            raise ValueError("the PNG file is cut short")
        yield kind, content[at:end]
        at = end


def _strip_jpeg(content: bytes) -> bytes:
    if not content.startswith(b"\xff\xd8"):
        raise ValueError("not a JPEG file")
    kept, at = [content[:2]], 2
    while content[at : at + 2] != b"\xff\xda":  # start of scan: compressed data up to the end
        end = at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        if end > len(content) or content[at] != 0xFF:
            raise ValueError("the JPEG file is damaged")
        if content[at + 1] not in _JPEG_DROPPED:
            kept.append(content[at:end])
        at = end
    return b"".join([*kept, content[at:]])


def _strip_webp(content: bytes) -> bytes:
    if content[:4] != b"RIFF" or content[8:12] != b"WEBP":
        raise ValueError("not a WebP file")
    chunks = dict(_webp_chunks(content))
    pixels = chunks.get(b"VP8 ") or chunks.get(b"VP8L")
    if pixels is None or b"ALPH" in chunks:
        raise ValueError("not a still RGB image in the WebP file")
    return b"RIFF" + struct.pack("<I", 4 + len(pixels)) + b"WEBP" + pixels


def _webp_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 12
    while at < len(content):
        size = int.from_bytes(content[at + 4 : at + 8], "little")
        end = at + 8 + size + size % 2
        if end > len(content):
            raise ValueError("the WebP file is cut short")
        yield content[at : at + 4], content[at:end]
        at = end
