"""A user's own `.blend`: the same bytes as ever, nothing runs untrusted, what is missing or changed is named."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.commands import TINY, annotations, digests, forked, forked_ok, start, workers, write_job

MAKE = """
import sys
import bpy
from pathlib import Path

folder = Path(sys.argv[1])
bpy.ops.wm.read_homefile(use_factory_startup=True)
image = bpy.data.images.new("wood", 8, 8)
image.filepath_raw, image.file_format = str(folder / "wood.png"), "PNG"
image.save()
material = bpy.data.objects["Cube"].data.materials[0]
material.use_nodes = True
texture = material.node_tree.nodes.new("ShaderNodeTexImage")
texture.image = bpy.data.images.load(str(folder / "wood.png"))
texture.image.filepath = "//wood.png"
shader = next(node for node in material.node_tree.nodes if node.type == "BSDF_PRINCIPLED")
material.node_tree.links.new(texture.outputs["Color"], shader.inputs["Base Color"])
bpy.data.images.remove(image)
text = bpy.data.texts.new("start.py")
text.write("import bpy, pathlib; (pathlib.Path(bpy.data.filepath).parent / 'was_run').touch()")
text.use_module = True
bpy.ops.wm.save_as_mainfile(filepath=str(folder / "scene.blend"))
"""

HOOKS = """
def setup(self):
    self.cube = bpy.data.objects["Cube"]

def randomize(self, rng):
    self.cube.location.x = rng.uniform(-1, 1)

def step(self, rng, frame):
    self.cube.rotation_euler.z += rng.uniform(0, 1)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("blend")
    subprocess.run([sys.executable, "-c", MAKE, str(folder)], check=True, capture_output=True)
    return folder


@pytest.fixture
def scene(made: Path, tmp_path: Path) -> Path:
    """Return a folder with a job, its `scene.blend` and the texture that this uses."""
    folder = tmp_path / "own scene"
    shutil.copytree(made, folder)
    write_job(folder, HOOKS, head="import bpy")
    return folder


def words(scene: Path, out: str, shards: int = 2) -> list[object]:
    return [
        *(scene / "job.py", "--blend", scene / "scene.blend", "--out", scene / out),
        *("--shards", shards, "--samples-per-shard", 4, *TINY),
    ]


def test_a_scene_without_a_job_is_refused_with_the_job_that_begins_one(made: Path, tmp_path: Path) -> None:
    """Nothing falls into a user's scene unasked, and what the refusal says to do works as it stands."""
    one = ["--blend", made / "scene.blend", "--shards", 1]
    refused = forked(*one, cwd=tmp_path)
    assert refused.returncode == 2
    assert not list(tmp_path.iterdir())
    begun, said, hint = refused.stderr.strip().rsplit("\n", 2)
    assert said.startswith(f"Error: --blend {made / 'scene.blend'} is a scene, and no job")
    (tmp_path / "scene_job.py").write_text(begun)
    words = shlex.split(hint.partition("compile-dataset ")[2])
    done = forked(*words, *TINY, "--samples-per-shard", 2, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    first, second = annotations(tmp_path / "scene_job")
    assert first["objects"][0]["name"] == "Cube"
    assert first["objects"][0]["pose"] != second["objects"][0]["pose"]


def test_a_configuration_that_names_the_job_may_leave_the_scene_to_the_command(made: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text('job = "cube"\nshards = 1\n')
    done = forked("--config", "plan.toml", "--blend", made / "scene.blend", "--dry-run", *TINY, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_bytes_are_the_same_for_any_number_of_instances_and_after_a_kill(scene: Path) -> None:
    forked_ok(*words(scene, "one"), "--instances", 1)
    others = workers()
    running = start(*words(scene, "two"), "--instances", 2)
    while running.poll() is None and not (begun := workers() - others):
        time.sleep(0.05)
    time.sleep(0.5)
    os.kill(min(begun), signal.SIGKILL)
    running.communicate()
    forked_ok(*words(scene, "two"), "--instances", 2)
    assert digests(scene / "one") == digests(scene / "two")


def test_the_plan_names_the_blend_and_what_it_uses_and_a_changed_texture_is_another(scene: Path) -> None:
    forked_ok(*words(scene, "out", shards=1))
    plan = json.loads((scene / "out" / "dataset.json").read_bytes())["plan"]
    assert plan["job"]["blend"] == "scene.blend"
    assert sorted(plan["assets"]) == ["scene.blend", "wood.png"]
    with (scene / "wood.png").open("ab") as file:
        file.write(b"\0")
    refused = forked(*words(scene, "out", shards=3))
    assert refused.returncode == 4
    assert f"the asset {scene / 'wood.png'} has changed (" in refused.stderr


def test_a_missing_texture_is_named_before_anything_is_rendered(scene: Path) -> None:
    (scene / "wood.png").unlink()
    refused = forked(*words(scene, "out"))
    assert refused.returncode == 2
    assert f"uses {scene / 'wood.png'}, which is missing" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (scene / "out").exists()


def test_scripts_in_the_blend_run_only_when_it_is_trusted(scene: Path) -> None:
    careful = forked(*words(scene, "out"), "--dry-run")
    assert careful.returncode == 0
    assert not (scene / "was_run").exists()
    assert "--trust-blend runs it" in careful.stderr
    forked_ok(*words(scene, "out"), "--dry-run", "--trust-blend")
    assert (scene / "was_run").exists()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [("absent.blend", None, "absent.blend"), ("other.blend", b"not a blend file", "cannot open it")],
)
def test_a_blend_that_cannot_be_opened_is_one_line(scene: Path, name: str, content: bytes | None, said: str) -> None:
    if content is not None:
        (scene / name).write_bytes(content)
    refused = forked("job.py", "--blend", name, "--shards", 1, *TINY, cwd=scene)
    assert refused.returncode == 2
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_job_may_name_its_blend_itself(scene: Path) -> None:
    write_job(scene, 'blend = "scene.blend"\n' + HOOKS, head="import bpy")
    forked_ok(scene / "job.py", "--shards", 1, "--samples-per-shard", 2, *TINY, "--out", scene / "out")


@pytest.mark.parametrize(("content", "said"), [(slice(60), "is cut short"), (slice(0), "cannot read it as an image")])
def test_a_damaged_texture_is_named(content: slice, said: str, scene: Path) -> None:
    """Blender shows what memory happens to hold in the place of the rest: never the same bytes."""
    (scene / "wood.png").write_bytes((scene / "wood.png").read_bytes()[content])
    refused = forked(*words(scene, "out"))
    assert refused.returncode == 2
    assert f"{scene / 'wood.png'}" in refused.stderr
    assert said in refused.stderr


def test_a_misspelt_object_is_suggested(scene: Path) -> None:
    write_job(scene, HOOKS.replace('["Cube"]', '["Cub"]'), head="import bpy")
    refused = forked(*words(scene, "out"))
    assert refused.returncode == 2
    assert "nothing here is called 'Cub'; did you mean the object 'Cube'?" in refused.stderr
