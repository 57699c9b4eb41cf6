"""Internal, shared with the compiler: how to install an extra here, from the clone, wheel or index we came from."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

NAME = "blendshard"


def install_command(extra: str) -> str:
    """Return the shell command, for any folder, that adds an extra to this installation.

    Args:
        extra: ``blender``, ``loaders`` or ``test``.
    """
    clone = Path(__file__).resolve().parents[1]
    if (clone / "setup.py").is_file():
        return f"pip install {_constraints(clone)}-e {_quoted(f'{clone}[{extra}]')}"
    origin = _origin()
    url = str(origin.get("url", ""))
    if not url:
        return f"pip install {_quoted(f'{NAME}[{extra}]')}"
    if "vcs_info" in origin:
        url = f"{origin['vcs_info']['vcs']}+{url}@{origin['vcs_info']['commit_id']}"
    elif urlsplit(url).scheme == "file":
        place = Path(url2pathname(urlsplit(url).path))
        shown = place if place.exists() else Path("path", "to", place.name)  # it has been moved or deleted
        return f"pip install {_constraints(place)}{_quoted(f'{shown}[{extra}]')}"
    return f"pip install {_quoted(f'{NAME}[{extra}] @ {url}')}"


def _constraints(folder: Path) -> str:
    file = folder / "constraints.txt"
    return f"-c {_quoted(str(file))} " if file.is_file() else ""


def _quoted(text: str) -> str:
    return f'"{text}"'  # understood by every shell, also on Windows


def _origin() -> dict[str, Any]:
    """Return pip's record of our origin (PEP 610); empty if it was an index."""
    try:
        origin = json.loads(distribution(NAME).read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        return {}
    return origin if isinstance(origin, dict) else {}
