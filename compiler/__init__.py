"""The host: plans, drives Blender instances, writes shards and the manifest, serves them live.

`compiler.launch` starts it from Python; it is loaded when first asked for.
"""

from __future__ import annotations

from typing import Any

__all__ = ["launch"]


def __getattr__(name: str) -> Any:
    if name != "launch":
        raise AttributeError(f"module 'compiler' has no attribute {name!r}")
    import importlib

    function = importlib.import_module("compiler.launch").launch
    globals()["launch"] = function  # importing the module has put the module itself there
    return function
