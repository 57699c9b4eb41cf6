"""Finding a job: what is wrong with a user's file is said in one line, with the place in the user's own lines."""

from __future__ import annotations

import hashlib
import importlib.util
import marshal
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from blender_jobs._worker.loading import blame, code_sha256, load_job, sources_of
from blender_jobs.job import Job, JobError
from blender_jobs.orders import JobSource, sources_sha256

HEAD = "from dataclasses import dataclass\nfrom blender_jobs.job import Job\n"
GOOD = "@dataclass\nclass Cubes(Job):\n    count: int = 3\n"


@pytest.fixture(autouse=True)
def _own_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let each test import its own files: a job's folder comes to be on the path, its helpers in the cache."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    yield
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def write(folder: Path, body: str, name: str = "job.py") -> Path:
    """Write a job's file: the imports in lines 1 and 2, then the body from line 3."""
    path = folder / name
    path.write_text(HEAD + textwrap.dedent(body))
    return path


def load(path: Path, class_name: str = "") -> type[Job]:
    """Return the job's class."""
    return load_job(JobSource(str(path), class_name))[0]


def test_a_job_is_loaded_with_the_digest_of_its_file(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    job, tree = load_job(JobSource(str(path)))
    sources = sources_of(path, tree)
    assert job(count=5).count == 5  # type: ignore[call-arg, attr-defined]
    assert (
        sources_sha256({source.name: source.sha256 for source in sources})
        == hashlib.sha256(path.read_bytes()).hexdigest()
    )


def test_what_runs_is_what_was_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Python's cached bytecode tells edits apart by second and size alone.
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    for count in (3, 4):
        path = write(tmp_path, GOOD.replace("3", str(count)))
        os.utime(path, (1e9, 1e9))
        assert load(path)().count == count  # type: ignore[attr-defined]


def plant(source: Path, mark: Path) -> None:
    """Leave bytecode beside a source that Python runs in its place: marked as not to be checked."""
    code = compile(f"open({str(mark)!r}, 'w').close()", str(source), "exec")
    pyc = Path(importlib.util.cache_from_source(str(source)))
    pyc.parent.mkdir(exist_ok=True)
    pyc.write_bytes(importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + bytes(8) + marshal.dumps(code))


def test_planted_bytecode_is_run_by_python_alone(tmp_path: Path) -> None:
    """Not by us: neither for a module beside the job nor for one in a package there."""
    marks, package = tmp_path / "marks", tmp_path / "jobs" / "blendshard_test_parts"
    marks.mkdir()
    package.mkdir(parents=True)
    sources = [tmp_path / "jobs" / "blendshard_test_helper.py", package / "__init__.py", package / "colours.py"]
    for source in sources:
        source.write_text("RED = 3\n")
        plant(source, marks / source.stem)
    line = [sys.executable, "-c", "import blendshard_test_helper"]
    subprocess.run(line, cwd=tmp_path / "jobs", check=True)
    assert [path.name for path in marks.iterdir()] == ["blendshard_test_helper"]
    (marks / "blendshard_test_helper").unlink()
    head = "from blendshard_test_helper import RED\nfrom blendshard_test_parts.colours import RED as TOO\n"
    path = write(tmp_path / "jobs", head + GOOD.replace("3", "RED + TOO"))
    job, tree = load_job(JobSource(str(path)))
    assert job().count == 6  # type: ignore[attr-defined]
    assert list(marks.iterdir()) == []
    names = ["job.py", "blendshard_test_helper.py", *(f"blendshard_test_parts/{n}.py" for n in ("__init__", "colours"))]
    assert [source.name for source in sources_of(path, tree)] == names
    assert all(Path(source.path).read_bytes() for source in sources_of(path, tree))


@pytest.mark.parametrize("suffix", [".pyc", EXTENSION_SUFFIXES[0]])
def test_what_is_compiled_beside_a_job_is_not_run(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"blendshard_test_native{suffix}").write_bytes(b"\x7fELF")
    with pytest.raises(JobError, match=r"^job.py:3: import: ImportError: .*native.* is compiled; next to a job only"):
        load(write(tmp_path, "import blendshard_test_native\n"))


@pytest.mark.parametrize("changed", ["job.py", "blendshard_test_helper.py"])
@pytest.mark.parametrize("known", [True, False])
def test_nothing_runs_that_the_plan_does_not_know(changed: str, known: bool, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    (tmp_path / "blendshard_test_helper.py").write_text("")
    path = write(tmp_path, "import blendshard_test_helper\n" + GOOD)
    due = {name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in (path.name, HELPER)}
    if known:
        with (tmp_path / changed).open("a") as file:
            file.write(f"open({str(mark)!r}, 'w').close()\n")
    else:
        del due[changed]
    said = "has changed since its plan was made" if known else "is not among the plan's sources"
    with pytest.raises(JobError, match=f"{tmp_path / changed} {said}"):
        load_job(JobSource(str(path), due=due))
    assert not mark.exists()


HELPER = "blendshard_test_helper.py"


def test_the_jobs_folder_comes_first_for_the_job_and_last_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others' late imports find what is installed, whatever lies beside the job."""
    installed, jobs = tmp_path / "installed", tmp_path / "jobs"
    installed.mkdir()
    jobs.mkdir()
    monkeypatch.syspath_prepend(str(installed))
    for name in ("mine", "theirs"):
        (installed / f"blendshard_test_{name}.py").write_text("WHOSE = 'installed'\n")
        (jobs / f"blendshard_test_{name}.py").write_text("WHOSE = 'the job'\n")
    (installed / "blendshard_test_library.py").write_text(
        "def late():\n    import blendshard_test_theirs\n    return blendshard_test_theirs.WHOSE\n"
    )
    (jobs / "blendshard_test_library").mkdir()  # a folder of data hides no package
    head = "import blendshard_test_library\nimport blendshard_test_mine\n"
    body = "    whose: str = blendshard_test_mine.WHOSE + ', ' + blendshard_test_library.late()\n"
    job = load(write(jobs, head + GOOD + body))
    assert job().whose == "the job, installed"  # type: ignore[attr-defined]


def test_a_module_that_a_hook_imports_counts_from_then_on(tmp_path: Path) -> None:
    (tmp_path / "blendshard_test_helper.py").write_text("")
    path = write(tmp_path, GOOD + "    def setup(self):\n        import blendshard_test_helper\n")
    job, tree = load_job(JobSource(str(path)))
    assert [source.name for source in sources_of(path, tree)] == ["job.py"]
    job().setup()
    assert [source.name for source in sources_of(path, tree)] == ["job.py", "blendshard_test_helper.py"]


@pytest.mark.parametrize("kind", ["fifo", "huge"])
def test_a_source_that_might_never_end_is_not_read(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "job.py"
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.touch()
        os.truncate(path, 1 << 40)
    with pytest.raises(JobError, match=rf"^{path}: Is (no regular file|larger than 16 MiB)$"):
        load(path)


def test_the_only_job_needs_no_name_and_imported_ones_do_not_count(tmp_path: Path) -> None:
    write(tmp_path, "@dataclass\nclass Base(Job):\n    size: float = 1.0\n", "blendshard_test_base.py")
    path = write(tmp_path, "from blendshard_test_base import Base\n@dataclass\nclass Mine(Base):\n    count: int = 3\n")
    assert load(path).__name__ == "Mine"


def test_one_of_several_jobs_is_chosen_by_name(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD + GOOD.replace("Cubes", "Balls"))
    assert load(path, "Balls").__name__ == "Balls"
    with pytest.raises(JobError, match=rf"^{path} holds 2 jobs \(Balls, Cubes\); choose with {path}:NAME$"):
        load(path)
    with pytest.raises(JobError, match=rf"^{path} has no job 'Rods'; it has Balls, Cubes$"):
        load(path, "Rods")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("", "holds no Job subclass$"),
        ("class Cubes(Job):\n    count: int = 3\n", ": write @dataclass above class Cubes, so that"),
        (
            "@dataclass\nclass A(Job):\n    x: int = 1\nclass Cubes(A):\n    count: int = 3\ndel A",
            ": write @dataclass above class Cubes, so that",
        ),
        ("class Cubes(Job)\n    count = 3\n", ":3: SyntaxError: expected ':'$"),
        ("@dataclass\n  class Cubes(Job): ...\n", ":4: IndentationError: unexpected indent$"),
    ],
)
def test_a_file_that_holds_no_usable_job_is_named(tmp_path: Path, body: str, said: str) -> None:
    path = write(tmp_path, body)
    with pytest.raises(JobError, match=rf"^{path} ?{said}") as caught:
        load(path)
    assert "\n" not in str(caught.value)
    assert caught.value.trace == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("missing.py", "No such file or directory"),
        (".", "Is a directory"),
        ("job.txt", "is not a Python file: its name"),
    ],
)
def test_what_is_no_file_of_python_is_named(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "job.txt").write_text(HEAD + GOOD)
    with pytest.raises(JobError, match=rf"^{tmp_path / name}:? {said}"):
        load(tmp_path / name)


