"""Find in Python source what gives other results from run to run: clocks, global generators, sets, folders' order.

It reads what is written, not what is meant: a note, not a proof. Our own rendering path is held to it by a test; users
hear about their jobs' lines.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

_MODULES = {
    "datetime": "clocks differ from run to run",
    "random": "it is one generator for all: draw from rng",
    "secrets": "it differs each time: draw from rng",
    "time": "clocks differ from run to run",
    "uuid": "it differs each time: draw from rng",
}
_FUNCTIONS = {
    "hash": "it differs from process to process",
    "id": "addresses differ from process to process",
    "os.getpid": "it differs from process to process",
    "os.urandom": "it differs each time: draw from rng",
}
_SOUND_NUMPY = {"BitGenerator", "Generator", "PCG64", "PCG64DXSM", "Philox", "SFC64", "SeedSequence", "default_rng"}
_NUMPY_RANDOM = ("np.random", "numpy.random")
_LISTINGS = {"glob", "iglob", "iterdir", "listdir", "rglob", "scandir", "walk"}
_ORDERLESS = {"all", "any", "frozenset", "len", "max", "min", "set", "sorted", "sum"}
"""Functions whose result does not tell in which order their argument came (sums of floats would; few add listings)."""


@dataclass(frozen=True)
class Offence:
    """One place in the source."""

    line: int
    what: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.what}"


def offences(source: str | bytes) -> list[Offence]:
    """Return what in `source` may differ from run to run, by line; nothing for what is not Python."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return []
    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node):
            child.parent = node  # type: ignore[attr-defined]
    sets = _names_of_sets(tree)
    found = {Offence(_line(node), what) for node in ast.walk(tree) for what in _said_of(node, sets)}
    return sorted(found, key=lambda offence: (offence.line, offence.what))


def _line(node: ast.AST) -> int:
    """Return where a node is; a comprehension's ``for`` has no place of its own."""
    line: int = node.lineno if hasattr(node, "lineno") else node.parent.lineno  # type: ignore[attr-defined]
    return line


def _said_of(node: ast.AST, sets: set[str]) -> Iterator[str]:
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
        yield from (f"imports {name}: {_MODULES[name]}" for name in names if name in _MODULES)
    elif isinstance(node, ast.Call):
        yield from _said_of_call(node)
    elif isinstance(node, ast.Attribute) and _dotted(node.value) in _NUMPY_RANDOM and node.attr not in _SOUND_NUMPY:
        yield f"numpy.random.{node.attr}: it is one generator for all: draw from rng"
    iterated = _iterated(node)
    if iterated is not None and _is_set(iterated, sets) and not _order_is_lost(node):
        yield "goes through a set, whose order may differ from process to process: use sorted(...)"


def _said_of_call(node: ast.Call) -> Iterator[str]:
    name = _dotted(node.func)
    if name in _FUNCTIONS:
        yield f"{name}(): {_FUNCTIONS[name]}"
    if name.endswith("default_rng") and not (node.args or node.keywords):
        yield "default_rng() without a seed differs each time: draw from rng"
    if name.rpartition(".")[2] in _LISTINGS and name != "ast.walk" and not _order_is_lost(node):
        yield f"{name}(): folders are listed in any order: use sorted(...)"


def _iterated(node: ast.AST) -> ast.expr | None:
    """Return what a node goes through in order."""
    if isinstance(node, (ast.For, ast.comprehension)):
        return node.iter
    if isinstance(node, ast.Call) and _dotted(node.func) in ("list", "tuple", "enumerate", "iter", "next"):
        return node.args[0] if node.args else None
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("join", "extend"):
        return node.args[0] if node.args else None
    return None


def _is_set(node: ast.expr, sets: set[str]) -> bool:
    if isinstance(node, ast.Name):
        return node.id in sets
    return isinstance(node, (ast.Set, ast.SetComp)) or (
        isinstance(node, ast.Call) and _dotted(node.func) in ("set", "frozenset")
    )


def _names_of_sets(tree: ast.AST) -> set[str]:
    """Return the names that are given sets and nothing else."""
    given: dict[str, list[bool]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    given.setdefault(target.id, []).append(_is_set(node.value, set()))
    return {name for name, kinds in given.items() if all(kinds)}


def _order_is_lost(node: ast.AST) -> bool:
    """Whether something around the node makes its order of no account: `sorted`, a set, a count."""
    around: ast.AST | None = node
    while around is not None and not isinstance(around, ast.stmt):
        if around is not node and isinstance(around, ast.Call) and _dotted(around.func) in _ORDERLESS:
            return True
        if isinstance(around, ast.SetComp):
            return True
        around = getattr(around, "parent", None)
    return False


def _dotted(node: ast.AST) -> str:
    """Return ``a.b.c`` for names and attributes; for other things' attributes, those alone."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}".lstrip(".")
    return ""
