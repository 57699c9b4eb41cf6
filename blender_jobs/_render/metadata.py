"""Keep of an image file only what its pixels need: Blender writes render times into PNG text chunks, for one."""

from __future__ import annotations

import struct
from collections.abc import Iterator

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
_JPEG_DROPPED = {*range(0xE1, 0xEE), 0xEF, 0xFE}  # APP1 to APP15 (Exif, profiles), comments; not Adobe's colour model


def strip(content: bytes, image: str) -> bytes:
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
