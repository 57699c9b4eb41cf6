"""Image files keep their pixels and lose all else: equal pixels, equal bytes."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin

from blender_jobs._render.formats import strip_metadata

SIZE = (24, 16)
PICTURE = Image.radial_gradient("L").resize(SIZE)
RGB = Image.merge("RGB", (PICTURE, PICTURE.rotate(90), PICTURE.rotate(180)))
PILLOWS = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}
SECRET = b"rendered at 12:34:56."  # of odd length: WebP pads it


def exif() -> Image.Exif:
    """Return Exif with a date and a name."""
    made = Image.Exif()
    made[0x0132] = SECRET.decode()
    return made


PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes() + SECRET


def png_text() -> PngImagePlugin.PngInfo:
    """Return text chunks of all kinds, and a time stamp, as Blender and its like write them."""
    info = PngImagePlugin.PngInfo()
    info.add_text("RenderTime", SECRET.decode())
    info.add_itxt("Date", SECRET.decode())
    info.add(b"tIME", bytes([7, 232, 1, 1, 12, 34, 56]))
    return info


def encode(image: str, picture: Image.Image = RGB, **options: Any) -> bytes:
    """Return the picture as a file of this format."""
    file = io.BytesIO()
    picture.save(file, PILLOWS[image], **options)
    return file.getvalue()


def pixels(image: str, content: bytes) -> tuple[str, bytes]:
    """Return mode and pixels, in colours."""
    with Image.open(io.BytesIO(content), formats=[PILLOWS[image]]) as opened:
        return opened.mode, opened.convert("RGBA").tobytes()


EXTRAS: dict[str, dict[str, Any]] = {
    "png": {"pnginfo": png_text(), "exif": exif(), "icc_profile": PROFILE, "dpi": (72, 72)},
    "jpg": {"comment": SECRET, "exif": exif(), "icc_profile": PROFILE},
    "webp": {"exif": exif(), "icc_profile": PROFILE, "xmp": SECRET},
}
PICTURES: list[tuple[str, Image.Image, dict[str, Any]]] = [
    ("png", RGB, {}),
    ("png", RGB.convert("P"), {}),
    ("png", RGB.convert("RGBA"), {}),
    ("png", RGB.quantize(8), {"transparency": 3}),
    ("jpg", RGB, {"quality": 95}),
    ("jpg", RGB, {"quality": 50, "progressive": True}),
    ("jpg", RGB, {"keep_rgb": True}),
    ("jpg", RGB.convert("CMYK"), {}),
    ("jpg", RGB, {"restart_marker_blocks": 1}),
    ("webp", RGB, {"quality": 95}),
    ("webp", RGB, {"lossless": True}),
    ("webp", RGB.convert("RGBA"), {"lossless": True}),
]


@pytest.mark.parametrize(("image", "picture", "options"), PICTURES, ids=lambda value: str(value)[:30])
def test_pixels_stay_and_all_else_goes(image: str, picture: Image.Image, options: dict[str, Any]) -> None:
    plain = encode(image, picture, **options)
    told = encode(image, picture, **options, **EXTRAS[image])
    stripped = strip_metadata(told, image)
    assert len(told) > len(stripped)
    assert stripped == strip_metadata(plain, image)  # a time that passed changes no byte
    assert strip_metadata(stripped, image) == stripped
    assert pixels(image, stripped) == pixels(image, plain)
    for text in (SECRET, b"Exif", b"ICC", b"XMP", b"tEXt", b"iTXt", b"tIME", b"pHYs"):
        assert text not in stripped


def test_a_jpeg_keeps_the_colour_model_that_its_adobe_marker_says() -> None:
    named = encode("jpg", keep_rgb=True)
    numbered = named.replace(b"R\x11\0G\x11\0B\x11\0", b"\1\x11\0\2\x11\0\3\x11\0").replace(
        b"R\0G\0B\0", b"\1\0\2\0\3\0"
    )
    assert pixels("jpg", numbered) == pixels("jpg", named)
    assert pixels("jpg", strip_metadata(numbered, "jpg")) == pixels("jpg", named)


@pytest.mark.parametrize("image", ["png", "webp"])
def test_what_stands_behind_the_image_goes(image: str) -> None:
    content = strip_metadata(encode(image), image)
    chunk = struct.pack(">I", 4) + b"tEXt" + b"a\0bc" + struct.pack(">I", zlib.crc32(b"tEXta\0bc"))
    extra = chunk if image == "png" else b"JUNK" + struct.pack("<I", 2) + b"ab"
    assert strip_metadata(content + extra, image) == content


@pytest.mark.parametrize(
    "save",
    [
        lambda: encode("webp", Image.merge("RGBA", (*RGB.split(), PICTURE)), quality=80),
        lambda: encode("webp", save_all=True, append_images=[RGB.rotate(90)]),
    ],
    ids=["lossy with transparency", "animated"],
)
def test_webp_that_cannot_be_kept_whole_is_refused(save: Callable[[], bytes]) -> None:
    with pytest.raises(ValueError, match="not a still RGB image"):
        strip_metadata(save(), "webp")


@pytest.mark.parametrize("image", PILLOWS)
def test_another_format_is_refused(image: str) -> None:
    for other in PILLOWS.keys() - {image}:
        with pytest.raises(ValueError, match=f"not a {PILLOWS[image]}".replace("WEBP", "WebP")):
            strip_metadata(encode(other), image)
    with pytest.raises(ValueError, match="not a WebP"):
        strip_metadata(encode("webp").replace(b"WEBP", b"WAVE"), "webp")


@pytest.mark.parametrize("image", PILLOWS)
def test_a_file_whose_pixels_are_cut_is_refused(image: str) -> None:
    content = encode(image, **EXTRAS[image])
    scan = content.rindex(b"\xff\xda") if image == "jpg" else len(content)  # behind it a JPEG says no lengths
    for size in range(scan):
        try:
            assert strip_metadata(content[:size], image) == strip_metadata(content, image)  # only metadata was cut
        except ValueError:
            continue


@given(st.sampled_from(list(PILLOWS)), st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=8))
def test_no_bytes_give_another_error(image: str, patches: list[tuple[int, int]]) -> None:
    content = bytearray(encode(image, **EXTRAS[image]))
    for place, byte in patches:
        content[place % min(100, len(content))] = byte
    with suppress(ValueError):
        strip_metadata(bytes(content), image)
