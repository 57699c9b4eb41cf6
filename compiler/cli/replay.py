"""``compile-dataset replay``: one episode again, in the foreground."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from compiler.blender.process import STALL_TIMEOUT_S, InstanceOptions
from compiler.cli.plan_options import blender_option
from compiler.cli.trusting import place_options, places_asked
from compiler.errors import UsageError
from compiler.machine import cores
from compiler.replay import replay as replay_episode
from compiler.storage.manifests import folder_of, load_manifest
from compiler.storage.places import Places
from compiler.terminal import announce, say_lines


@click.command("replay")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--episode", metavar="N", type=click.IntRange(min=0), required=True)
@blender_option
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="[default: ./episode-<number>]")
@click.option("--save-blend", is_flag=True, help="Leave the episode's scene as a .blend file, too.")
@click.option("--verbose", is_flag=True, help="Show the renderer's progress, too.")
@place_options
def replay_command(
    folder: Path,
    episode: int,
    blender: str | None,
    out: Path | None,
    save_blend: bool,
    verbose: bool,
    **placing: Any,
) -> None:
    """Render one episode again, alone, showing what the job and Blender print; its samples become files.

    That runs the dataset's job: code that is not your own runs only with --trust-source.
    """
    manifest = load_manifest(folder)
    places = places_asked(manifest, folder_of(folder), Places(**placing))
    options = InstanceOptions(cores(), STALL_TIMEOUT_S, echo=True, progress=verbose, blender=blender)
    place = out or Path(f"episode-{episode}")
    if out is None and place.is_symlink():
        raise UsageError(f"{place} is a link", "name the folder with --out")
    written, elsewhere = replay_episode(
        manifest, folder_of(folder), episode, place, options, places, save_blend, announce
    )
    for line in elsewhere:
        announce(f"Note: this installation is another: {line}")
    say_lines(written)
