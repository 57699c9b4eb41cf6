"""Internal, shared with the compiler: members' content (images and arrays), and the digest of a sample's content.

Nothing is unpickled, every size is bounded, and only three image formats are decoded, by the decoders named here:
Pillow supports many more, and runs Ghostscript for one of them.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from loaders.errors import SampleError
from loaders.format import IMAGES, kind_of, meaning_of

MAX_PIXELS = 1 << 27
"""Largest image that is decoded by default, and the largest that a plan may request: 16384 x 8192 pixels, 400 MB."""

_DECODERS: dict[bytes, Callable[[io.BytesIO], ImageFile]] = {
    b"\x89PNG": PngImageFile,
    b"\xff\xd8\xff": JpegImageFile,
    b"RIFF": WebPImageFile,
}
"""By a file's first bytes. Not `Image.open`: its limits hold for the whole process, and it warns of an attack above 89
megapixels, which is below `MAX_PIXELS`."""


def open_image(content: bytes) -> ImageFile:
    """Return an image of which only the header is read: format, mode, size.

    Raises:
        SampleError: the bytes do not begin like an image.
    """
    decoder = next((decoder for magic, decoder in _DECODERS.items() if content.startswith(magic)), None)
    if decoder is None:
        raise SampleError(f"not a readable image: begins with {content[:4]!r}")
    try:
        return decoder(io.BytesIO(content))
    except Exception as error:  # on bad bytes Pillow's decoders raise nearly any kind of exception
        raise SampleError(f"not a readable image: {error}") from None


def decode_image(content: bytes, shape: Sequence[int] | None = None, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Return the decoded image. Its header is read first: a small file can claim more pixels than fit into memory.

    Args:
        content: the file's bytes.
        shape: the height, width and channels that it must have; None accepts any.
        max_pixels: largest width times height.

    Raises:
        SampleError: the bytes are not a whole image, or it has another shape, or is too large.
    """
    image = open_image(content)
    if shape is not None and [image.height, image.width, len(image.getbands())] != list(shape):
        raise SampleError(f"is {image.height}x{image.width} {image.mode}, not {'x'.join(map(str, shape))}")
    load_image(image, max_pixels)
    return image


def load_image(image: ImageFile, max_pixels: int = MAX_PIXELS) -> None:
    """Decode an opened image of at most `max_pixels` (width times height).

    Raises:
        SampleError: it is larger, or incomplete.
    """
    if image.width * image.height > max_pixels:
        raise SampleError(f"{image.width} x {image.height} pixels are more than {max_pixels}")
    try:
        image.load()
    except Exception as error:  # as above
        raise SampleError(f"not a readable image: {error}") from None


def read_array(content: bytes) -> NDArray[Any]:
    """Return the array of numbers in an ``.npy`` file as a read-only view of the bytes, in the stored dtype.

    Unlike `numpy.load`, it compares the header's shape with the number of bytes before it allocates anything.

    Raises:
        SampleError: not an npy file, not numbers, or a length that differs from its header.
    """
    start = _npy_header_size(content)
    shape, fortran_order, dtype = _npy_header(content[:start])
    if len(content) - start != prod(shape) * dtype.itemsize:
        raise SampleError(f"the header says {dtype} {shape}, but {len(content) - start} bytes follow it")
    try:
        return np.frombuffer(content, dtype, offset=start).reshape(shape, order="F" if fortran_order else "C")
    except (ValueError, TypeError, OverflowError) as error:  # a size of 0 and another that overflows
        raise SampleError(f"the array {dtype} {shape} cannot be made: {error}") from None


def _npy_header_size(content: bytes) -> int:
    """Return where the numbers begin: after the magic, the version, the header text's length and the text."""
    first_version = content[6:7] == b"\x01"
    text = 10 if first_version else 12
    return text + int.from_bytes(content[8:text], "little")


@lru_cache(maxsize=256)
def _npy_header(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, Fortran order and dtype. Cached, as it is slow to parse and equal in most samples."""
    file = io.BytesIO(header)
    try:
        major, _ = npy.read_magic(file)  # type: ignore[no-untyped-call]
        read = npy.read_array_header_1_0 if major == 1 else npy.read_array_header_2_0
        shape, fortran_order, dtype = read(file)  # type: ignore[no-untyped-call]
    except Exception as error:  # the header is a Python literal, and parsing one can fail in many ways
        raise SampleError(f"not a readable npy file: {error}") from None
    if dtype.kind not in "biuf" or dtype.itemsize > 8 or any(side < 0 for side in shape):
        raise SampleError(f"the array is {dtype} {shape}, not numbers")
    return shape, fortran_order, dtype


def content_digest(
    key: str,
    members: Mapping[str, bytes],
    described: Mapping[str, Any] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> bytes:
    """Return the sha256 of a sample's content, which does not depend on the encoder of its images.

    It covers the key, decoded pixels with their size and mode, and the bytes of all other members.

    Args:
        key: the sample's key.
        members: its members.
        described: the ``shape`` that each image must have, by member name, as in a manifest's schema; None accepts any.
        max_pixels: largest image that is decoded.

    Raises:
        SampleError: an image cannot be decoded, or has another shape; the message names it.
    """
    digest = hashlib.sha256(key.encode())
    for meaning, name in sorted((meaning_of(name), name) for name in members):
        content = members[name]
        if kind_of(name) in IMAGES:
            try:
                image = decode_image(content, (described or {}).get(name, {}).get("shape"), max_pixels)
            except SampleError as error:
                raise SampleError(f"{key}.{name}: {error}") from None
            digest.update(f"{image.mode} {image.width}x{image.height}".encode())
            content = image.tobytes()
        digest.update(f"\n{meaning} {len(content)}\n".encode())
        digest.update(content)
    return digest.digest()
