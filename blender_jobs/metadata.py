"""Keep of an image file only what its pixels need: Blender writes render times into PNG text chunks, for one."""

from __future__ import annotations

import struct
from collections.abc import Iterator

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
_WEBP_KEPT = {b"VP8 ", b"VP8L"}
_JPEG_DROPPED = {*range(0xE1, 0xF0), 0xFE}  # APP1 to APP15 (Exif, profiles), comments


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
    at = len(_PNG_SIGNATURE)
    while at < len(content):
        size = int(struct.unpack_from(">I", content, at)[0])
        yield content[at + 4 : at + 8], content[at : at + 12 + size]  # length, type, data, CRC
        at += 12 + size


def _strip_jpeg(content: bytes) -> bytes:
    if not content.startswith(b"\xff\xd8"):
        raise ValueError("not a JPEG file")
    kept, at = [content[:2]], 2
    while content[at + 1] != 0xDA:  # start of scan: compressed data up to the end
        end = at + 2 + int(struct.unpack_from(">H", content, at + 2)[0])
        if content[at + 1] not in _JPEG_DROPPED:
            kept.append(content[at:end])
        at = end
    return b"".join([*kept, content[at:]])


def _strip_webp(content: bytes) -> bytes:
    if content[:4] != b"RIFF" or content[8:12] != b"WEBP":
        raise ValueError("not a WebP file")
    kept, at = b"", 12
    while at < len(content):
        size = int(struct.unpack_from("<I", content, at + 4)[0])
        end = at + 8 + size + size % 2
        if content[at : at + 4] in _WEBP_KEPT:
            kept += content[at:end]
        at = end
    return b"RIFF" + struct.pack("<I", 4 + len(kept)) + b"WEBP" + kept
