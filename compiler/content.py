"""A digest over what a sample means, not how it is stored: it survives another encoder of the same pixels."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping

from PIL import Image

IMAGES = {"png", "jpg", "webp"}


def decode_image(content: bytes) -> Image.Image:
    """Return the decoded image.

    Raises:
        ValueError: the bytes are not a whole image.
    """
    try:
        image = Image.open(io.BytesIO(content))
        image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"not a readable image: {error}") from None
    return image


def digest_sample(key: str, members: Mapping[str, bytes]) -> bytes:
    """Return the sha256 over key, members, decoded pixels (size, mode, bytes) and all other bytes.

    Raises:
        ValueError: an image cannot be decoded.
    """
    digest = hashlib.sha256(key.encode())
    for name, content in sorted(members.items()):
        kind = "image" if name in IMAGES else name
        meaning = content
        if name in IMAGES:
            image = decode_image(content)
            digest.update(f"{image.mode} {image.width}x{image.height}".encode())
            meaning = image.tobytes()
        digest.update(f"\n{kind} {len(meaning)}\n".encode())
        digest.update(meaning)
    return digest.digest()
