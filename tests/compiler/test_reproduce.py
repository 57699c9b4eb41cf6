"""A dataset comes back from its manifest alone; samples rendered again are the same, and what differs is said."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from compiler.errors import OtherPixels
from loaders.manifest import FILE_NAME, Manifest
from loaders.tarstream import read_samples
from tests.commands import TINY, digests, ok, run, write_job

HOOKS = """
color: Path = Path("red.bin")
helpers.anything()

def randomize(self, rng):
    stage.paint(self.cube, [byte / 255 for byte in assets.use(self.color).read_bytes()])
    self.cube.rotation_euler = rng.uniform(-3, 3, 3)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a job, its colour, a module that it imports, and its dataset ``out``."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "red.bin").write_bytes(b"\xff\x10\x10")
    (folder / "helpers.py").write_text("def anything():\n    pass\n")
    write_job(folder, HOOKS, head="import helpers\nfrom blender_jobs import assets")
    ok(folder / "job.py", "--shards", 2, "--samples-per-shard", 5, *TINY, "--out", folder / "out")
    return folder


def test_a_dataset_comes_back_from_its_manifest(made: Path, tmp_path: Path) -> None:
    said = ok("reproduce", made / "out" / FILE_NAME, "--out", tmp_path / "again", "--instances", 1)
    assert "the same bytes as the manifest says: 2 shards" in said
    assert digests(tmp_path / "again") == digests(made / "out")


def test_a_dataset_whose_jobs_passes_were_switched_off_comes_back_without_them(tmp_path: Path) -> None:
    job, out = write_job(tmp_path, "passes = ('depth',)"), tmp_path / "out"
    plan = [job, "--shards", 1, "--samples-per-shard", 3, *TINY]
    ok(*plan, "--passes", "none", "--out", out)
    assert Manifest.load(out).plan["job"]["passes"] == []
    assert "depth.npy" not in Manifest.load(out).schema["members"]
    assert "the same bytes" in ok("reproduce", out / FILE_NAME, "--out", tmp_path / "again")
    ok(*plan, "--out", tmp_path / "with")
    assert "depth.npy" in Manifest.load(tmp_path / "with").schema["members"]


def test_a_dataset_comes_back_on_another_machine(made: Path, tmp_path: Path) -> None:
    """The job's own folder is gone; there are the manifest with its copies, and the assets somewhere."""
    shutil.copytree(made / "out", tmp_path / "published")
    assets = tmp_path / "assets"
    assets.mkdir()
    shutil.copyfile(made / "red.bin", assets / "red.bin")
    manifest = Manifest.load(tmp_path / "published")
    elsewhere = json.dumps(manifest.provenance).replace(str(made), "/gone")
    moved = Manifest(manifest.name, manifest.plan, manifest.schema, json.loads(elsewhere), manifest.shards)
    (tmp_path / "published" / FILE_NAME).write_bytes(moved.to_json())
    for shard in (tmp_path / "published").glob("*.tar"):
        shard.unlink()
    for command in (["reproduce"], ["replay", "--episode", 0]):
        lost = run(*command, tmp_path / "published", "--out", tmp_path / "again")
        assert lost.returncode == 2
        assert "field color: there is no file or folder at /gone/red.bin" in lost.stderr
        assert "--assets" in lost.stderr
        assert not (tmp_path / "again").exists()
    ok("replay", tmp_path / "published", "--episode", 0, "--out", tmp_path / "episode", "--assets", assets)
    ok("reproduce", tmp_path / "published", "--out", tmp_path / "again", "--assets", assets)
    assert digests(tmp_path / "again") == digests(made / "out")


def test_another_job_or_asset_reproduces_nothing(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "made")
    job = write_job(tmp_path / "made", HOOKS + "    self.cube.location.x = 1\n", head="import helpers")
    refused = run("reproduce", made / "out", "--out", tmp_path / "again", "--job", job)
    assert refused.returncode in (2, 4)
    write_job(tmp_path / "made", HOOKS, head="import helpers\nfrom blender_jobs import assets")
    with (tmp_path / "made" / "red.bin").open("ab") as file:
        file.write(b"\0")
    refused = run("reproduce", made / "out", "--out", tmp_path / "again", "--job", job)
    assert refused.returncode == 4
    assert "red.bin has changed (" in refused.stderr
    assert not (tmp_path / "again").exists()


