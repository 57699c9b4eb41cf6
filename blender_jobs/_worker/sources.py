"""A job's own code: its file and the modules beside it, compiled from the very bytes that are hashed.

Python's own import trusts a ``.pyc`` that lies beside a file, and a folder on ``sys.path`` serves whoever imports.
Here a module beside the job is read once: these bytes are hashed, held to the digest that the plan has, where there is
a plan, and compiled. The folder comes first for the job's own imports, and last for everyone else's (Blender's,
numpy's, ours): a file that happens to have the name of a module does no harm to them.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.machinery
import os
import stat
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES, FileFinder, ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any

from blender_jobs.job import JobError
from blender_jobs.orders import Asset

MODULE = "blendshard_job"
"""The name under which a job's file is a module."""

MOST_BYTES = 16 << 20
"""Of one source file; what is larger is no code, and might never end."""

_OWN_FOLDER = Path(__file__).parents[1]
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
            raise JobError(
                f"{path} is not among the sources that the plan knows; import it at the top of the job's file"
            )
        if self.due and self.due[name] != source.sha256:
            raise JobError(f"{path} was changed since its plan was drawn up; start again")
        self.ran[str(path)] = source
        self.code.add(str(path))
        return content

    def modules(self) -> list[Asset]:
        """Return the modules beside the job's file that are loaded, by name."""
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
    """Loads a module from its source; never from bytecode, and leaves none behind."""

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
        raise ImportError(f"{self._path} is compiled: beside a job only sources are run; install it as a package")

    def exec_module(self, module: ModuleType) -> None:
        """Never called."""


class _OwnFirst(MetaPathFinder):
    """Finds what lies beside a job's file before anything installed, for the job's own code."""

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
