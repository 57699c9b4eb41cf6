"""Measure the source tree: sizes, imports, the public face and the words, at any revisions, side by side.

    python scripts/house.py                    the working tree
    python scripts/house.py 15f38ad HEAD .     two revisions and the working tree
    python scripts/house.py --list             also name what is counted

Prints a Markdown table to stdout. Reads Git's objects directly, so nothing is checked out or written.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import subprocess
import sys
import tarfile
import tokenize
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("blender_jobs", "compiler", "loaders")
WORKING_TREE = "."

WORDS = {
    "behind, for after": r"\bbehind\b(?! (?:the |a |this |its )?(?:camera|glass|wall|viewer|proxy)\b)",
    "stand, for is": r"\b(?:stand|stands|stood)\b(?!-)",
    "beside": r"\bbeside\b",
    "told": r"\btold\b",
    "shall": r"\bshall\b",
    "be borne with": r"\bborne with\b",
    "gone on with": r"\bgone on with\b",
    "has it not": r"\b(?:has|have|had|is|was) it not\b",
    "out come": r"\bout comes?\b",
}
"""What reads as if translated, and how it is found."""


@dataclass
class Module:
    """A source file of one of the packages.

    Args:
        name: as it is imported.
        source: its text.
    """

    name: str
    source: str

    @cached_property
    def tree(self) -> ast.Module:
        """The parsed source."""
        return ast.parse(self.source)

    @property
    def lines(self) -> int:
        """How many lines the file has."""
        return self.source.count("\n")

    @property
    def private(self) -> bool:
        """Whether a leading underscore, of it or of a package above it, marks it so."""
        return any(part.startswith("_") and not part.startswith("__") for part in self.name.split("."))


@dataclass
class Tree:
    """The text files of one revision.

    Args:
        files: text by path, relative to the root.
    """

    files: dict[str, str]
    modules: dict[str, Module] = field(init=False)

    def __post_init__(self) -> None:
        found = {}
        for path, text in self.files.items():
            if path.endswith(".py") and path.split("/")[0] in PACKAGES:
                name = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
                found[name] = Module(name, text)
        self.modules = found

    @cached_property
    def imports(self) -> dict[str, set[str]]:
        """The modules of ours that each module imports, in functions too; what only type checkers read is left out."""
        return {name: set(self._imported(module.tree)) - {name} for name, module in self.modules.items()}

    def _imported(self, node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            return
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in self.modules)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield from (name for name in (inner if inner in self.modules else node.module,) if name in self.modules)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            named = [word.value for word in node.args if isinstance(word, ast.Constant)]
            yield from (name for name in named if isinstance(name, str) and name in self.modules)
        for child in ast.iter_child_nodes(node):
            yield from self._imported(child)

    def with_one_importer(self) -> list[str]:
        """Return the modules that exactly one other module of ours imports."""
        importers = {name: [other for other in self.imports if name in self.imports[other]] for name in self.modules}
        return sorted(f"{name} (by {by[0]})" for name, by in importers.items() if len(by) == 1)

    def circles(self) -> list[str]:
        """Return the groups of modules each of which needs all others of its group."""
        reached = {name: self._reached(name) for name in self.modules}
        groups = {frozenset(other for other in reached[name] if name in reached[other]) for name in self.modules}
        return sorted(" <-> ".join(sorted(group)) for group in groups if len(group) > 1)

    def _reached(self, start: str) -> set[str]:
        found: set[str] = set()
        ahead = [start]
        while ahead:
            new = self.imports[ahead.pop()] - found
            found |= new
            ahead += new
        return found

    def listed(self) -> list[str]:
        """Return the public face: the names in the `__all__` of modules that are not private."""
        public = [module for module in self.modules.values() if not module.private]
        return sorted(f"{module.name}.{name}" for module in public for name in _all_of(module.tree) or ())

    def unlisted(self) -> list[str]:
        """Return the names that no `__all__` lists and no underscore marks private."""
        open_ones = [module for module in self.modules.values() if not module.private and _all_of(module.tree) is None]
        return sorted(f"{module.name}.{name}" for module in open_ones for name in defined(module))

    def functions(self) -> list[tuple[int, str]]:
        """Return the lengths of all functions in lines, with their names, longest first."""
        found = []
        for module in self.modules.values():
            for node in ast.walk(module.tree):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    assert node.end_lineno is not None
                    found.append((node.end_lineno - node.lineno + 1, f"{module.name}.{node.name}"))
        return sorted(found, reverse=True)

    def sizes(self) -> list[tuple[int, str]]:
        """Return the lengths of all modules in lines, with their names, longest first."""
        return sorted(((module.lines, module.name) for module in self.modules.values()), reverse=True)

    @cached_property
    def prose(self) -> list[tuple[str, int, str]]:
        """Path, line and text of all that people read; this file, which holds the words, is left out."""
        read = {path: text for path, text in sorted(self.files.items()) if not path.endswith("house.py")}
        return [(path, line, prose) for path, text in read.items() for line, prose in _prose(path, text)]

    def uses(self, pattern: str, tests: bool) -> list[str]:
        """Return the places of a word in prose: documents, comments, docstrings and messages."""
        found = []
        for path, line, prose in self.prose:
            if path.startswith("tests/") is tests:
                found += [f"{path}:{line}: {prose.strip()[:100]}" for _ in re.findall(pattern, prose, re.I)]
        return found


def _all_of(tree: ast.Module) -> list[str] | None:
    """Return what a module's `__all__` lists; None where it has none. ``list(TABLE)`` is the table's keys."""
    values = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    listed = values.get("__all__")
    if isinstance(listed, ast.Call) and isinstance(listed.args[0], ast.Name):
        table = values[listed.args[0].id]
        assert isinstance(table, ast.Dict)
        return [str(ast.literal_eval(key)) for key in table.keys if key is not None]
    return None if listed is None else [str(name) for name in ast.literal_eval(listed)]


def defined(module: Module) -> Iterator[str]:
    """Yield the functions, classes and values without an underscore that a module defines."""
    for node in module.tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [target.id for target in targets if isinstance(target, ast.Name)]
        else:
            continue
        yield from (name for name in names if not name.startswith("_"))


def _prose(path: str, text: str) -> Iterator[tuple[int, str]]:
    """Yield what people read of a file, with its line: all of a document, comments and strings of a program."""
    if not path.endswith(".py"):
        yield from enumerate(text.splitlines(), start=1)
        return
    kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in kinds:
            yield from enumerate(token.string.splitlines(), start=token.start[0])


def read(revision: str) -> Tree:
    """Return the tree of a revision, of the working tree for ``.``."""
    if revision == WORKING_TREE:
        listed = _git("ls-files", "--cached", "--others", "--exclude-standard").decode().splitlines()
        contents = {name: (ROOT / name).read_bytes() for name in listed if (ROOT / name).is_file()}
    else:
        with tarfile.open(fileobj=io.BytesIO(_git("archive", "--format=tar", revision))) as archive:
            members = [(member.name, archive.extractfile(member)) for member in archive if member.isfile()]
            contents = {name: file.read() for name, file in members if file}
    return Tree({name: content.decode() for name, content in contents.items() if _is_read(name)})


def _is_read(path: str) -> bool:
    return path.endswith((".py", ".md")) or (path.startswith("scripts/") and "." not in path)


def _git(*words: str) -> bytes:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        sys.exit(f"scripts/house.py: {done.stderr.decode().strip()}")
    return done.stdout


def _first(entries: list[tuple[int, str]]) -> str:
    lines, name = entries[0]
    return f"{lines} `{name}`"


def _modules_of(package: str, tree: Tree) -> int:
    return sum(name.split(".")[0] == package for name in tree.modules)


def _short_modules(tree: Tree) -> int:
    return sum(lines < 25 for lines, name in tree.sizes() if name not in PACKAGES)


def _uses(pattern: str, tree: Tree) -> str:
    return " / ".join(str(len(tree.uses(pattern, tests))) for tests in (False, True))


ROWS: dict[str, Callable[[Tree], object]] = {
    "modules": lambda tree: len(tree.modules),
    **{f"modules of `{package}`": partial(_modules_of, package) for package in PACKAGES},
    "lines": lambda tree: sum(module.lines for module in tree.modules.values()),
    "modules of fewer than 25 lines": _short_modules,
    "modules with exactly one importer": lambda tree: len(tree.with_one_importer()),
    "import circles between modules": lambda tree: len(tree.circles()),
    "names in the public face (`__all__`)": lambda tree: len(tree.listed()),
    "names neither listed nor private": lambda tree: len(tree.unlisted()),
    "longest function": lambda tree: _first(tree.functions()),
    "longest module": lambda tree: _first(tree.sizes()),
    **{f"{word}: sources and docs / tests": partial(_uses, pattern) for word, pattern in WORDS.items()},
}


def table(trees: dict[str, Tree]) -> str:
    """Return the figures as a Markdown table: a row for each, a column for each tree."""
    lines = [f"| | {' | '.join(trees)} |", "|---|" + "---|" * len(trees)]
    for what, measure in ROWS.items():
        lines.append(f"| {what} | {' | '.join(str(measure(tree)) for tree in trees.values())} |")
    return "\n".join(lines)


def lists(tree: Tree) -> str:
    """Return the names of what is counted."""
    found = {
        "Modules with exactly one importer": tree.with_one_importer(),
        "Import circles": tree.circles(),
        "Public face": tree.listed(),
        "Neither listed nor private": tree.unlisted(),
        **{f"Words: {word}": tree.uses(pattern, tests=False) for word, pattern in WORDS.items()},
    }
    return "\n\n".join("\n".join([f"## {title}", *entries]) for title, entries in found.items())


def main(words: Sequence[str] | None = None) -> None:
    """Print the figures of the revisions that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revisions", nargs="*", default=[WORKING_TREE], help="Git revisions; . is the working tree")
    parser.add_argument("--list", action="store_true", help="also name what is counted, in the last of them")
    given = parser.parse_args(words)
    trees = {revision: read(revision) for revision in given.revisions}
    print(table(trees))
    if given.list:
        print("\n" + lists(trees[given.revisions[-1]]))


if __name__ == "__main__":
    main()
