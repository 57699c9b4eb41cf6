"""A digest over what a sample means, not how it is stored: it survives another encoder of the same pixels."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping

from PIL import Image

from loaders.tarstream import IMAGES, kind_of, meaning_of

_FORMATS = ("PNG", "JPEG", "WEBP")
"""All that is ever decoded: Pillow knows many more, and runs Ghostscript for one."""


def open_image(content: bytes, load: bool = False) -> Image.Image:
    """Return an image of which only the head is read: format, mode, size.

    Raises:
        ValueError: the bytes do not begin as an image does.
    """
    try:
        image = Image.open(io.BytesIO(content), formats=_FORMATS)
        if load:
            image.load()
    except Exception as error:  # on bad bytes Pillow's decoders raise nearly every kind there is
        raise ValueError(f"not a readable image: {error}") from None
    return image


def decode_image(content: bytes) -> Image.Image:
    """Return the decoded image.

    Raises:
        ValueError: the bytes are not a whole image.
    """
    return open_image(content, load=True)


def digest_sample(key: str, members: Mapping[str, bytes]) -> bytes:
    """Return the sha256 over key, members, decoded pixels (size, mode, bytes) and all other bytes.

    Raises:
        ValueError: an image cannot be decoded.
    """
    digest = hashlib.sha256(key.encode())
    kinds = sorted((meaning_of(name), name) for name in members)
    for kind, name in kinds:
        content = meaning = members[name]
        if kind_of(name) in IMAGES:
            image = decode_image(content)
            digest.update(f"{image.mode} {image.width}x{image.height}".encode())
            meaning = image.tobytes()
        digest.update(f"\n{kind} {len(meaning)}\n".encode())
        digest.update(meaning)
    return digest.digest()
