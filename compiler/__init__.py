"""The host: plans, drives Blender instances, writes shards and the manifest, serves them live.

`compiler.launch` starts it from Python; what is named here is loaded when first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compiler._launch import BuildOptions as BuildOptions
    from compiler._launch import CompilerStatus as CompilerStatus
    from compiler._launch import Launched as Launched
    from compiler._launch import launch as launch
    from compiler.errors import BlendshardError as BlendshardError

_HOMES = {
    "BlendshardError": "compiler.errors",
    "BuildOptions": "compiler._launch",
    "CompilerStatus": "compiler._launch",
    "Launched": "compiler._launch",
    "launch": "compiler._launch",
}

__all__ = ["BlendshardError", "BuildOptions", "CompilerStatus", "Launched", "launch"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
