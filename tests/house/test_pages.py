"""What the documentation shows runs as it is: every block of every page, in the order of the page."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.commands import TINY, run
from tests.house import test_loaders_docs
from tests.in_blender import needs_bpy
from tests.live_tees import Compiler, beside
from tests.pages import PAGES, ROOT, Block, blocks
from tests.synthetic import full_members

TYPED = [f"docs/tutorial/{name}.md" for name in ("first-dataset", "own-scene", "own-blend", "train")]
TYPED += [f"docs/how-to/{name}.md" for name in ("verification", "export", "label-sweep")]
"""Pages whose commands a reader types one after the other, in one folder."""

LIVE = ["docs/how-to/live.md", "docs/reference/tee.md"]
JOBS = [f"docs/how-to/{name}.md" for name in ("jobs", "scenes", "cameras", "labels")]
ELSEWHERE = {
    "README.md": "test_readme",
    "CONTRIBUTING.md": "test_readme",
    **dict.fromkeys((f"docs/how-to/{page.name}" for page in test_loaders_docs.PAGES), "test_loaders_docs"),
}

RUN_ELSEWHERE = re.compile(r"^(git clone|python3 -m venv|scripts/system-packages|scripts/sweep scenes --json)\b")
"""What `.ci/run` does in a fresh virtual environment, with the README's line, and what `test_sweep` runs."""

TOKEN = "correct-horse-battery-staple"


def test_every_page_with_code_is_run_by_a_test() -> None:
    with_code = {str(page.relative_to(ROOT)) for page in PAGES if _runnable(page)}
    assert with_code == {*TYPED, *LIVE, *JOBS, *ELSEWHERE}


