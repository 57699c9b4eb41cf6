"""Valid bytes for each parser: what fuzzing begins with and damages."""

from __future__ import annotations

import io
import json
import struct

import numpy as np
from PIL import Image

from blender_jobs import orders, wire
from loaders.manifest import Manifest
from loaders.tarstream import END, sample_record


def _image(kind: str) -> bytes:
    file = io.BytesIO()
    pixels = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    Image.fromarray(pixels, "RGB").save(file, format=kind)
    return file.getvalue()


def _npy(dtype: str) -> bytes:
    file = io.BytesIO()
    np.save(file, np.arange(8).reshape(2, 4).astype(dtype))
    return file.getvalue()


def _exr() -> bytes:
    """Return a 2x1 picture of one float channel, uncompressed: OpenEXR's file layout by hand."""

    def attribute(name: str, kind: str, value: bytes) -> bytes:
        return name.encode() + b"\0" + kind.encode() + b"\0" + struct.pack("<i", len(value)) + value

    box = struct.pack("<4i", 0, 0, 1, 0)
    channels = b"ViewLayer.Depth.Z\0" + struct.pack("<iBBBBii", 2, 0, 0, 0, 0, 1, 1) + b"\0"
    head = struct.pack("<ii", 20000630, 2) + b"".join(
        [
            attribute("channels", "chlist", channels),
            attribute("compression", "compression", b"\0"),
            attribute("dataWindow", "box2i", box),
            attribute("displayWindow", "box2i", box),
            attribute("lineOrder", "lineOrder", b"\0"),
            b"\0",
        ]
    )
    row = struct.pack("<ii2f", 0, 8, 1.0, 2.0)
    return head + struct.pack("<Q", len(head) + 8) + row


def _frame(message: orders.Request | orders.Answer, payload: bytes = b"") -> bytes:
    stream = io.BytesIO()
    wire.send(stream, orders.to_head(message), [payload])
    return stream.getvalue()


_RENDERED = orders.Rendered("000000-000000", 0, 1, {"png": 3})
_DESCRIBED = orders.Described("Job", "", "0" * 64, {"n": 1}, {"n": 1}, [1], False, {})
_RECORD = sample_record("000000-000000", {"json": b"{}", "keypoints.npy": _npy("<f4"), "left.png": _image("PNG")})
_MANIFEST = Manifest("cubes", {"seed": 0}, {"members": {}}, {}).to_json()

SEEDS: dict[str, list[bytes]] = {
    "messages": [_frame(_RENDERED, b"abc") + _frame(orders.Done(1)), _frame(_DESCRIBED)],
    "answers": [
        json.dumps(orders.to_head(message)).encode() for message in (_RENDERED, _DESCRIBED, orders.Probe("eevee"))
    ],
    "shards": [_RECORD + END, _RECORD],
    "manifests": [_MANIFEST],
    "arrays": [_npy(kind) for kind in ("<f4", "<u2", "<f2", "|b1")],
    "samples": [
        b"png\n" + _image("PNG"),
        b"left.jpg\n" + _image("JPEG"),
        b"webp\n" + _image("WEBP"),
        b"json\n{}",
        b"keypoints.npy\n" + _npy("<f4"),
    ],
    "passes": [_exr()],
    "images": [_image("PNG"), _image("JPEG"), _image("WEBP")],
    "settings": [
        b'count = 3\nsize = 1\nname = "x"\non = false\nplace = [1, 2.5, 3]\nnames = ["a", "b"]',
        b'count = "3"\nframes = "1:9:2"\nplace = "1,2,3"\nmaybe = "none"\npath = "b/c"\nkind = "b"\nsize = "1e3"',
    ],
}
