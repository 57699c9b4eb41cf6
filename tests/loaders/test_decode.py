"""From bytes to samples and batches: what comes out, and what does not come in."""

from __future__ import annotations

import io
import pickle
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from loaders import Decoder, SampleError, collate
from loaders._decode import decode_image, decode_json, decode_npy
from tests.synthetic import full_members, image_bytes, keypoints_of, npy_bytes, pixels_of


def test_a_sample_is_decoded_to_tensors() -> None:
    sample = Decoder()("000000-000007", full_members(7))
    assert sample.keys() == {"key", "image", "annotations", "keypoints", "depth", "segmentation", "txt"}
    assert torch.equal(sample["image"], torch.from_numpy(pixels_of(7).transpose(2, 0, 1)))
    assert torch.equal(sample["keypoints"], torch.from_numpy(keypoints_of(7)))
    assert (sample["depth"].dtype, sample["segmentation"].dtype) == (torch.float32, torch.int32)
    assert sample["annotations"] == {"frame": 7, "objects": [{"name": "cube"}]}
    assert sample["txt"] == b"sample 7"


_SEGMENTATION = npy_bytes(np.array([[0, 1], [255, 65535]], np.uint16))


@pytest.mark.parametrize("integers", [None, "int32", "int64"])
def test_a_segmentation_is_what_torch_works_with(integers: Any) -> None:
    ids = Decoder(integers=integers)("0", {"segmentation.npy": _SEGMENTATION})["segmentation"]
    assert ids.dtype == getattr(torch, integers or "int32")
    assert ids.tolist() == [[0, 1], [255, 65535]]
    assert torch.flip(ids, [1]).tolist() == [[1, 0], [65535, 255]]
    assert (ids == 65535).sum() == 1
    assert (ids > 1).tolist() == [[False, False], [True, True]]
    assert torch.arange(65536)[ids].tolist() == ids.tolist(), "an index"
    if integers == "int64":
        scores = torch.zeros(1, 65536, 2, 2)
        assert torch.nn.functional.cross_entropy(scores, ids[None]) > 0, "a target"


@pytest.mark.parametrize("output", ["torch", "numpy"])
@pytest.mark.parametrize("integers", [None, "int32", "int64"])
@pytest.mark.parametrize("floats", [None, "float32"])
@pytest.mark.parametrize("stored", [*"?bBhHiIqQefd"])
def test_numbers_are_widened_without_loss(stored: str, output: Any, integers: Any, floats: Any) -> None:
    if np.dtype(stored).kind == "f":
        array = np.frombuffer(np.arange(1 << 16, dtype=np.uint16).tobytes(), np.float16)
        array = array[np.isfinite(array)].astype(stored)
    else:
        limits = (0, 1) if stored == "?" else (np.iinfo(stored).min, min(np.iinfo(stored).max, (1 << 63) - 1))
        array = np.array([*limits, 1], stored)
    read = Decoder(output=output, integers=integers, floats=floats)("0", {"any.npy": npy_bytes(array)})["any"]
    values = read.numpy() if output == "torch" else read
    assert values.tolist() == array.tolist()
    asked = {"e": floats, **dict.fromkeys("hHi", integers or ("int32" if output == "torch" else None))}
    if integers or output == "torch":
        asked |= {"I": "int64", "q": "int64", "Q": "int64"}
    assert values.dtype == np.dtype(asked.get(stored) or stored)


def test_numbers_that_no_signed_integer_holds_are_an_error() -> None:
    member = {"any.npy": npy_bytes(np.array([1 << 63], np.uint64))}
    with pytest.raises(SampleError, match=r"k\.any\.npy: the array holds 9223372036854775808, which int64 cannot hold"):
        Decoder()("k", member)
    assert Decoder(output="numpy")("k", member)["any"].tolist() == [1 << 63]


