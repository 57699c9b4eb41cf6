"""Find a job's class, run the user's code, and say in the user's own lines what went wrong in it."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import importlib
import importlib.machinery
import os
import re
import stat
import sys
import sysconfig
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES, FileFinder, ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any

from blender_jobs.job import Job, JobError
from blender_jobs.orders import Asset, JobSource

_NO_SUCH_NAME = re.compile(r'bpy_prop_collection\[key\]: key "(.*)" not found')
_OWN_FOLDER = Path(__file__).parents[1]
_BUILTIN_FOLDER = _OWN_FOLDER / "builtin"


def load_job(source: JobSource) -> tuple[type[Job], SourceTree]:
    """Return the job's class and its sources: its file, and the modules next to it that it imports.

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
        raise JobError(f"{path} is not a Python file: its name must end in .py")
    tree.code.add(str(path))
    return _choose(_run(path, content), path, source.class_name), tree


def sources_of(path: Path | str, tree: SourceTree) -> list[Asset]:
    """Return what ran of a job's code so far: its file, then the modules next to it."""
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


MODULE = "blendshard_job"
"""The name under which a job's file is a module."""

MOST_BYTES = 16 << 20
"""Of one source file; what is larger is no code, and might never end."""

_IMPORTING = ("<frozen importlib", f"{Path(importlib.__file__).parent}{os.sep}")
_INSTALLED = {Path(place).resolve() for place in sysconfig.get_paths().values()}


class SourceTree:
    """The folder of a job's file, as far as it is the job's code.

    State: what was read and run of it, and the digests that it must have.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.due: Mapping[str, str] = {}
        """The sha256 of each source by its name; empty: whatever is there."""
        self.ran: dict[str, Asset] = {}
        """What was read, by its path."""
        self.code: set[str] = set()
        """The file names of the code that was run, as tracebacks have them."""

    def holds(self, path: Path) -> bool:
        """Whether a file or folder is the job's: not our own code, nor what is installed below the job's folder."""
        if not path.is_relative_to(self.folder) or path.is_relative_to(_OWN_FOLDER):
            return False
        installed = (place for place in sorted(_INSTALLED) if place.is_relative_to(self.folder))
        below = path.relative_to(self.folder).parts
        return "site-packages" not in below and not any(path.is_relative_to(place) for place in installed)

    def read(self, path: Path) -> bytes:
        """Return the bytes of a source that is about to be run.

        Raises:
            OSError: it cannot be read.
            JobError: it is not what the plan knows.
        """
        content = read_source(path)
        name = path.relative_to(self.folder).as_posix()
        source = Asset(name, str(path), len(content), hashlib.sha256(content).hexdigest())
        if self.due and name not in self.due:
            raise JobError(f"{path} is not among the plan's sources; import it at the top of the job's file")
        if self.due and self.due[name] != source.sha256:
            raise JobError(f"{path} has changed since its plan was made; run the command again")
        self.ran[str(path)] = source
        self.code.add(str(path))
        return content

    def modules(self) -> list[Asset]:
        """Return the modules next to the job's file that are loaded, by name."""
        files = {str(getattr(module, "__file__", None)) for name, module in _loaded() if name != MODULE}
        return sorted((self.ran[file] for file in files & self.ran.keys()), key=lambda source: source.name)


def read_source(path: Path) -> bytes:
    """Return a source file's bytes. Raises OSError where it is no regular file, or too large to be code, too."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # a pipe would wait for a writer
    with open(handle, "rb") as file:  # noqa: PTH123 - what was opened is what is read
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "Is no regular file", str(path))
        if status.st_size > MOST_BYTES:
            raise OSError(0, f"Is larger than {MOST_BYTES >> 20} MiB", str(path))
        return file.read(MOST_BYTES)


def open_tree(folder: Path, due: Mapping[str, str]) -> SourceTree:
    """Return the tree of a job's folder, importable from now on.

    Args:
        folder: the folder.
        due: the sha256 that each source must have, by its name; empty: any.
    """
    if folder not in _trees:
        _trees[folder] = SourceTree(folder)
        if _find not in sys.path_hooks:
            sys.path_hooks.insert(0, _find)
            at = sys.meta_path.index(PathFinder) if PathFinder in sys.meta_path else 0
            sys.meta_path.insert(at, _OwnFirst())
        for entry in list(sys.path_importer_cache):
            if Path(entry).resolve().is_relative_to(folder):
                del sys.path_importer_cache[entry]
    tree = _trees[folder]
    tree.due = dict(due)
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    importlib.invalidate_caches()
    return tree


_trees: dict[Path, SourceTree] = {}
"""By folder. One worker has one job; it may be loaded again."""


def _loaded() -> list[tuple[str, ModuleType]]:
    return list(sys.modules.items())


def _tree_of(path: Path) -> SourceTree | None:
    return next((tree for tree in _trees.values() if tree.holds(path)), None)


def _find(entry: str) -> FileFinder:
    """Look for modules in a folder of ``sys.path`` or of a package: a hook for the job's own folders alone."""
    folder = Path(entry).resolve()
    tree = _tree_of(folder)
    if tree is None or not folder.is_dir():
        raise ImportError(f"{entry} is not the job's")
    sources: Any = functools.partial(_Source, tree)
    return FileFinder(str(folder), (sources, [".py"]), (_Compiled, [*EXTENSION_SUFFIXES, ".pyc"]))


class _Source(SourceFileLoader):
    """Loads a module from its source; never from bytecode, and writes none."""

    def __init__(self, tree: SourceTree, fullname: str, path: str) -> None:
        super().__init__(fullname, path)
        self._tree = tree

    def get_code(self, fullname: str) -> CodeType:
        code: CodeType = compile(self._tree.read(Path(self.path)), self.path, "exec", dont_inherit=True)
        return code


class _Compiled(Loader):
    """Refuses a module of which there is no source."""

    def __init__(self, fullname: str, path: str) -> None:
        self._path = path

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        raise ImportError(f"{self._path} is compiled; next to a job only source files run: install it as a package")

    def exec_module(self, module: ModuleType) -> None:
        """Never called."""


class _OwnFirst(MetaPathFinder):
    """Finds what is next to a job's file before anything installed, for the job's own code."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        tree = _importing(sys._getframe(1)) if path is None else None
        found = PathFinder.find_spec(fullname, [str(tree.folder)]) if tree else None
        return found if found and found.loader else None  # a bare folder makes way for a package of that name


def _importing(frame: FrameType | None) -> SourceTree | None:
    """Return the tree of the code that is importing; None where it is not a job's."""
    while frame is not None and frame.f_code.co_filename.startswith(_IMPORTING):
        frame = frame.f_back
    file = frame.f_code.co_filename if frame else ""
    return next((tree for tree in _trees.values() if file in tree.code), None)
