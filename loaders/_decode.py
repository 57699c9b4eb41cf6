"""Samples decoded from bytes to arrays, and transformed. Nothing is unpickled, every size is bounded."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, TypedDict, get_args

import numpy as np
from numpy.typing import NDArray

from loaders.content import MAX_PIXELS, load_image, open_image, read_array
from loaders.errors import SampleError
from loaders.format import IMAGES, kind_of

if TYPE_CHECKING:
    import torch

ImageLayout = Literal["CHW", "HWC"]
Output = Literal["torch", "numpy", "tv_tensors"]
Integers = Literal["int32", "int64"]
Floats = Literal["float32"]
Transform = Callable[..., Any]
"""Takes a sample, and ``epoch=`` if it has a parameter of that name; returns what to use instead, or None."""

_IMAGES = {**IMAGES, "jpeg": IMAGES["jpg"]}
"""Pillow's names of image formats by member kind: ours, and ``jpeg`` as other datasets have it."""


class Decoding(TypedDict, total=False):
    """How samples are decoded: the arguments of `Decoder`, which all datasets take, too."""

    image_layout: ImageLayout
    output: Output
    integers: Integers | None
    floats: Floats | None
    members: Collection[str] | None
    max_pixels: int


class Decoder:
    """Turns a key and named bytes into a sample.

    A sample is a dict with ``key`` (str) and, for each member:

    - ``png``, ``jpg``, ``jpeg``, ``webp``: ``image``, uint8, RGB, (3, H, W) or (H, W, 3). EXIF is ignored. "CHW" is a
      view of (H, W, 3) memory (torch's channels_last), as transposing it would cost more than reading it.
    - ``json``: ``annotations``, a dict.
    - ``<name>.npy``: ``<name>``: ``keypoints`` float32 (K, 4): x, y in pixels from the outer corner of the top-left
      pixel, visibility, depth in metres; ``depth`` float32 (H, W); ``segmentation`` int32 (H, W) ...
    - anything else: its bytes under its own name.

    If a dataset has several cameras, their names come first: ``left.png`` becomes ``left.image``.

    Args:
        image_layout: "CHW" or "HWC".
        output: "torch" for tensors, "numpy" for arrays (torch is not imported then), "tv_tensors" for the input of
            torchvision's transforms v2 (see `loaders.tv`).
        integers: "int32" or "int64" to widen arrays of integers, except bytes; uint32 always becomes int64. By default
            int32, as torch supports few operations on uint16; with "numpy", as stored.
        floats: "float32" widens float16; by default as stored.
        members: the names (``image``, ``keypoints``, ``annotations`` ...) to decode; by default all.
        max_pixels: largest width times height of an image.
    """

    def __init__(
        self,
        *,
        image_layout: ImageLayout = "CHW",
        output: Output = "torch",
        integers: Integers | None = None,
        floats: Floats | None = None,
        members: Collection[str] | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        _check("image_layout", image_layout, ImageLayout)
        _check("output", output, Output)
        _check("integers", integers, Integers, None)
        _check("floats", floats, Floats, None)
        if output == "tv_tensors" and image_layout != "CHW":
            raise ValueError("tv_tensors are (3, H, W): leave image_layout out, or choose another output")
        if isinstance(members, str):
            raise ValueError(f"members must be a list of names, such as [{members!r}]")
        self.max_pixels = max_pixels
        """The largest image that is decoded."""
        self._layout, self._output = image_layout, output
        self._members = None if members is None else frozenset(members) - {"key"}
        self._integers = integers or ("" if output == "numpy" else "int32")
        self._floats = floats or ""
        if output == "tv_tensors":
            from loaders.tv import check_version

            check_version(self._members)

    def __call__(self, key: str, members: Mapping[str, bytes]) -> dict[str, Any]:
        """Decode one sample.

        Raises:
            SampleError: a member is not of the kind that its name says, is too large, or is missing; the message names
                it.
        """
        sample: dict[str, Any] = {"key": key}
        for member, content in members.items():
            name = field_name(member)
            if self._members is not None and name not in self._members:
                continue
            if name in sample:
                raise SampleError(f"{key}.{member}: there is another {name!r} in the sample")
            try:
                sample[name] = self._decode(name, member, content)
            except SampleError as error:
                raise SampleError(f"{key}.{member}: {error}") from None
        if self._members is not None and (missing := self._members - sample.keys()):
            raise SampleError(f"sample {key!r} has no {', '.join(sorted(missing))}; it has {', '.join(members)}")
        if self._output == "tv_tensors":
            from loaders.tv import as_tv_tensors  # nothing else needs torchvision

            return as_tv_tensors(sample)
        return sample

    def _decode(self, name: str, member: str, content: bytes) -> object:
        kind = kind_of(member)
        if kind in _IMAGES:
            image = decode_image(content, _IMAGES[kind], self.max_pixels)
            return self._converted(image.transpose(2, 0, 1) if self._layout == "CHW" else image)
        if kind == "json":
            return decode_json(content)
        if kind != "npy":
            return content
        array = decode_npy(content)
        if kind_of(name) == "keypoints" and (array.dtype != np.float32 or array.shape[1:] != (4,)):
            raise SampleError(f"keypoints are float32 (K, 4), not {array.dtype} {array.shape}")
        return self._converted(self._widened(array))

    def _widened(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the array in the requested dtype, or in one that holds all values of both.

        Raises:
            SampleError: a value does not fit int64.
        """
        if array.dtype.kind in "iu" and array.dtype.itemsize > 1 and self._integers:
            if array.dtype != np.uint64:
                return array.astype(np.promote_types(array.dtype, self._integers), copy=False)
            if array.size and int(array.max()) > np.iinfo(np.int64).max:
                raise SampleError(f"the array holds {array.max()}, which int64 cannot hold; use output='numpy'")
            return array.astype(np.int64)
        if array.dtype.kind == "f" and self._floats:
            return array.astype(np.promote_types(array.dtype, self._floats), copy=False)
        return array

    def _converted(self, array: NDArray[Any]) -> NDArray[Any] | torch.Tensor:
        if self._output == "numpy":
            return array
        import torch  # numpy users need not have it

        try:
            return torch.from_numpy(array)
        except (TypeError, ValueError, RuntimeError) as error:
            raise SampleError(f"torch has no tensor of {array.dtype} {array.shape}: {error}") from None


def _check(name: str, value: object, kinds: Any, *others: object) -> None:
    if value not in (*get_args(kinds), *others):
        raise ValueError(f"{name} must be {' or '.join(map(repr, get_args(kinds)))}, not {value!r}")


@lru_cache(maxsize=256)
def field_name(member: str) -> str:
    """Return a member's name in a decoded sample."""
    prefix, dot, kind = member.rpartition(".")
    if kind in _IMAGES:
        return f"{prefix}{dot}image"
    return f"{prefix}{dot}annotations" if kind == "json" else member.removesuffix(".npy")


def decode_image(content: bytes, image_format: str, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Return an RGB image as uint8 (H, W, 3).

    Raises:
        SampleError: not an image of this format, not 8-bit RGB, or too large.
    """
    image = open_image(content)
    if image.format != image_format:
        raise SampleError(f"it is a {image.format} file, not {image_format}")
    if image.mode != "RGB":
        raise SampleError(f"the image's mode is {image.mode}, not RGB")
    load_image(image, max_pixels)
    return np.array(image)


def decode_json(content: bytes) -> dict[str, Any]:
    """Return a JSON object.

    Raises:
        SampleError: not JSON, not an object, or nested too deep.
    """
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise SampleError(f"not readable JSON: {error}") from None
    if not isinstance(value, dict):
        raise SampleError(f"the JSON is a {type(value).__name__}, not an object")
    return value


def decode_npy(content: bytes) -> NDArray[Any]:
    """Return the array of numbers in a ``.npy`` file, in native byte order and writable. Raises as `read_array`."""
    array = read_array(content)
    return array.astype(array.dtype.newbyteorder("="), order="C", copy=True)


class Transformed:
    """A user's transform, called with the epoch if it takes one.

    Args:
        transform: the user's; None leaves samples unchanged.
    """

    def __init__(self, transform: Transform | None) -> None:
        self._transform = transform
        self._takes_epoch = transform is not None and _takes_epoch(transform)

    def __call__(self, sample: dict[str, Any], epoch: int) -> Any:
        """Return what to use instead of a sample; None drops it."""
        if self._transform is None:
            return sample
        return self._transform(sample, epoch=epoch) if self._takes_epoch else self._transform(sample)


def _takes_epoch(transform: Transform) -> bool:
    if isinstance(transform, functools.partial) and "epoch" in transform.keywords:
        return False  # the user has set it
    try:
        return "epoch" in inspect.signature(transform).parameters
    except (TypeError, ValueError):  # a callable written in C
        return False
