"""The reader of OpenEXR files: what it takes, and that it refuses all else with a ValueError."""

from __future__ import annotations

import contextlib
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blender_jobs._render import formats

ROWS = {
    "layer.A": np.array([[0.0, -0.25, 1.5], [2.0, 65504.0, 0.1]], dtype=np.float16),
    "layer.Depth.Z": np.array([[1.5, np.inf, 3e-38], [1e10, -2.0, 0.1]], dtype=np.float32),
    "layer.Object Index.X": np.array([[1, 0, 2**32 - 1], [7, 8, 9]], dtype=np.uint32),
}
TYPES = {np.dtype(np.uint32): 0, np.dtype(np.float16): 1, np.dtype(np.float32): 2}


def attribute(name: str, kind: str, value: bytes) -> bytes:
    return f"{name}\0{kind}\0".encode() + struct.pack("<I", len(value)) + value


def file(compression: int = 0, version: int = 0x402, sampling: int = 1, line_order: int = 0) -> bytes:
    """An EXR file with `ROWS`, by the format's description, its window beginning at (5, -3)."""
    channels = b"".join(
        name.encode() + b"\0" + struct.pack("<4I", TYPES[rows.dtype], 0, sampling, sampling)
        for name, rows in ROWS.items()
    )
    head = b"v/1\x01" + struct.pack("<I", version)
    head += attribute("channels", "chlist", channels + b"\0")
    head += attribute("compression", "compression", bytes([compression]))
    head += attribute("dataWindow", "box2i", struct.pack("<4i", 5, -3, 7, -2))
    head += attribute("lineOrder", "lineOrder", bytes([line_order])) + b"\0"
    rows = [b"".join(array[y].tobytes() for array in ROWS.values()) for y in range(2)]
    rows = [struct.pack("<2i", y - 3, len(row)) + row for y, row in enumerate(rows)]
    return head + struct.pack("<2Q", len(head) + 16, len(head) + 16 + len(rows[0])) + b"".join(rows)


def test_channels_come_out_as_they_were_stored() -> None:
    """Names, types and bits of all three pixel types."""
    read = formats.read_exr(file())
    assert list(read) == list(ROWS)
    for name, rows in ROWS.items():
        assert read[name].dtype == rows.dtype
        np.testing.assert_array_equal(read[name], rows)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\x89PNG", "not an EXR file"),
        (file(compression=3), "compressed"),
        (file(version=0x202), "tiled, deep or of several parts"),
        (file(version=0x1002), "tiled, deep or of several parts"),
        (file(sampling=2), "subsampled"),
        (file(line_order=1), "do not run downwards"),
        (file() + b"\0", "bytes, not the"),
    ],
)
def test_another_kind_of_file_is_refused(data: bytes, says: str) -> None:
    """One line that says what is wrong with it."""
    with pytest.raises(ValueError, match=says):
        formats.read_exr(data)


def test_a_cut_file_is_refused_wherever_it_is_cut() -> None:
    """No length of it but the whole is taken."""
    whole = file()
    for length in range(len(whole)):
        with pytest.raises(ValueError, match="EXR"):
            formats.read_exr(whole[:length])


@given(st.integers(0, len(file()) - 1), st.integers(0, 255))
def test_a_damaged_file_never_breaks_the_reader(at: int, byte: int) -> None:
    """Any byte changed: it is read, or refused with a ValueError."""
    data = bytearray(file())
    data[at] = byte
    with contextlib.suppress(ValueError):
        formats.read_exr(bytes(data))
