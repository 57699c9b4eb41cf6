"""Which program an instance runs: the bpy wheel of this Python, that of another, or a Blender executable."""

from __future__ import annotations

import functools
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from blender_jobs import orders
from compiler.errors import BlenderUnusable

_OLDEST = (3, 4)
"""The oldest Blender that `blender_jobs` is written for."""

_OLDEST_PYTHON = (3, 10)

_DISTRIBUTIONS = "get Blender from https://www.blender.org/download or with apt-get install blender python3-numpy"

_BOOTSTRAP = str(Path(orders.__file__).with_name("bootstrap.py"))
_ANSWER_S = 120
"""How long a program may take to say its version: the first start reads hundreds of megabytes from the disk."""

_PLACES = ("RESOURCES", "CONFIG", "SCRIPTS", "DATAFILES", "EXTENSIONS")


@dataclass(frozen=True)
class Program:
    """What is started as an instance."""

    path: str
    kind: Literal["this python", "another python", "blender"]
    """A Python with the bpy wheel: the compiler's own or another; or a Blender executable."""

    def command(self, scratch: str) -> list[str]:
        """Return the command line of an instance with the folder for its temporary files."""
        if self.kind == "this python":
            return [self.path, "-P", "-m", "blender_jobs._worker.worker", "--scratch", scratch]
        if self.kind == "another python":
            return [self.path, _BOOTSTRAP, "--scratch", scratch]
        # Without --python-use-system-env Blender's Python ignores PYTHONHASHSEED, and the order of sets would vary.
        blender = ["--background", "--factory-startup", "--disable-autoexec", "-noaudio", "--python-use-system-env"]
        return [self.path, *blender, "--python-exit-code", "1", "--python", _BOOTSTRAP, "--", "--scratch", scratch]

    def environment(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """Return the environment without what is in no plan: the user's colours, and Python's settings for another."""
        kept = {name: value for name, value in inherited.items() if name != "OCIO"}
        if self.kind == "this python":
            return kept
        kept = {name: value for name, value in kept.items() if not name.startswith("PYTHON")}
        if self.kind == "another python":
            return kept
        # A Blender that brings no Python makes its home where the first one on PATH is, with all that is installed.
        folders = [str(Path(self.path).resolve().parent), *kept.get("PATH", os.defpath).split(os.pathsep)]
        outside = [folder for folder in folders if not (Path(folder).parent / "pyvenv.cfg").is_file()]
        return {**kept, "PATH": os.pathsep.join(outside), "PYTHONNOUSERSITE": "1"}


def find(given: str | None) -> Program:
    """Return the program for ``--blender``: a path, or a name on PATH; None: the wheel in this Python.

    Raises:
        BlenderUnusable: there is no such program, it is neither Blender nor Python, or it is too old.
    """
    return Program(sys.executable, "this python") if given is None else _find(given)


@functools.lru_cache(maxsize=8)
def _find(given: str) -> Program:
    path = _locate(given)
    said = _version(path)
    if blender := re.search(r"^Blender (\d+)\.(\d+)", said, re.MULTILINE):
        if (int(blender[1]), int(blender[2])) < _OLDEST:
            raise BlenderUnusable(f"{path} is {blender[0]}; the oldest that can be used is 3.4", _DISTRIBUTIONS)
        return Program(path, "blender")
    if python := re.search(r"^Python (\d+)\.(\d+)", said, re.MULTILINE):
        if (int(python[1]), int(python[2])) < _OLDEST_PYTHON:
            raise BlenderUnusable(
                f"{path} is {python[0]}; the oldest that can be used is 3.10", "bpy comes for Python 3.11 and 3.13"
            )
        return Program(path, "another python")
    if library := missing_library(said):
        raise BlenderUnusable(*library)
    line = next(iter(said.split("\n")), "") or "nothing"
    raise BlenderUnusable(f"{path} is no Blender: asked for its --version, it says {line[:80]!r}", _DISTRIBUTIONS)


def _locate(given: str) -> str:
    """Return the absolute path of an executable, links not followed: a virtual environment's Python is one."""
    place = Path(given).expanduser()
    if found := shutil.which(str(place) if given.startswith("~") else given):  # a Path would drop the dot of ./blender
        return str(Path(found).absolute())
    if place.is_dir():
        inner = place / ("Contents/MacOS/Blender" if place.suffix == ".app" else "blender")
        raise BlenderUnusable(f"{place} is a folder", f"name the executable in it: --blender {inner}")
    if os.access(place, os.X_OK):
        raise BlenderUnusable(f"there is no {given} on PATH", f"for the file in this folder: --blender ./{given}")
    if place.exists():
        raise BlenderUnusable(f"{place} is not executable", f"name Blender's executable, or: chmod +x {place}")
    where = " on PATH" if given == place.name else ""
    raise BlenderUnusable(f"there is no {given}{where}", f"correct --blender, or {_DISTRIBUTIONS}")


def _version(path: str) -> str:
    """Return what the program says to ``--version``, on stdout or stderr."""
    try:
        process = subprocess.Popen(
            [path, "--version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=Program(path, "blender").environment(os.environ),
            start_new_session=True,
        )
    except OSError as error:
        raise BlenderUnusable(f"{path} cannot be run: {error.strerror}", _DISTRIBUTIONS) from None
    try:
        return process.communicate(timeout=_ANSWER_S)[0].decode(errors="replace").strip()
    except subprocess.TimeoutExpired:
        raise BlenderUnusable(f"{path} does not say its --version within {_ANSWER_S} s", _DISTRIBUTIONS) from None
    finally:
        kill(process)
        process.communicate()


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a process that leads its own session, and all that it has started."""
    if os.name == "posix":
        with suppress(ProcessLookupError):  # all of it ended by itself
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def user_folders(folder: str) -> dict[str, str]:
    """Return variables that keep Blender from the user's own add-ons, start-up scripts and settings.

    What is installed for a user is in no plan; `folder` must exist, or Blender looks in the usual places.
    """
    return {f"BLENDER_USER_{name}": folder for name in _PLACES}


def missing_library(said: str) -> tuple[str, str] | None:
    """Return message and hint where a program could not be loaded for want of a system library."""
    library = re.search(r"(lib[\w.+-]+\.so[.\d]*)", said)
    if library is None:
        return None
    return (
        f"Blender needs the system library {library[1]}, which is missing here",
        "install the libraries with scripts/system-packages, or: "
        "apt-get install libx11-6 libxext6 libxrender1 libxfixes3 libxi6 libxkbcommon0 libsm6 libice6 libgl1 libegl1",
    )
