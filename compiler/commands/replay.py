"""``compile-dataset replay``: one episode again, in the foreground."""

from __future__ import annotations

from pathlib import Path

import click

from compiler.commands.output import announce
from compiler.commands.plan_options import blender_option
from compiler.prepare import cores
from compiler.proof.verify import folder_of, load_manifest
from compiler.rendering.instances import STALL_TIMEOUT_S, Launch
from compiler.replay import replay as replay_episode
from compiler.storage.sources import Places


@click.command("replay")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--episode", metavar="N", type=click.IntRange(min=0), required=True)
@blender_option
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="[default: ./episode-<number>]")
@click.option("--save-blend", is_flag=True, help="Leave the episode's scene as a .blend file, too.")
@click.option("--job", type=click.Path(path_type=Path, dir_okay=False), help="The job's file, if it is elsewhere now.")
@click.option(
    "--assets", type=click.Path(path_type=Path, file_okay=False), help="The folder that stood beside the job's file."
)
def replay_command(
    folder: Path,
    episode: int,
    blender: str | None,
    out: Path | None,
    save_blend: bool,
    job: Path | None,
    assets: Path | None,
) -> None:
    """Render one episode again, alone, showing all that Blender says; its samples become files."""
    manifest = load_manifest(folder)
    launch = Launch(cores(), STALL_TIMEOUT_S, echo=True, blender=blender)
    place = out or Path(f"episode-{episode}")
    written, elsewhere = replay_episode(
        manifest, folder_of(folder), episode, place, launch, Places(job, assets), save_blend, announce
    )
    for line in elsewhere:
        announce(f"Note: this installation is another: {line}")
    for path in written:
        click.echo(path)
