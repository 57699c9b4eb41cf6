"""What a build leaves on the disk and says: for every tool of the trade to read, to continue and to extend."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import tomllib
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image

from loaders.manifest import Manifest
from tests.commands import TINY, annotations, digests, forked, forked_ok, run, write_job


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards of seven samples, the last episode of each cut."""
    out = tmp_path_factory.mktemp("dataset") / "falling_cubes"
    forked_ok(*TINY, "--shards", 2, "--samples-per-shard", 7, "--out", out)
    return out


def test_plain_webdataset_reads_every_sample(dataset: Path) -> None:
    pattern = f"{dataset}/falling_cubes-train-{{000000..000001}}.tar"
    samples = list(webdataset.WebDataset(pattern, shardshuffle=False).decode("pil"))
    assert [sample["__key__"] for sample in samples] == [f"{s:06d}-{i:06d}" for s in range(2) for i in range(7)]
    for sample in samples:
        assert sample["png"].size == (64, 48)
        assert sample["keypoints.npy"].shape == (8 * len(sample["json"]["objects"]), 4)
        assert sample["keypoints.npy"].dtype == np.float32


def test_keypoints_array_and_annotations_say_the_same(dataset: Path) -> None:
    samples = list(webdataset.WebDataset(str(next(dataset.glob("*.tar"))), shardshuffle=False).decode())
    assert [len(sample["json"]["objects"]) for sample in samples] == [7] * 7
    for sample in samples:
        flat = [value for entry in sample["json"]["objects"] for value in entry["keypoints"]]
        assert np.array_equal(sample["keypoints.npy"][:, :3].ravel(), np.asarray(flat, np.float32))
        for entry in sample["json"]["objects"]:
            assert entry["num_keypoints"] == sum(flag > 0 for flag in entry["keypoints"][2::3])


def test_every_sample_carries_what_annotations_promise(dataset: Path) -> None:
    for at, fields in enumerate(annotations(dataset)):
        assert {"camera", "image", "episode", "frame", "seed", "objects"} <= fields.keys()
        assert fields["image"] == {"width": 64, "height": 48}
        assert np.shape(fields["camera"]["K"]) == (3, 3)
        assert np.shape(fields["camera"]["cam_to_world"]) == (4, 4)
        assert fields["episode"] == (0, 0, 0, 0, 0, 1, 1, 2, 2, 2, 2, 2, 3, 3)[at]
        assert fields["frame"] == (1, 26, 51, 76, 101, 1, 26)[at % 7]
        assert len(fields["objects"]) == 7
        for entry in fields["objects"]:
            assert np.shape(entry["box3d"]) == (8, 3)
            assert np.shape(entry["pose"]) == (4, 4)


def test_cubes_fall_and_come_to_rest_on_the_plane(dataset: Path) -> None:
    first, last = annotations(dataset)[0], annotations(dataset)[4]
    assert len(first["objects"]) == 7
    for before, after in zip(first["objects"], last["objects"], strict=True):
        assert before["matrix_world"][2][3] > 5.9, "drawn from 6 to 12 m"
        assert after["matrix_world"][2][3] < before["matrix_world"][2][3] - 4
        assert min(corner[2] for corner in after["box3d"]) > -0.1, "nothing sinks into the plane"


def test_images_hold_nothing_but_pixels(dataset: Path) -> None:
    samples = list(webdataset.WebDataset(str(next(dataset.glob("*.tar"))), shardshuffle=False))
    assert len(samples) == 7
    for sample in samples:
        image = Image.open(io.BytesIO(sample["png"]))
        image.load()
        assert (image.mode, image.info) == ("RGB", {})


@pytest.mark.parametrize(("image", "quality"), [("jpg", 90), ("webp", 90), ("webp", 100)])
def test_other_image_formats_hold_the_same_picture(image: str, quality: int, dataset: Path, tmp_path: Path) -> None:
    chosen = ["--image", image, "--quality", quality]
    forked_ok(*TINY, "--shards", 1, "--samples-per-shard", 7, *chosen, "--out", tmp_path / "out")
    pairs = [str(next(folder.glob("*-000000.tar"))) for folder in (dataset, tmp_path / "out")]
    png, other = (next(iter(webdataset.WebDataset(path, shardshuffle=False).decode("rgb8"))) for path in pairs)
    difference = np.abs(png["png"].astype(int) - other[image].astype(int))
    assert difference.max() == 0 if quality == 100 else difference.mean() < 4


