"""What `show` draws fits the width of a screen, unless the user asks for more."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from blender_jobs.passes import PASSES
from compiler.preview import contact_sheet, draw_sample
from compiler.storage.published import Published, spread
from loaders.manifest import Manifest
from loaders.tarstream import Sample
from tests.commands import forked, run
from tests.planned_dataset import Recipe, make

FIVE = ("depth", "distance", "normals", "segmentation", "albedo")
SCREEN = 1920

Drawn = tuple[list[Sample], Manifest]


def made(folder: Path, **recipe: object) -> Drawn:
    manifest = make(folder, Recipe(size=(64, 48), shards=1, samples_per_shard=12, frames=(1, 2), **recipe))  # type: ignore[arg-type]
    return spread(Published(folder, manifest), 12), manifest


def test_a_sheet_with_five_passes_has_one_sample_in_a_row_all_pictures_beside_it(tmp_path: Path) -> None:
    sheet = contact_sheet(*made(tmp_path, passes=FIVE), None, None, with_passes=True)
    assert 1800 < sheet.width <= SCREEN
    height = (sheet.height - 13 * 8) // 12
    assert abs(height - 315 * 48 / 64) < 2


@pytest.mark.parametrize("recipe", [{}, {"passes": FIVE}, {"passes": tuple(PASSES)}, {"cameras": ("left", "right")}])
@pytest.mark.parametrize("with_passes", [False, True])
def test_no_sheet_and_no_sample_is_wider_than_a_screen(
    recipe: dict[str, object], with_passes: bool, tmp_path: Path
) -> None:
    samples, manifest = made(tmp_path, **recipe)
    sheet = contact_sheet(samples, manifest, None, None, with_passes)
    alone = draw_sample(samples[0], manifest, None, with_passes)
    assert 900 < alone.width <= SCREEN
    assert 900 < sheet.width <= SCREEN


def test_what_is_wrapped_is_all_there(tmp_path: Path) -> None:
    """Six pictures: 638 pixels wide each, in two rows of three."""
    samples, manifest = made(tmp_path, passes=FIVE)
    alone = draw_sample(samples[0], manifest, None, with_passes=True)
    height = round(638 * 48 / 64)
    assert alone.size == (3 * 638 + 2 * 2, 2 * height + 2)
    for row in range(2):
        for column in range(3):
            left, top = column * 640, row * (height + 2)
            inside = alone.crop((left, top, left + 638, top + height))
            assert len(inside.getcolors(1 << 20) or []) > 1


def test_a_user_who_asks_for_columns_and_a_width_gets_them(tmp_path: Path) -> None:
    samples, manifest = made(tmp_path)
    assert contact_sheet(samples, manifest, 12, 320).width == 12 * 320 + 13 * 8
    wide: Image.Image = contact_sheet(samples[:1], manifest, None, 4000)
    assert wide.width == 4000 + 2 * 8


def test_a_picture_is_named_after_its_dataset_in_the_working_directory(tmp_path: Path) -> None:
    """As its help says; samples of two datasets have the same keys."""
    made(tmp_path / "out" / "cubes")
    here = tmp_path / "here"
    here.mkdir()
    for key, name in (((), "cubes.png"), (("000000-000003",), "cubes-000000-000003.png")):
        done = forked("show", "../out/cubes", *key, cwd=here)
        assert (done.returncode, done.stdout) == (0, f"{name}\n")
    assert {path.name for path in here.iterdir()} == {"cubes.png", "cubes-000000-000003.png"}
    assert "./<name>.png or ./<name>-<key>.png, named after DIR" in " ".join(run("show", "--help").stdout.split())
