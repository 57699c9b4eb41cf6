"""Find a job's class, run the user's code, and say in the user's own lines what went wrong in it."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from blender_jobs._worker.sources import MODULE, SourceTree, open_tree
from blender_jobs.job import Job, JobError
from blender_jobs.orders import Asset, JobSource

_NO_SUCH_NAME = re.compile(r'bpy_prop_collection\[key\]: key "(.*)" not found')
_OWN_FOLDER = Path(__file__).parents[1]
_BUILTIN_FOLDER = _OWN_FOLDER / "builtin"


def load_job(source: JobSource) -> tuple[type[Job], SourceTree]:
    """Return the job's class and its sources: its file, and the modules beside it that it imports.

    Where the source names digests, nothing of it runs that has another.

    Raises:
        JobError: no such file, its code fails, or it holds no such job; one line that says where and why.
    """
    path = Path(source.path)
    tree = open_tree(path.parent.resolve(), source.due)
    try:
        content = tree.read(tree.folder / path.name)
    except OSError as error:
        raise JobError(f"{path}: {error.strerror}") from None
    if path.suffix != ".py":
        raise JobError(f"{path} is not a Python file; name it with .py at the end")
    tree.code.add(str(path))
    return _choose(_run(path, content), path, source.class_name), tree


def sources_of(path: Path | str, tree: SourceTree) -> list[Asset]:
    """Return what ran of a job's code so far: its file, then the modules beside it."""
    file = tree.ran[str(tree.folder / Path(path).name)]
    return [
        dataclasses.replace(file, path=str(path)),
        *(module for module in tree.modules() if module.name != file.name),
    ]


def code_sha256() -> str:
    """Return one digest over the sources of this package: what renders is part of what is rendered.

    Built-in jobs count for themselves, as a user's file does (`load_job`).
    """
    digest = hashlib.sha256()
    for path in sorted(_OWN_FOLDER.rglob("*.py")):
        name = path.relative_to(_OWN_FOLDER).as_posix()
        if not name.startswith("builtin/"):
            digest.update(name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


@contextmanager
def blame(path: Path | str, doing: str) -> Iterator[None]:
    """Turn whatever the user's code raises into a `JobError` that names its place in the user's file."""
    try:
        yield
    except JobError as error:
        where, trace = _users_place(error, Path(path))
        if error.trace or Path(path).name in str(error):  # it says where, already
            raise
        raise JobError(f"{where or Path(path).name}: {doing}: {error}", trace) from error
    except (Exception, SystemExit) as error:
        raise JobError(*_explain(error, Path(path), doing)) from error


def _run(path: Path, content: bytes) -> ModuleType:
    """Run what was read, not what is cached: Python's bytecode may be that of an edit within the same second."""
    module = ModuleType(MODULE)
    module.__file__ = str(path)
    sys.modules[MODULE] = module  # dataclasses look their module up by name
    with blame(path, "import"):
        exec(compile(content, str(path), "exec", dont_inherit=True), vars(module))
    return module


def _choose(module: ModuleType, path: Path, class_name: str) -> type[Job]:
    jobs = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Job) and value.__module__ == MODULE
    }
    if class_name and class_name not in jobs:
        raise JobError(f"{path} has no job {class_name!r}; it has {', '.join(sorted(jobs)) or 'none'}")
    if not class_name and len(jobs) != 1:
        found = f"{len(jobs)} jobs ({', '.join(sorted(jobs))}); choose with {path}:NAME" if jobs else "no Job subclass"
        raise JobError(f"{path} holds {found}")
    job = jobs[class_name] if class_name else next(iter(jobs.values()))
    if not dataclasses.is_dataclass(job) or (job.__annotations__ and "__dataclass_fields__" not in vars(job)):
        raise JobError(f"{path}: write @dataclass above class {job.__name__}, so that its fields can be set")
    return job


def _explain(error: BaseException, path: Path, doing: str) -> tuple[str, list[str]]:
    """Return one line for the error, and the user's own lines of its traceback."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f"{path}:{error.lineno}: {type(error).__name__}: {error.msg}", []
    said = _plainly(error)
    cause = f"{type(error).__name__}: {said}" if said else type(error).__name__
    where, trace = _users_place(error, path)
    return f"{where or path}: {doing}: {cause}", trace


def _plainly(error: BaseException) -> str:
    """Return an error's message on one line; Blender's for a name that is not there, in plain words."""
    if isinstance(error, KeyError) and (missing := _NO_SUCH_NAME.search(str(error))):
        objects = sys.modules["bpy"].data.objects.keys() if "bpy" in sys.modules else []
        close = difflib.get_close_matches(missing[1], objects, 1)
        return f"nothing here is called {missing[1]!r}" + (f"; did you mean the object {close[0]!r}?" if close else "")
    return " ".join(str(error).split())


def _users_place(error: BaseException, path: Path) -> tuple[str, list[str]]:
    """Return the last place in the user's code that the error went through, and all of them; empty for none."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_users(frame.filename, path)]
    if not frames:
        return "", []
    place = frames[-1]
    trace = [f"{frame.filename}:{frame.lineno} in {frame.name}: {frame.line}" for frame in frames]
    return f"{path.name if place.filename == str(path) else place.filename}:{place.lineno}", trace


def _is_users(filename: str, path: Path) -> bool:
    if filename == str(path):
        return True
    file = Path(filename)
    ours = file.is_relative_to(_OWN_FOLDER) and not file.is_relative_to(_BUILTIN_FOLDER)
    return not ours and file.is_relative_to(path.parent) and "site-packages" not in file.parts
