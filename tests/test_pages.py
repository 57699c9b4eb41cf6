"""What the documentation shows runs as it stands there: every block of every page, in the order of the page."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.commands import TINY, run
from tests.in_blender import needs_bpy
from tests.live_tees import Compiler, beside
from tests.pages import PAGES, ROOT, Block, blocks
from tests.synthetic import full_members

TYPED = [f"docs/tutorial/{name}.md" for name in ("first-dataset", "own-scene", "own-blend", "train")]
TYPED += ["docs/how-to/verification.md"]
"""Pages whose commands a reader types one after the other, in one folder."""

LIVE = ["docs/how-to/live.md", "docs/reference/tee.md"]
JOBS = "docs/how-to/jobs.md"
ELSEWHERE = {
    "README.md": "test_readme",
    "CONTRIBUTING.md": "test_readme",
    "docs/how-to/loaders.md": "test_loaders_docs",
}

INSTALLING = re.compile(r"^(git clone|python3 -m venv|scripts/system-packages|pip install)\b")
"""What `.ci/run` does in a fresh virtual environment, with the README's line."""

TOKEN = "correct-horse-battery-staple"


def test_every_page_with_code_is_run_by_a_test() -> None:
    with_code = {str(page.relative_to(ROOT)) for page in PAGES if _runnable(page)}
    assert with_code == {*TYPED, *LIVE, JOBS, *ELSEWHERE}


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
    (folder / "scenes").mkdir(parents=True)
    (folder / "scripts").symlink_to(ROOT / "scripts")
    (folder / "scenes" / "one.blend").write_bytes((ROOT / "examples" / "assets" / "still_life.blend").read_bytes())
    said = ""
    for block in [block for page in TYPED for block in blocks(page)]:
        if block.title:
            (folder / block.title).write_text(block.text, encoding="utf-8")
        elif block.language == "bash":
            for line in block.text.splitlines():
                said += _typed(line, folder)
    assert "epoch 2: loss " in said
    assert "(4, 3, 120, 160)" in said
    assert {path.name for path in folder.glob("*/dataset.json")} == {"dataset.json"}
    assert {path.parent.name for path in folder.glob("*/dataset.json")} == {
        "falling_cubes",
        "dice",
        "nine_dice",
        "table",
        "again",
    }


def _typed(line: str, folder: Path) -> str:
    """Run a line as a reader types it, with cheap renders; return its stdout."""
    if INSTALLING.match(line):
        return ""
    words = shlex.split(line, comments=True)
    if words[0] != "compile-dataset":
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run(
            ["bash", "-c", line], cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
    else:
        line_words = ["3" if word == "20" else word for word in words[1:]]  # samples that are rendered again
        done = run(*line_words, *(TINY if "--shards" in words or "--dry-run" in words else []), cwd=folder)
    assert done.returncode == (2 if line.endswith("# prints a job") else 0), f"{line}\n{done.stdout}{done.stderr}"
    return done.stdout


JOB = """
import bpy

{blocks}

def calibrated():
    {camera}
    return camera


class Whole(Spheres):
    categories = (PERSON, "leaf")

    def setup(self):
        self.leaf = stage.cube("leaf", size_m=0.3)
        kit = bpy.data.collections.new("kit")
        kit.objects.link(self.leaf)
        for x in (-0.3, 0.3):
            twig = stage.link(bpy.data.objects.new("twig", None))
            twig.instance_type, twig.instance_collection, twig.location.x = "COLLECTION", kit, x
        calibrated()

    randomize = Spheres.randomize

    def annotate(self, view):
        found = annotate(self, view)
        assert len(found["objects"]) == 2
        return found
"""


@pytest.mark.slow
@needs_bpy
def test_the_code_of_the_page_on_jobs_runs_in_blender(tmp_path: Path) -> None:
    python = [block.text for block in blocks(JOBS, "python")]
    camera = [text for text in python if "set_intrinsics" in text]
    others = [text for text in python if "set_intrinsics" not in text]
    assert (len(camera), len(others)) == (1, 3)
    text = JOB.format(blocks="\n".join(others), camera=textwrap.indent(camera[0], "    ").strip())
    (tmp_path / "job.py").write_text(text, encoding="utf-8")
    words = ["job.py:Whole", "--shards", 1, "--samples-per-shard", 1, "--out", "made"]
    done = run(*words, *TINY, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    shown = run("show", "made", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr


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
