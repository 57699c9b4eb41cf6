"""From what the user types as JOB to the file that holds it."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Collection
from pathlib import Path

from blender_jobs.orders import JobSource
from compiler.errors import UsageError


def builtin_jobs() -> dict[str, Path]:
    """Return the built-in jobs' files by name."""
    spec = importlib.util.find_spec("blender_jobs")
    assert spec is not None, "blender_jobs is installed with the compiler"
    folder = Path(str(spec.origin)).parent / "builtin"
    return {path.stem: path for path in sorted(folder.glob("*.py")) if path.stem != "__init__"}


def find_job(text: str, commands: Collection[str] = ()) -> JobSource:
    """Return where the job `text` (a built-in name or ``path/to/job.py[:Class]``) is.

    Args:
        text: the word.
        commands: what may have been meant where no job has this name.

    Raises:
        UsageError: there is no such job.
    """
    known = builtin_jobs()
    if text in known:
        return JobSource(str(known[text]))
    path, colon, class_name = text.rpartition(":") if ".py:" in text else (text, "", "")
    if path.endswith(".blend"):
        raise UsageError(
            f"{path} is a scene, not a job", f"pass it to one: compile-dataset path/to/job.py --blend {path}"
        )
    if not path.endswith(".py"):
        raise _no_such(text, list(known), list(commands))
    if not Path(path).is_file():
        raise UsageError(f"there is no job file {path}", "name a Python file that holds a Job class")
    if colon and not class_name.isidentifier():
        raise UsageError(
            f"{class_name!r} is not a class name", f"write {path}:ClassName, or {path} if it holds one job"
        )
    return JobSource(str(Path(path).resolve()), class_name)


def _no_such(text: str, jobs: list[str], commands: list[str]) -> UsageError:
    """Return the error that names what is close to `text`, and all that there is."""
    own = [f"{text}.py"] if Path(f"{text}.py").is_file() else []
    near = [*own, *difflib.get_close_matches(text, [*commands, *jobs])]
    kinds, listed = ("command or job", f"commands are {', '.join(commands)}; ") if commands else ("job", "")
    return UsageError(
        f"there is no {kinds} {text!r}" + (f"; did you mean {' or '.join(near)}?" if near else ""),
        f"{listed}built-in jobs are {', '.join(jobs)}; name your own as path/to/job.py",
    )
