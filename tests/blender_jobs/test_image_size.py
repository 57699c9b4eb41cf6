"""There is one limit to an image's size. It is checked before anything is rendered, and what is allowed works."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blender_jobs.orders import LONGEST_SIDE, MOST_PIXELS, RenderSettings
from compiler.verification.verify import Verifier, examine_all
from loaders import _decode, content
from loaders._indexed import IndexedShards
from loaders.errors import SampleError
from loaders.tarstream import DEFAULT_MAX_BYTES
from tests.commands import run
from tests.loaders.test_decode import png_of_size
from tests.planned_dataset import Recipe, make

LARGEST = (16384, 8192)


def settings(width: int, height: int, image: str, engine: str = "cycles") -> RenderSettings:
    return RenderSettings(engine, 16, width, height, image, 90)


@pytest.mark.parametrize(
    ("size", "image", "refusal"),
    [
        (LARGEST, "png", ""),
        ((8192, 16384), "jpg", ""),
        ((12500, 8000), "webp", ""),
        ((65536, 2048), "png", ""),
        ((4, 4), "png", ""),
        ((3, 4), "png", "the size 3x4 is too small"),
        ((16384, 8193), "png", "the size 16384x8193 is too large: images have 134217728 pixels at most"),
        ((65536, 65536), "png", "pixels at most"),
        ((65537, 4), "png", "too large for png: its sides have 65536 pixels at most"),
        ((65501, 4), "jpg", "too large for jpg: its sides have 65500 pixels at most"),
        (LARGEST, "webp", "too large for webp: its sides have 16383 pixels at most"),
    ],
)
def test_the_limit_is_that_of_pixels_and_that_of_the_format(size: tuple[int, int], image: str, refusal: str) -> None:
    if refusal:
        with pytest.raises(ValueError, match=refusal):
            settings(*size, image)
    else:
        settings(*size, image)


@pytest.mark.parametrize("engine", ["eevee", "workbench"])
def test_engines_that_draw_with_opengl_have_its_limit_too(engine: str) -> None:
    settings(*LARGEST, "png", engine)
    with pytest.raises(ValueError, match=f"too large for {engine}: OpenGL draws 16384 pixels a side at most"):
        settings(16385, 4, "png", engine)


@pytest.mark.parametrize(("image", "kind"), [("png", "PNG"), ("jpg", "JPEG"), ("webp", "WEBP")])
def test_each_format_has_room_for_its_longest_side_and_no_more(image: str, kind: str) -> None:
    """As Pillow writes it; where a format has more room than Blender, Blender's limit counts."""
    longest = LONGEST_SIDE[image]
    for side in (longest, longest + 1):
        file = io.BytesIO()
        try:
            Image.new("RGB", (side, 4)).save(file, kind)
        except (OSError, ValueError):
            assert side > longest or image == "png"
        else:
            assert side <= longest or image == "png"


def test_no_decoder_takes_an_image_that_is_larger() -> None:
    """Whatever Pillow's own limit for the process is."""
    assert content.MAX_PIXELS == MOST_PIXELS == LARGEST[0] * LARGEST[1]
    larger = png_of_size(LARGEST[0], LARGEST[1] + 1)
    with pytest.raises(ValueError, match="16384 x 8193 pixels are more than 134217728"):
        content.decode_image(larger)
    with pytest.raises(SampleError, match="16384 x 8193 pixels are more than 134217728"):
        _decode.decode_image(larger, "PNG")


def test_a_size_that_cannot_be_is_refused_before_blender_starts(tmp_path: Path) -> None:
    line = ["cube", "--shards", 1, "--size", "65536x65536", "--blender", tmp_path / "none", "--out", tmp_path / "out"]
    done = run(*line, cwd=tmp_path)
    assert done.returncode == 2
    assert "the size 65536x65536 is too large" in done.stderr


def test_a_sample_that_no_reader_would_take_is_told_by_the_plan(tmp_path: Path) -> None:
    assert Recipe(size=LARGEST, passes=("depth",)).plan.sample_bytes == 7 * MOST_PIXELS <= DEFAULT_MAX_BYTES
    assert Recipe(size=(10, 10), passes=("normals", "flow")).plan.sample_bytes == 100 * (3 + 6 + 8 + 8)
    done = run("cube", "--shards", 1, "--size", "16384x8192", "--passes", "depth,distance", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "a sample with all its passes and cameras has up to 1.5 GB" in done.stderr
    assert not (tmp_path / "out").exists()


class Plain(Recipe):
    """A dataset with images of one colour, which are encoded soon."""

    def _image(self, rng: np.random.Generator) -> bytes:
        file = io.BytesIO()
        Image.new("RGB", self.size, (1, 2, 3)).save(file, "PNG", compress_level=1)
        return file.getvalue()


@pytest.mark.slow
def test_the_largest_images_are_verified_and_read_without_a_warning(tmp_path: Path) -> None:
    manifest = make(tmp_path, Plain(size=LARGEST, shards=1, samples_per_shard=1, frames=(1,)))
    verifier = Verifier(tmp_path, manifest)
    assert [report.problems for report in examine_all(verifier, 1)] == [[]]
    image = IndexedShards(tmp_path, members=["image"])[0]["image"]
    assert tuple(image.shape) == (3, LARGEST[1], LARGEST[0])
    assert image[:, -1, -1].tolist() == [1, 2, 3]