def test_samples_rendered_again_are_the_same(made: Path) -> None:
    assert "10 samples rendered again, 0 differ" in ok("verify", made / "out", "--rerender", "all")
    assert ", 0 differ (--pick 7)" in ok("verify", made / "out", "--rerender", 1, "--pick", 7)


def forged(made: Path, folder: Path, cpu: dict[str, object] | None = None) -> Path:
    """Return a dataset of another colour that claims to be this one's: its shards and digests fit each other."""
    shutil.copytree(made, folder, ignore=shutil.ignore_patterns("out"))
    (folder / "red.bin").write_bytes(b"\x10\x10\xff")
    ok(folder / "job.py", "--shards", 2, "--samples-per-shard", 5, *TINY, "--out", folder / "out")
    other, real = Manifest.load(folder / "out"), Manifest.load(made / "out")
    provenance = {**real.provenance, "cpu": cpu or real.provenance["cpu"]}
    claim = replace(other, plan=real.plan, provenance=provenance)
    (folder / "out" / FILE_NAME).write_bytes(claim.to_json())
    return folder / "out"


def test_pixels_that_are_not_the_plans_are_found(made: Path, tmp_path: Path) -> None:
    found = run("verify", forged(made, tmp_path / "forged"), "--rerender", 2, "--pick", 0)
    assert found.returncode == 3
    assert "PSNR" in found.stderr
    assert "same Blender build and processor" in found.stderr


def test_on_another_processor_the_difference_has_its_own_exit_code(made: Path, tmp_path: Path) -> None:
    found = run("verify", forged(made, tmp_path / "forged", {"model": "Z80", "features": []}), "--rerender", 1)
    assert found.returncode == OtherPixels.exit_code == 6
    assert "the processor was Z80" in found.stderr


def test_replay_leaves_a_scene_that_blender_opens(made: Path, tmp_path: Path) -> None:
    written = ok("replay", made / "out", "--episode", 2, "--out", tmp_path, "--save-blend").splitlines()
    assert tmp_path / "episode-2.blend" in map(Path, written)
    head = (tmp_path / "episode-2.blend").read_bytes()[:7]
    assert head.startswith((b"BLENDER", b"\x28\xb5\x2f\xfd"))  # plain, or zstd's magic


DRIFT = """
reuse_scene = True

def randomize(self, rng):
    self.cube.location.x += rng.uniform(0.2, 0.4)

def step(self, rng, frame):
    if "BROKEN" in os.environ and frame == 2:
        raise ValueError("broken now")
"""


def test_replay_of_a_scene_that_is_reused_gives_the_published_bytes(tmp_path: Path) -> None:
    """Each episode drifts on from the one before; where the last one fails, its scene is named."""
    job = write_job(tmp_path, DRIFT)
    ok(job, "--shards", 2, "--samples-per-shard", 5, *TINY, "--out", tmp_path / "out")
    ok("replay", tmp_path / "out", "--episode", 3, "--out", tmp_path / "episode")
    with sorted((tmp_path / "out").glob("*.tar"))[1].open("rb") as file:
        published = {
            f"{sample.key}.{name}": content for sample in read_samples(file) for name, content in sample.members.items()
        }
    replayed = {path.name: path.read_bytes() for path in (tmp_path / "episode").iterdir()}
    assert replayed == {name: published[name] for name in published if name[:13] >= "000001-000003"}
    line = ["replay", tmp_path / "out", "--episode", 3, "--out", tmp_path / "episode", "--save-blend"]
    broken = run(*line, env={"BROKEN": "1"})
    assert broken.returncode == 2
    assert "broken now" in broken.stderr
    assert f"is in {tmp_path / 'episode' / 'episode-3.blend'}" in broken.stderr


def test_a_dataset_is_continued_from_its_own_copy_of_the_job(tmp_path: Path) -> None:
    job, plan = write_job(tmp_path, ""), ["--samples-per-shard", 3, *TINY, "--out", tmp_path / "out"]
    ok(job, "--shards", 1, *plan)
    content = job.read_bytes()
    job.unlink()
    ok(tmp_path / "out" / "source" / "job.py", "--shards", 2, *plan)
    assert (tmp_path / "out" / "source" / "job.py").read_bytes() == content
