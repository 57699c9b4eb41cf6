"""A digest over what a sample means, not how it is stored: it survives another encoder of the same pixels."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from blender_jobs.orders import MOST_PIXELS
from loaders.tarstream import IMAGES, kind_of, meaning_of

Array = npt.NDArray[Any]

_DECODERS: dict[bytes, Callable[[io.BytesIO], ImageFile]] = {
    b"\x89PNG": PngImageFile,
    b"\xff\xd8\xff": JpegImageFile,
    b"RIFF": WebPImageFile,
}
"""All that is ever decoded, by how it begins: Pillow knows many more, and runs Ghostscript for one.

Not by `Image.open`: it takes 179 megapixels for an attack, which is a limit of the whole process and below what a plan
may ask for. Ours is `MOST_PIXELS`, here as everywhere.
"""


def open_image(content: bytes, load: bool = False) -> Image.Image:
    """Return an image of which only the head is read: format, mode, size.

    Raises:
        ValueError: the bytes do not begin as an image does.
    """
    try:
        decoder = next((decoder for magic, decoder in _DECODERS.items() if content.startswith(magic)), None)
        if decoder is None:
            raise ValueError(f"begins with {content[:4]!r}")
        image: Image.Image = decoder(io.BytesIO(content))
        if load and image.width * image.height > MOST_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels are more than {MOST_PIXELS}")
        if load:
            image.load()
    except Exception as error:  # on bad bytes Pillow's decoders raise nearly every kind there is
        raise ValueError(f"not a readable image: {error}") from None
    return image


def decode_image(content: bytes, shape: Sequence[int] | None = None) -> Image.Image:
    """Return the decoded image. Its head is read first: a small file can claim pixels beyond any memory.

    Args:
        content: the file's bytes.
        shape: height, width and channels that it must have; None: up to `MOST_PIXELS`.

    Raises:
        ValueError: the bytes are not a whole image, or one of another shape.
    """
    head = open_image(content)
    found = [head.height, head.width, len(head.getbands())]
    if shape is not None and found != list(shape):
        raise ValueError(f"is {head.height}x{head.width} {head.mode}, not {'x'.join(map(str, shape))}")
    return open_image(content, load=True)


def digest_sample(key: str, members: Mapping[str, bytes], described: Mapping[str, Any] | None = None) -> bytes:
    """Return the sha256 over key, members, decoded pixels (size, mode, bytes) and all other bytes.

    Args:
        key: the sample's.
        members: its members.
        described: what each must be (``shape``), by name; None: whatever they are, as our own Blender made them.

    Raises:
        ValueError: an image cannot be decoded, or has another shape.
    """
    digest = hashlib.sha256(key.encode())
    kinds = sorted((meaning_of(name), name) for name in members)
    for kind, name in kinds:
        content = meaning = members[name]
        if kind_of(name) in IMAGES:
            if described is None:
                image = open_image(content, load=True)
            else:
                image = decode_image(content, described.get(name, {}).get("shape"))
            digest.update(f"{image.mode} {image.width}x{image.height}".encode())
            meaning = image.tobytes()
        digest.update(f"\n{kind} {len(meaning)}\n".encode())
        digest.update(meaning)
    return digest.digest()


def read_array(content: bytes) -> Array:
    """Return the array of a whole ``.npy`` file, nothing unpickled. Raises ValueError where it is none."""
    file = io.BytesIO(content)
    try:
        shape, fortran_order, dtype = _npy_header(file)
        if dtype.kind not in "biuf":
            raise ValueError(f"it holds {dtype}, not numbers")
        return np.frombuffer(content, dtype, offset=file.tell()).reshape(shape, order="F" if fortran_order else "C")
    except Exception as error:  # numpy evaluates the header: on bad bytes nearly every kind of exception
        raise ValueError(f"not a readable array: {error}") from None


def _npy_header(file: io.BytesIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    npy: Any = np.lib.format
    first_version = npy.read_magic(file) == (1, 0)
    shape, fortran_order, dtype = (npy.read_array_header_1_0 if first_version else npy.read_array_header_2_0)(file)
    return shape, fortran_order, dtype


def segmentation_of(members: Mapping[str, bytes], annotations: str) -> Array | None:
    """Return the segmentation that belongs to a sample's annotations (``json``, ``left.json``), None without one.

    Raises:
        ValueError: it is no array.
    """
    content = members.get(f"{annotations.removesuffix('json')}segmentation.npy")
    return None if content is None else read_array(content)