def test_an_error_at_import_is_said_at_its_line_with_the_users_calls(tmp_path: Path) -> None:
    path = write(tmp_path, "def table():\n    return {}['missing']\nCOLOURS = table()\n")
    with pytest.raises(JobError, match=r"^job.py:4: import: KeyError: 'missing'$") as caught:
        load(path)
    assert caught.value.trace == [
        f"{path}:5 in <module>: COLOURS = table()",
        f"{path}:4 in table: return {{}}['missing']",
    ]


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("raise ValueError('two\\n  lines')", "ValueError: two lines"),
        ("raise RuntimeError", "RuntimeError"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("import no_such_package", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("import json; json.loads('[')", r"JSONDecodeError: Expecting value: .*"),
    ],
)
def test_whatever_is_raised_becomes_one_line(tmp_path: Path, statement: str, said: str) -> None:
    with pytest.raises(JobError, match=rf"^job.py:3: import: {said}$") as caught:
        load(write(tmp_path, statement))
    assert len(caught.value.trace) == 1  # none of Python's own lines


def test_an_error_in_a_helper_file_is_said_at_the_helpers_line(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    (folder / "__init__.py").touch()
    helper = folder / "colours.py"
    helper.write_text("def pick(name):\n    return {}[name]\n")
    path = write(tmp_path, "from parts.colours import pick\nRED = pick('red')\n")
    with pytest.raises(JobError, match=rf"^{helper}:2: import: KeyError: 'red'$") as caught:
        load(path)
    assert caught.value.trace == [
        f"{path}:4 in <module>: RED = pick('red')",
        f"{helper}:2 in pick: return {{}}[name]",
    ]


def test_a_helper_that_is_no_python_is_named_with_the_line_that_imports_it(tmp_path: Path) -> None:
    (tmp_path / "blendshard_test_broken.py").write_text("\ndef pick(:\n")
    path = write(tmp_path, "import blendshard_test_broken\n")
    with pytest.raises(JobError, match=r"job.py:3: import: SyntaxError: .*\(blendshard_test_broken.py, line 2\)$"):
        load(path)


def test_our_own_lines_are_not_the_users_even_beside_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = tmp_path / "blendshard_test_ours"
    builtin = ours / "builtin"
    builtin.mkdir(parents=True)
    monkeypatch.setattr("blender_jobs._worker.loading._OWN_FOLDER", ours)
    monkeypatch.setattr("blender_jobs._worker.loading._BUILTIN_FOLDER", builtin)
    (ours / "stage.py").write_text("def cube():\n    raise ValueError('no size')\n")
    (builtin / "cubes.py").write_text("from blendshard_test_ours.stage import cube\ncube()\n")
    path = write(tmp_path, "import blendshard_test_ours.builtin.cubes\n")
    with pytest.raises(JobError, match=rf"^{builtin / 'cubes.py'}:2: import: ValueError: no size$") as caught:
        load(path)
    assert len(caught.value.trace) == 2  # a built-in job is read as a user's: as an example


def test_a_job_may_be_installed_among_packages_which_are_not_the_users(tmp_path: Path) -> None:
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "blendshard_test_package.py").write_text("raise ValueError('broken')\n")
    path = write(folder, "import blendshard_test_package\n")
    with pytest.raises(JobError, match=r"^job.py:3: import: ValueError: broken$"):
        load(path)


