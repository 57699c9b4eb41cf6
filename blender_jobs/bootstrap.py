"""Start a worker in a Blender that knows nothing of this package: its executable runs this file.

``blender --background ... --python bootstrap.py -- --scratch DIR``, or ``python bootstrap.py --scratch DIR`` with a
Python that has the bpy wheel. Of all that is installed next to this package nothing else becomes importable: numpy
there may be another Python's.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
from pathlib import Path
from types import ModuleType

_PACKAGE = "blender_jobs"


def load_package(folder: Path) -> ModuleType:
    """Make the package in `folder` importable, and nothing next to it or, by its bare name, in it."""
    sys.path[:] = [place for place in sys.path if not place or Path(place).resolve() != folder]
    spec = importlib.util.spec_from_file_location(
        _PACKAGE, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"{folder} holds no package")
    package = importlib.util.module_from_spec(spec)
    sys.modules[_PACKAGE] = package
    spec.loader.exec_module(package)
    return package


def main() -> None:
    """Serve until stdin closes; where not even the worker can be imported, say why."""
    load_package(Path(__file__).resolve().parent)
    try:
        from blender_jobs._worker import worker
    except ImportError as error:
        _refuse(str(error))
    else:
        worker.main()


def _refuse(problem: str) -> None:
    from blender_jobs import orders, wire

    with os.fdopen(os.dup(1), "wb") as channel:
        channel.write(wire.SYNC)
        wire.send(channel, orders.to_head(orders.Hello("", "", "", platform.python_version(), "", "", problem=problem)))


if __name__ == "__main__":
    main()