@pytest.mark.parametrize("layout", ["CHW", "HWC"])
def test_layout_and_kind_of_arrays(layout: Any) -> None:
    pixels = pixels_of(0).transpose(2, 0, 1) if layout == "CHW" else pixels_of(0)
    tensor = Decoder(image_layout=layout)("0", full_members(0))["image"]
    array = Decoder(image_layout=layout, output="numpy")("0", full_members(0))["image"]
    assert isinstance(array, np.ndarray)
    assert array.tobytes() == tensor.numpy().tobytes() == pixels.tobytes()
    array[0], tensor[0] = 0, 0  # both can be written to, as transforms do


def test_only_the_chosen_members_are_decoded() -> None:
    members = full_members(0) | {"png": b"broken"}
    assert Decoder(members=["keypoints", "txt"])("0", members).keys() == {"key", "keypoints", "txt"}
    with pytest.raises(SampleError, match="sample 'k' has no flow; it has png"):
        Decoder(members=["flow"])("k", members)
    with pytest.raises(ValueError, match=r"list of names, such as \['image'\]"):
        Decoder(members="image")


def test_jpeg_and_webp_are_images_too() -> None:
    pixels = np.full((16, 16, 3), (200, 40, 90), np.uint8)
    jpeg = Decoder(output="numpy")("0", {"jpg": image_bytes(pixels, "JPEG", quality=95)})["image"]
    webp = Decoder(output="numpy")("0", {"webp": image_bytes(pixels, "WEBP", lossless=True)})["image"]
    assert np.abs(jpeg.astype(int) - pixels.transpose(2, 0, 1)).max() <= 3
    assert (webp == pixels.transpose(2, 0, 1)).all()


def test_exif_does_not_turn_an_image() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees to show"
    content = image_bytes(pixels_of(0), "JPEG", exif=exif)
    assert decode_image(content, "JPEG").shape == (6, 8, 3)


class Bomb:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    objects = np.empty(1, object)
    objects[0] = Bomb(mark)
    file = io.BytesIO()
    np.save(file, objects, allow_pickle=True)
    with pytest.raises(SampleError, match=r"k\.keypoints\.npy: the array is object"):
        Decoder()("k", {"keypoints.npy": file.getvalue()})
    bomb = pickle.dumps(Bomb(mark))
    sample = Decoder()("k", {"pkl": bomb, "pyd": bomb, "pth": bomb})
    assert sample == {"key": "k", "pkl": bomb, "pyd": bomb, "pth": bomb}, "bytes they are, and bytes they stay"
    assert not mark.exists()