def test_an_error_in_a_hook_is_said_at_the_users_line_though_it_came_from_deeper(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD + "    def setup(self):\n        import json\n        json.dumps(object())\n")
    job = load(path)()
    said = r"^job.py:8: setup: TypeError: Object of type object is not JSON serializable$"
    with pytest.raises(JobError, match=said) as caught, blame(path, "setup"):
        job.setup()
    assert caught.value.trace == [f"{path}:8 in setup: json.dumps(object())"]


def test_an_error_outside_the_users_files_names_the_job_and_the_hook(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    job = load(path)()
    said = rf"^{path}: setup: NotImplementedError: Cubes has no setup\(\)$"
    with pytest.raises(JobError, match=said) as caught, blame(path, "setup"):
        job.setup()
    assert caught.value.trace == []


def test_what_was_said_once_is_not_said_again(tmp_path: Path) -> None:
    first = JobError("objects[0] is nan", ["a line"])
    with pytest.raises(JobError) as caught, blame(tmp_path / "job.py", "annotate"):
        raise first
    assert caught.value is first


def test_an_interrupt_is_no_error_of_the_job(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), blame(tmp_path / "job.py", "setup"):
        raise KeyboardInterrupt


def test_the_codes_digest_is_over_the_package_without_the_built_in_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blender_jobs._worker.loading._OWN_FOLDER", tmp_path)
    digests = [code_sha256()]
    for name, content in (("view.py", "1"), ("view.py", "2"), ("stage.py", "2")):
        (tmp_path / name).write_text(content)
        digests.append(code_sha256())
    (tmp_path / "stage.py").rename(tmp_path / "render.py")
    digests.append(code_sha256())
    assert len(set(digests)) == len(digests)
    (tmp_path / "builtin").mkdir()
    (tmp_path / "builtin" / "cube.py").write_text("a job counts for itself")
    (tmp_path / "view.pyc").touch()
    assert code_sha256() == digests[-1]
