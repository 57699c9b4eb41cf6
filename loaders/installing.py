"""How an extra of this distribution is installed here: from the clone, the wheel, or the index that it came from."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

NAME = "blendshard"


def install_command(extra: str) -> str:
    """Return the command, for a shell in any folder, that adds an extra to this installation.

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
        shown = place if place.exists() else Path("path", "to", place.name)  # it is not kept where it was
        return f"pip install {_constraints(place)}{_quoted(f'{shown}[{extra}]')}"
    return f"pip install {_quoted(f'{NAME}[{extra}] @ {url}')}"


def _constraints(folder: Path) -> str:
    file = folder / "constraints.txt"
    return f"-c {_quoted(str(file))} " if file.is_file() else ""


def _quoted(text: str) -> str:
    return f'"{text}"'  # what every shell understands, Windows' too


def _origin() -> dict[str, Any]:
    """Return what pip has noted of where this came from (PEP 610); empty where it was an index."""
    try:
        origin = json.loads(distribution(NAME).read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        return {}
    return origin if isinstance(origin, dict) else {}
