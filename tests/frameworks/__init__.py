"""The training frameworks that docs/how-to/frameworks.md names, as they are. Each is optional, but where all must run.

pip install --no-deps -r tests/frameworks/requirements.txt && REQUIRE_FRAMEWORKS=1 pytest tests/frameworks
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

REQUIREMENTS = Path(__file__).with_name("requirements.txt")


def framework(name: str) -> Any:
    """Return a framework's module; where it is not installed, skip the test module that asks, or fail."""
    if importlib.util.find_spec(name.partition(".")[0]) is None:
        missing = f"{name} is not installed: pip install --no-deps -r tests/frameworks/{REQUIREMENTS.name}"
        if os.environ.get("REQUIRE_FRAMEWORKS"):
            raise ModuleNotFoundError(missing)
        pytest.skip(missing, allow_module_level=True)
    let_torchvision_load()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what others deprecate is not ours to fix
        return importlib.import_module(name)


def let_torchvision_load() -> None:
    """Make torchvision importable beside a torch that its compiled operators are not built for.

    The index's torchvision is built for CUDA's torch. Beside the CPU build its operators do not load, and its import
    fails where it describes two of them. Declared here, without an implementation, they satisfy it; what is tested,
    `tv_tensors` and `transforms.v2`, is written in Python.
    """
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None or hasattr(torch.ops.torchvision, "nms"):
        return
    try:
        for library in Path(found.origin).parent.glob("_C*.so"):
            torch.ops.load_library(library)
    except OSError:
        for operator in ("nms", "qnms"):
            torch.library.define(f"torchvision::{operator}", "(Tensor dets, Tensor scores, float threshold) -> Tensor")
