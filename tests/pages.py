"""The pages of the documentation, and the pieces of code on them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

_FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """A fenced piece of a page.

    Args:
        language: as the fence names it, such as ``python``.
        title: the file that the reader is asked to save it as; empty for none.
        text: what is between the fences.
    """

    language: str
    title: str
    text: str

    @property
    def lines(self) -> list[str]:
        """The lines that a shell runs, without comments."""
        return [line for line in (re.sub(r"(^| )# .*$", "", line).strip() for line in self.text.splitlines()) if line]


def blocks(page: str, language: str | None = None) -> list[Block]:
    """Return the pieces of a page, by its path below the repository's root; those of one language."""
    found = []
    for head, text in _FENCE.findall((ROOT / page).read_text(encoding="utf-8")):
        title = re.search(r'title="(.*)"', head)
        found.append(Block(head.split(" ")[0], title[1] if title else "", text))
    return [block for block in found if language in (None, block.language)]


def commands(page: str) -> list[list[str]]:
    """Return each `compile-dataset` of a page's shell blocks: its words, without the command's own name."""
    parts = [part for block in blocks(page, "bash") for line in block.lines for part in line.split(" && ")]
    return [shlex.split(part)[1:] for part in parts if part.startswith("compile-dataset ")]
