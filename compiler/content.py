"""A digest over what a sample means, not how it is stored: it survives another encoder of the same pixels."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping

from PIL import Image

IMAGES = {"png", "jpg", "webp"}
_FORMATS = ("PNG", "JPEG", "WEBP")
"""All that is ever decoded: Pillow knows many more, and runs Ghostscript for one."""


def decode_image(content: bytes) -> Image.Image:
    """Return the decoded image.

    Raises:
        ValueError: the bytes are not a whole image.
    """
    try:
        image = Image.open(io.BytesIO(content), formats=_FORMATS)
        image.load()
    except Exception as error:  # on bad bytes Pillow's decoders raise nearly every kind there is
        raise ValueError(f"not a readable image: {error}") from None
    return image


def digest_sample(key: str, members: Mapping[str, bytes]) -> bytes:
    """Return the sha256 over key, members, decoded pixels (size, mode, bytes) and all other bytes.

    Raises:
        ValueError: an image cannot be decoded.
    """
    digest = hashlib.sha256(key.encode())
    kinds = sorted(("image" if name in IMAGES else name, name) for name in members)
    for kind, name in kinds:
        content = meaning = members[name]
        if name in IMAGES:
            image = decode_image(content)
            digest.update(f"{image.mode} {image.width}x{image.height}".encode())
            meaning = image.tobytes()
        digest.update(f"\n{kind} {len(meaning)}\n".encode())
        digest.update(meaning)
    return digest.digest()
