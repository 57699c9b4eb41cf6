"""What this user has run already, by digest: as with known hosts, what was chosen once needs no second question.

One empty file a digest, in the user's own state folder. Nothing in a dataset can write there.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Literal

Kind = Literal["source", "blend"]


def remember(kind: Kind, digest: str) -> None:
    """Remember that the user has chosen to run this. Where nothing can be written, nothing is remembered."""
    folder = _folder()
    with suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / f"{kind}-{digest}").touch(mode=0o600)


def knows(kind: Kind, digest: str) -> bool:
    """Return whether the user has run this."""
    with suppress(OSError, ValueError):  # a digest of a stranger's manifest may be any text
        return len(digest) == 64 and digest.isalnum() and (_folder() / f"{kind}-{digest}").is_file()
    return False


def _folder() -> Path:
    """Return where programs keep what should outlast a restart."""
    local = "LOCALAPPDATA" if os.name == "nt" else "XDG_STATE_HOME"
    given = os.environ.get(local, "")
    base = Path(given) if Path(given).is_absolute() else Path.home() / ".local" / "state"
    return base / "blendshard" / "run-before"
