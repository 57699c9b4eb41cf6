"""What may run of a dataset that is rendered again: options, and the question on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from compiler.errors import UsageError
from compiler.storage.places import Places
from compiler.terminal import announce
from compiler.trust import find_trusted, look_up
from loaders.manifest import Manifest

_OPTIONS = [
    click.option(
        "--job", type=click.Path(path_type=Path, dir_okay=False), help="The job's file, if it is elsewhere now."
    ),
    click.option(
        "--assets",
        type=click.Path(path_type=Path, file_okay=False),
        help="The folder that stood beside the job's file.",
    ),
    click.option("--trust-source", is_flag=True, help="Let the dataset's own code run here, though it is not yours."),
    click.option("--trust-blend", is_flag=True, help="Let scripts and drivers in its .blend run."),
]


def place_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say where things are now, and what is trusted: the fields of `Places`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def places_asked(manifest: Manifest, folder: Path, places: Places) -> Places:
    """Return the places that the options name; on a terminal, ask before a stranger's code runs.

    Raises:
        UsageError, OtherPlan: as `compiler.trust.find_trusted`; nothing was run.
    """
    if manifest.recorded:  # what cannot be rendered again is told as that
        return places
    _, code = look_up(manifest, folder, places)
    if code and sys.stdin.isatty() and sys.stderr.isatty():
        announce("To render this dataset again is to run its code, which is not your own:")
        for file in code:
            announce(f"  {file}")
        announce("It can do whatever you can. Read it first.")
        if not click.confirm("Run it?", default=False, err=True):
            raise UsageError("the dataset's code was not run", "the other checks of compile-dataset verify run none")
        places = replace(places, trust_source=True)
    find_trusted(manifest, folder, places)
    return places