def _runnable(page: Path) -> list[Block]:
    return [block for block in blocks(str(page.relative_to(ROOT))) if block.language in ("python", "bash")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_says_what_it_is_and_no_command_hides_in_another(page: Path) -> None:
    found = blocks(str(page.relative_to(ROOT)))
    assert {block.language for block in found} <= {"python", "bash", "text"}
    outside = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    indented = re.findall(r"^ {4,}(?:compile-dataset|curl|pip|python|import|from|with|for) .*$", outside, re.M)
    shown = [line for block in found if block.language == "text" for line in block.text.splitlines()]
    assert [line for line in [*indented, *shown] if line.lstrip().startswith(("compile-dataset", "curl", "pip "))] == []
    assert indented == []


@pytest.mark.slow
@needs_bpy
@pytest.mark.skipif(os.name == "nt", reason="the pages show the commands of a POSIX shell")
def test_the_tutorial_and_the_guide_to_verify_from_beginning_to_end(tmp_path: Path) -> None:
    (tmp_path / "blendshard").symlink_to(ROOT)
    folder = tmp_path / "mine"
    folder.mkdir()
    said = ""
    for block in [block for page in TYPED for block in blocks(page)]:
        if block.title:
            (folder / block.title).write_text(block.text, encoding="utf-8")
        elif block.language == "bash":
            for line in block.text.splitlines():
                said += _typed(line, folder)
    assert "epoch 2: loss " in said
    assert "(4, 3, 120, 160)" in said
    assert {path.parent.name for path in folder.glob("*/dataset.json")} == {
        "falling_cubes",
        "dice",
        "nine_dice",
        "table",
        "again",
    }


def _typed(line: str, folder: Path) -> str:
    """Run a line as a reader types it, with cheap renders; return its stdout."""
    if RUN_ELSEWHERE.match(line):
        return ""
    words = shlex.split(line, comments=True)
    if words[0] != "compile-dataset":
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run(
            ["bash", "-c", line], cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
    else:
        for option in ("--samples-per-shard", "--rerender"):
            if option in words:
                words[words.index(option) + 1] = "2"
        done = run(*words[1:], *(TINY if "--shards" in words or "--dry-run" in words else []), cwd=folder)
    assert done.returncode == (2 if line.endswith("# prints a job") else 0), f"{line}\n{done.stdout}{done.stderr}"
    return done.stdout


JOB = """
from dataclasses import dataclass
from blender_jobs import stage
from blender_jobs.job import Job

NAMES = {{"__name__": "page"}}
exec({module!r}, NAMES)
SCENE = {scene!r}
BUILDING = {building!r}
SEEING = {seeing!r}


@dataclass
class Whole(Job):
    frames = range(1, len(SEEING) + 1)

    def setup(self):
        exec(SCENE, NAMES)
        self.leaf = NAMES["leaf"]
        stage.camera(at=(0, -8, 3))

    def randomize(self, rng):
        NAMES["rng"] = rng
        exec(BUILDING, NAMES)

    def annotate(self, view):
        NAMES.update(view=view, self=self)
        exec(SEEING[view.scene.frame_current - 1], NAMES)
        return {{}}
"""
"""A job made of a page's pieces: each statement that looks at the view has a frame of its own."""

SCENE = """
import bpy
from types import SimpleNamespace
from blender_jobs import stage

def made(name, x, parent=None):
    cube = stage.cube(name, size_m=0.3)
    cube.location.x, cube.parent = x, parent
    return cube

leaf = made("leaf", 0)
kit = bpy.data.collections.new("kit")
kit.objects.link(leaf)
for x in (-0.5, 0.5):
    twig = stage.link(bpy.data.objects.new("twig", None))
    twig.instance_type, twig.instance_collection, twig.location.x = "COLLECTION", kit, x
robot = made("robot", 1)
made("hand", 0.4, robot)
car, body = made("car", -1), made("body", -1.5)
wheels = [made("wheel", -2), made("wheel", -2.5)]
trim = bpy.data.collections.new("trim")
bpy.context.scene.collection.children.link(trim)
trim.objects.link(made("strip", -3))
"""
"""What the pieces speak of, without making it themselves."""


@pytest.mark.slow
@needs_bpy
def test_the_code_of_the_guides_to_jobs_runs_in_blender(tmp_path: Path) -> None:
    module, building, seeing = [], [], []
    pieces = [block.text for page in JOBS for block in blocks(page, "python")]
    for node in [node for piece in pieces for node in ast.parse(piece).body]:
        text = ast.unparse(node)
        if isinstance(node, ast.FunctionDef):
            module.append(text)
            seeing.append(f"assert len({node.name}(self, view)['objects']) == 2")
        elif re.search(r"\bview\.", text) and not isinstance(node, ast.ClassDef):
            seeing.append(text)
        elif isinstance(node, ast.ClassDef | ast.Import | ast.ImportFrom):
            module.append(text)
        else:
            building.append(text)
    assert len(module) > 5
    assert len(building) > 3
    assert len(seeing) > 0
    text = JOB.format(module="\n".join(module), scene=SCENE, building="\n".join(building), seeing=seeing)
    (tmp_path / "job.py").write_text(text, encoding="utf-8")
    done = run("job.py", "--shards", 1, "--samples-per-shard", len(seeing), "--out", "made", *TINY, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (spheres,) = [piece for piece in pieces if "class Spheres(Job)" in piece]
    (tmp_path / "spheres.py").write_text(spheres, encoding="utf-8")
    done = run("spheres.py", "--dry-run", *TINY, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "One line that --dry-run shows." in done.stdout


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_the_code_of_the_pages_on_the_live_tee(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "token.header").write_text(f"Authorization: Bearer {TOKEN}")
    monkeypatch.setenv("TOKEN", TOKEN)
    names: dict[str, Any] = {"print": lambda *_: None}
    ran = 0
    for block in [block for page in LIVE for block in blocks(page)]:
        for code in [block.text] if block.language == "python" else block.lines:
            with _heard(tmp_path, code) as address:
                code = re.sub(r"http://(?:127\.0\.0\.1|render1):5555", address, code)
                if block.language == "python":
                    _run_python(code, names)
                else:
                    subprocess.run(["bash", "-o", "pipefail", "-ec", code], check=True, capture_output=True, timeout=60)
            ran += 1
    assert ran == 10
    assert len(list((tmp_path / "recording").glob("*.tar"))) > 0


def _run_python(code: str, names: dict[str, Any]) -> None:
    exec(compile(code, "page", "exec"), names)
    if "webdataset." in code:  # the page shows how the dataset is made
        pipeline = re.search(r"webdataset\.WebDataset\(.*", code)
        assert pipeline
        assert sum(1 for _ in eval(pipeline[0], names)) == 20
    elif "record=" in code:
        assert sum(1 for _ in names["dataset"]) == 20


@contextmanager
def _heard(folder: Path, code: str) -> Iterator[str]:
    """Let a compiler offer twenty samples to what `code` starts, and end; yield its address."""
    token = TOKEN if "TOKEN" in code or "token" in code else None
    both = "LiveThenShards" in code
    compiler = Compiler(folder=folder / "falling_cubes" if both else None, members=full_members)
    workers = re.search(r"num_workers=(\d)", code)
    with compiler.listening(token=token) as compiler:
        if "status" in code:
            yield compiler.address
            return
        with beside(compiler.run, listeners=int(workers[1]) if workers else 1):
            yield compiler.address
