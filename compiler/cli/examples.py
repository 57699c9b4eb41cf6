"""``compile-dataset examples``: the example jobs and training scripts, listed or written into a folder."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import click

from compiler.errors import UsageError, disk_error
from compiler.terminal import say_lines

_PACKAGE = Path(__file__).parents[1]
_PLACES = (_PACKAGE / "_examples", _PACKAGE.parent / "examples")
"""Where they are: in a wheel, which setup.py puts them into, and in a clone."""


@click.command("examples")
@click.argument("folder", metavar="[DIR]", required=False, type=click.Path(path_type=Path))
def examples_command(folder: Path | None) -> None:
    """List the examples, or write them with the files that they need into DIR.

    A file that is there already is never overwritten.
    """
    home = next((place for place in _PLACES if (place / "assets").is_dir()), None)
    if home is None:
        raise UsageError("this installation has no examples", "install a wheel, or work in a clone")
    files = sorted(path for path in home.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    if folder is None:
        say_lines(f"{path.name:20} {_summary(path)}" for path in files if path.parent == home and path.suffix == ".py")
    else:
        say_lines(_write(home, files, folder))


def _summary(path: Path) -> str:
    """Return the first line of a module's docstring."""
    return (ast.get_docstring(ast.parse(path.read_bytes())) or "").partition("\n")[0]


def _write(home: Path, files: list[Path], folder: Path) -> list[Path]:
    """Write the files below `folder`, all or none; return where.

    Raises:
        UsageError: one of them is there already, or the folder is a file.
        Incomplete: the disk cannot be written.
    """
    targets = {folder / path.relative_to(home): path for path in files}
    there = [target for target in targets if os.path.lexists(target)]
    if there:
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise UsageError(f"{there[0]}{more} would be overwritten", "name a new folder")
    try:
        for target, source in targets.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as file:
                file.write(source.read_bytes())
    except FileExistsError as error:
        raise UsageError(f"{error.filename} already exists", "name a new folder") from None
    except OSError as error:
        raise disk_error(error, folder) from None
    return list(targets)
