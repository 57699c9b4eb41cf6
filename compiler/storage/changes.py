"""How a plan differs from the one that a dataset was made with, in words: files that have changed and when, values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from blender_jobs.orders import Asset
from compiler.planning.document import source_digests
from compiler.planning.plan import Plan, differences
from loaders.manifest import Manifest

INSTALLATION = ("blender.", "render.settings.", "code_sha256")
"""What of a plan's identity comes with the installation, not from the user: paths begin so."""

_SHOWN = 60
"""Characters of a value that are shown."""

_MORE = 3
"""Differences that are told beside the first."""


def changes(plan: Plan, manifest: Manifest) -> tuple[list[str], list[str]]:
    """Return phrases for all that differs: first what is the user's, files before values; then the installation.

    Args:
        plan: as it is drawn up now.
        manifest: the dataset's, which holds the plan as it was.
    """
    values, installation = [], []
    for name, now, then in differences(plan.identity(), manifest.plan):
        if name == "code_sha256":
            installation.append("the rendering code of this installation is another")
        elif name.startswith(INSTALLATION):
            installation.append(f"{name} was {_short(then)}, is {_short(now)}")
        elif name != "job.source_sha256" and not name.startswith("assets."):
            values.append(f"{name} was {_short(then)}, is {_short(now)}")
    return [*_sources(plan, manifest), *_assets(plan, manifest), *values], installation


def told(phrases: Sequence[str]) -> str:
    """Return the phrases as one, the first of them spelled out and a few more."""
    first, *others = phrases
    if not others:
        return first
    return f"{first}, and {len(others)} more: {'; '.join(others[:_MORE])}{'; ...' * (len(others) > _MORE)}"


def when(path: Path) -> str:
    """Return when a file was written, in local time; empty where it is not there."""
    try:
        return f"{datetime.fromtimestamp(path.stat().st_mtime):%Y-%m-%d %H:%M:%S}"
    except (OSError, OverflowError, ValueError):
        return ""


def _sources(plan: Plan, manifest: Manifest) -> list[str]:
    was = manifest.plan.get("job")
    if not isinstance(was, dict) or plan.job.source_sha256 == was.get("source_sha256"):
        return []
    then = source_digests(manifest)
    found = list(_files(plan.job.sources, then, "the job file", "module")) if then else []
    return found or [f"the job file {plan.source.path} has changed ({when(Path(plan.source.path))})"]


def _assets(plan: Plan, manifest: Manifest) -> Iterator[str]:
    then = manifest.plan.get("assets")
    yield from _files(plan.job.assets, then if isinstance(then, dict) else {}, "the asset", "asset")


def _files(now: list[Asset], then: Mapping[str, Any], first: str, kind: str) -> Iterator[str]:
    """Yield which files have changed; the first of them, where it is a job's, is the job file itself."""
    for at, file in enumerate(now):
        what = first if at == 0 else f"the {kind}"
        if file.name not in then:
            yield f"the {kind} {file.path} is new"
        elif file.sha256 != then[file.name]:
            yield f"{what} {file.path} has changed ({when(Path(file.path))})"
    for name in sorted(then.keys() - {file.name for file in now}):
        yield f"the {kind} {name} is no longer used"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