def png_of_size(width: int, height: int) -> bytes:
    """Return a PNG of a few bytes that says it is that large."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(64))), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


def npy_saying(shape: str, descr: str = "<f4", content: bytes = b"") -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + content


@pytest.mark.parametrize(
    ("member", "content", "message"),
    [
        ("png", png_of_size(50_000, 50_000), "pixels are more than|decompression bomb"),
        ("png", png_of_size(640, 480), "not a readable image"),
        ("png", image_bytes(pixels_of(0))[:60], "not a readable image"),
        ("png", image_bytes(pixels_of(0), "JPEG"), "it is a JPEG file, not PNG"),
        ("png", image_bytes(np.zeros((4, 4, 4), np.uint8)), "mode is RGBA, not RGB"),
        ("jpg", image_bytes(np.zeros((4, 4), np.uint8), "JPEG"), "mode is L, not RGB"),
        ("depth.npy", npy_saying("(1000000, 1000000)"), "but 0 bytes follow"),
        ("depth.npy", npy_saying("(-1, -4)", content=bytes(16)), "not numbers"),
        ("depth.npy", npy_saying("(2,)", "|O", bytes(16)), "not numbers"),
        ("depth.npy", npy_saying("(2,)", "<U4", bytes(32)), "not numbers"),
        ("depth.npy", npy_bytes(np.zeros(5, np.float32))[:-1], "but 19 bytes follow"),
        ("depth.npy", b"", "not a readable npy file"),
        ("keypoints.npy", npy_bytes(np.zeros((8, 3), np.float32)), r"float32 \(K, 4\), not float32 \(8, 3\)"),
        ("keypoints.npy", npy_bytes(np.zeros((8, 4))), r"float32 \(K, 4\), not float64 \(8, 4\)"),
        ("json", b"{", "not readable JSON"),
        ("json", b"[]", "the JSON is a list, not an object"),
        ("json", b"[" * 100_000, "not readable JSON"),
        ("json", b"\xff\xfe", "not readable JSON"),
    ],
)
def test_bad_content_is_an_error_that_names_the_member(member: str, content: bytes, message: str) -> None:
    with pytest.raises(SampleError, match=rf"^000003-000042\.{member}: .*({message})"):
        Decoder()("000003-000042", {member: content})


def test_one_name_is_not_given_twice() -> None:
    image = image_bytes(pixels_of(0))
    with pytest.raises(SampleError, match=r"k\.jpg: there is another 'image'"):
        Decoder()("k", {"png": image, "jpg": image_bytes(pixels_of(0), "JPEG")})
    with pytest.raises(SampleError, match=r"k\.key\.npy: there is another 'key'"):
        Decoder()("k", {"key.npy": npy_bytes(np.zeros(1))})


VALID = (image_bytes(pixels_of(0)), image_bytes(pixels_of(0), "JPEG"), npy_bytes(keypoints_of(0)), b'{"a": [1.0]}')


@given(st.data())
def test_damaged_content_is_read_or_refused(data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(VALID)))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(content[: data.draw(st.integers(0, len(content)))])
    for decode in (lambda c: decode_image(c, "PNG"), lambda c: decode_image(c, "JPEG"), decode_npy, decode_json):
        try:
            decode(damaged)
        except SampleError:
            continue


@given(
    st.sampled_from([np.float32, np.uint16, ">f4", "<i8", np.bool_]),
    st.booleans(),
    st.lists(st.integers(0, 4), max_size=3),
)
def test_arrays_are_read_as_they_were_written(dtype: Any, fortran: bool, shape: list[int]) -> None:
    array = np.asarray(np.random.default_rng(0).random(shape) * 9, order="F" if fortran else "C").astype(dtype)
    read = decode_npy(npy_bytes(array))
    assert (read == array).all()
    assert read.shape == array.shape
    assert read.dtype == array.dtype.newbyteorder("=")


@pytest.mark.parametrize("layout", ["CHW", "HWC"])
def test_a_batch_stacks_what_can_be_stacked(layout: Any) -> None:
    decoder = Decoder(image_layout=layout)
    batch = collate([decoder(str(number), full_members(number)) for number in range(3)])
    assert batch["key"] == ["0", "1", "2"]
    assert batch["image"].shape == ((3, 3, 6, 8) if layout == "CHW" else (3, 6, 8, 3))
    for number in range(3):
        assert torch.equal(batch["image"][number], decoder("0", full_members(number))["image"])
    assert batch["keypoints"].shape == (3, 8, 4)
    assert [len(annotations["objects"]) for annotations in batch["annotations"]] == [0, 1, 2]
    arrays = collate([Decoder(image_layout=layout, output="numpy")("0", full_members(number)) for number in range(3)])
    assert (arrays["image"] == batch["image"].numpy()).all()


def test_ragged_and_chosen_names_become_lists() -> None:
    samples = [
        {"key": "a", "keypoints": torch.zeros(rows, 4), "depth": torch.zeros(2), "scale": 0.5} for rows in (8, 16)
    ]
    batch = collate(samples, lists=["depth"])
    assert [tuple(keypoints.shape) for keypoints in batch["keypoints"]] == [(8, 4), (16, 4)]
    assert isinstance(batch["depth"], list)
    assert batch["scale"].tolist() == [0.5, 0.5]


def test_samples_with_different_names_make_no_batch() -> None:
    with pytest.raises(SampleError, match=r"sample 'b' has \['key'\], 'a' has \['depth', 'key'\]; choose members="):
        collate([{"key": "a", "depth": torch.zeros(1)}, {"key": "b"}])