def test_the_manifest_says_what_is_there(dataset: Path) -> None:
    manifest = Manifest.load(dataset)
    assert {shard.name: shard.sha256 for shard in manifest.shards} == digests(dataset)
    assert manifest.plan["seed"] == 0
    assert manifest.plan["job"]["fields"] == {"cubes": 7, "every": 25, "min_cubes": None}
    assert manifest.plan["blender"]["version"].startswith(("4.", "5."))
    assert manifest.schema["members"]["png"]["shape"] == [48, 64, 3]
    assert manifest.schema["annotations"]["objects"][0]["bbox"] == ["float"]


def test_the_content_digest_survives_another_encoder(dataset: Path, tmp_path: Path) -> None:
    forked_ok(
        *TINY, "--shards", 1, "--samples-per-shard", 7, "--image", "webp", "--quality", 100, "--out", tmp_path / "out"
    )
    one, other = Manifest.load(dataset).shards[0], Manifest.load(tmp_path / "out").shards[0]
    assert one.content_sha256 == other.content_sha256
    assert one.sha256 != other.sha256


def test_running_again_keeps_and_repairs(dataset: Path, tmp_path: Path) -> None:
    command = [*TINY, "--shards", 2, "--samples-per-shard", 7, "--out", dataset, "--json"]
    before = digests(dataset)
    assert json.loads(forked_ok(*command))["samples_rendered"] == 0
    first, second = sorted(dataset.glob("*.tar"))
    content = bytearray(first.read_bytes())
    content[len(content) // 2] ^= 1
    first.write_bytes(content)
    second.unlink()
    damaged = forked("verify", dataset)
    assert damaged.returncode == 3
    assert first.name in damaged.stderr
    assert second.name in damaged.stderr
    assert "Traceback" not in damaged.stderr
    assert json.loads(forked_ok(*command))["samples_rendered"] == 14
    assert digests(dataset) == before
    assert "14 samples" in forked_ok("verify", dataset)


def test_another_plan_is_refused_by_the_name_of_its_field(dataset: Path) -> None:
    before = digests(dataset)
    command = [*TINY, "--shards", 2, "--samples-per-shard", 7, "--out", dataset]
    for options, field in (
        (["--seed", 1], "seed"),
        (["--set", "cubes=5"], "job.fields.cubes"),
        (["--samples-per-shard", 8], "samples_per_shard"),
        (["--image", "jpg"], "render.image"),
    ):
        refused = forked(*command, *options)
        assert refused.returncode == 4
        assert f": {field} was" in refused.stderr
    assert digests(dataset) == before


def test_fresh_begins_anew(tmp_path: Path) -> None:
    command = ["cube", *TINY, "--samples-per-shard", 2, "--out", tmp_path / "out"]
    forked_ok(*command, "--shards", 3)
    forked_ok(*command, "--shards", 1, "--seed", 3, "--fresh")
    assert Manifest.load(tmp_path / "out").plan["seed"] == 3
    assert len(digests(tmp_path / "out")) == 1


def test_dry_run_writes_nothing(tmp_path: Path) -> None:
    said = forked_ok("--shards", 3, "--dry-run", "--out", tmp_path / "out")
    assert "would render 300 samples (3 of 3 shards)" in said
    plan = json.loads(forked_ok("--shards", 3, "--dry-run", "--json", "--out", tmp_path / "out"))
    assert plan["plan"]["render"]["settings"]["cycles.samples"] == 16
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_looks_at_the_job_before_anyone_knows_how_many_shards(tmp_path: Path) -> None:
    assert "would render 100 samples (1 of 1 shards)" in forked_ok("cube", "--dry-run", "--out", tmp_path / "out")
    job = write_job(tmp_path, "frames: range = range(0)")
    done = forked(job, "--dry-run", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "Small.frames is empty" in done.stderr
    assert not (tmp_path / "out").exists()


def test_config_file_and_command_line_mean_the_same(dataset: Path, tmp_path: Path) -> None:
    config = tmp_path / "plan.toml"
    config.write_text(
        'job = "falling_cubes"\nshards = 1\nsamples-per-shard = 7\nengine = "workbench"\n'
        'render_samples = 0\nsize = "64x48"\n[set]\ncubes = 3\nevery = 25\n'
    )
    tomllib.loads(config.read_text())
    planned = json.loads(forked_ok("--config", config, "--set", "cubes=7", "--dry-run", "--json"))["plan"]
    assert planned == Manifest.load(dataset).plan


def test_a_job_of_ones_own_needs_no_registration(tmp_path: Path) -> None:
    """One file, found by its path, its fields set and typed, its own fields in the annotations."""
    hooks = """
        size: float = 1.0
        tint: tuple[float, float, float] = (1.0, 0.0, 0.0)

        def randomize(self, rng):
            stage.paint(self.cube, self.tint)
            self.cube.scale = [self.size] * 3

        def annotate(self, view):
            return {"objects": [view.describe(self.cube, category="box", mood="calm")], "tint": np.array(self.tint)}
    """
    job = write_job(tmp_path, hooks, name="my job.py")
    out = tmp_path / "out"
    forked_ok(
        f"{job}:Small",
        *TINY,
        "--shards",
        1,
        "--samples-per-shard",
        3,
        "--set",
        "size=2",
        "--set",
        "tint=0,1,0",
        "--out",
        out,
    )
    assert list(digests(out)) == ["my_job-train-000000.tar"]
    fields = annotations(out)[0]
    assert fields["tint"] == [0.0, 1.0, 0.0]
    assert fields["objects"][0]["dimensions"] == [2.0, 2.0, 2.0]
    assert fields["objects"][0]["mood"] == "calm"


def test_a_module_beside_the_job_is_part_of_the_plan(tmp_path: Path) -> None:
    (tmp_path / "sizes.py").write_text("SIZE = 1.0")
    job = write_job(tmp_path, "def randomize(self, rng):\n    self.cube.scale = [sizes.SIZE] * 3", head="import sizes")
    command = [job, *TINY, "--shards", 1, "--samples-per-shard", 3, "--out", tmp_path / "out"]
    forked_ok(*command)
    forked_ok(*command)
    (tmp_path / "sizes.py").write_text("SIZE = 2.5")
    _expect_changed(forked(*command), f"the module {tmp_path / 'sizes.py'} has changed", tmp_path)
    write_job(tmp_path, "def randomize(self, rng):\n    self.cube.scale = [2.5] * 3")
    said = _expect_changed(forked(*command), f"the job file {job} has changed", tmp_path)
    assert "the module sizes.py is no longer used" in said


def test_an_edited_job_is_named_with_when_and_what_to_do(tmp_path: Path) -> None:
    """Values that follow from the edit come after it; digests tell nobody anything."""
    job = write_job(tmp_path, "")
    command = [job, *TINY, "--shards", 1, "--samples-per-shard", 3, "--out", tmp_path / "out"]
    forked_ok(*command)
    job.write_text(job.read_text().replace("range(1, 4)", "range(1, 7)"))
    os.utime(job, (0, datetime(2031, 5, 6, 7, 8, 9).timestamp()))
    said = _expect_changed(forked(*command), f"the job file {job} has changed (2031-05-06 07:08:09)", tmp_path)
    assert "job.frames was [1, 2, 3], is [1, 2, 3, 4, 5, 6]" in said
    assert not re.search("[0-9a-f]{16}", said.replace(str(tmp_path), ""))


def _expect_changed(refused: subprocess.CompletedProcess[str], what: str, folder: Path) -> str:
    assert refused.returncode == 4
    written = datetime.fromtimestamp((folder / "out" / "dataset.json").stat().st_mtime)
    assert f"out holds another plan, last rendered {written:%Y-%m-%d %H:%M:%S}: {what}" in refused.stderr
    lost = "or start over with --fresh, which removes 1 finished shard with 3 samples"
    assert f"Try: name another place with --out to keep both, {lost}\n" in refused.stderr
    return refused.stderr


def test_show_draws_a_sample_and_a_sheet(dataset: Path, tmp_path: Path) -> None:
    forked_ok("show", dataset, "--out", tmp_path / "sheet.png", "--count", 6, "--columns", 3, "--width", 64)
    forked_ok("show", dataset, "000001-000003", "--out", tmp_path / "one.png", "--width", 128)
    with Image.open(tmp_path / "sheet.png") as sheet, Image.open(tmp_path / "one.png") as one:
        assert sheet.width > 3 * 64
        assert one.size == (128, 96)
        assert len(one.getcolors(1 << 20) or []) > 10


def test_replay_renders_one_episode_to_the_same_bytes(dataset: Path, tmp_path: Path) -> None:
    written = forked_ok("replay", dataset, "--episode", 2, "--out", tmp_path / "episode").splitlines()
    assert len(written) == 5 * 3
    stored = webdataset.WebDataset(str(sorted(dataset.glob("*.tar"))[1]), shardshuffle=False)
    sample = next(iter(stored))
    for member in ("png", "json", "keypoints.npy"):
        assert (tmp_path / "episode" / f"{sample['__key__']}.{member}").read_bytes() == sample[member]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("compile-dataset --sh", "--shards"),
        ("compile-dataset fall", "falling_cubes"),
        ("compile-dataset ver", "verify"),
    ],
)
def test_shell_completion(words: str, offered: str) -> None:
    env = {"_COMPILE_DATASET_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": "1"}
    assert offered in run(env=env).stdout
