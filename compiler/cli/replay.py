"""``compile-dataset replay``: one episode again, in the foreground: where it fails, you see why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from blender_jobs.orders import EpisodeOrder, Render
from compiler.blender.process import STALL_TIMEOUT_S, Instance, InstanceOptions
from compiler.cli.options import ask_for_trust, blender_option, place_options
from compiler.errors import Incomplete, InstanceLost, JobBroken, UsageError
from compiler.machine import cores
from compiler.planning.plan import Plan
from compiler.rendering.retry import RetryPolicy
from compiler.resolve import FirstBlender, restore_checked
from compiler.storage.published import Places, Published
from compiler.terminal import announce, say_lines


@click.command("replay")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--episode", metavar="N", type=click.IntRange(min=0), required=True, help="The episode's number.")
@blender_option
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder to write to.  [default: ./episode-<number>]",
)
@click.option("--save-blend", is_flag=True, help="Also write the episode's scene as a .blend file.")
@click.option("--verbose", is_flag=True, help="Also show the renderer's progress.")
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

    That runs the dataset's job: code that is not yours runs only with --trust-source.
    """
    published = ask_for_trust(Published.load(folder, Places(**placing)))
    options = InstanceOptions(cores(), STALL_TIMEOUT_S, echo=True, progress=verbose, blender=blender)
    place = out or Path(f"episode-{episode}")
    if out is None and place.is_symlink():
        raise UsageError(f"{place} is a link", "name the folder with --out")
    written, elsewhere = replay(published, episode, place, options, save_blend)
    for line in elsewhere:
        announce(f"Note: this installation differs: {line}")
    say_lines(written)


def replay(
    published: Published, episode: int, out: Path, options: InstanceOptions, save_blend: bool
) -> tuple[list[Path], list[str]]:
    """Render `episode` and write its samples' members as files under `out`.

    With `save_blend` the scene, as it is before the first frame, becomes a file that Blender opens.

    Returns:
        The files' paths, and how this installation differs from the one that the dataset was made with.

    Raises:
        Incomplete: Blender died in it.
        BlendshardError: as `restore_checked`; JobBroken where the job fails.
    """
    blend = out.absolute() / f"episode-{episode}.blend" if save_blend else None
    try:
        with FirstBlender(options, RetryPolicy().attempts, announce) as first:
            plan, elsewhere = restore_checked(published, first, doing="replay")
            out.mkdir(parents=True, exist_ok=True)
            if blend is not None:
                for old in (blend, blend.with_name(f"{blend.name}@")):  # Blender writes the second, and renames it
                    old.unlink(missing_ok=True)
            order = plan.order(_episodes(plan, episode), options.threads)
            written = list(_write(first.instance, replace(order, save_blend=str(blend or "")), episode, out))
    except OSError as error:
        raise UsageError(f"cannot write to {out}: {error.strerror}", "name another place with --out") from None
    return [blend, *written] if blend else written, elsewhere


def _episodes(plan: Plan, episode: int) -> list[EpisodeOrder]:
    """Return what must be rendered for the episode: where the scene is reused, all of its shard up to it, too."""
    if not plan.job.reuse_scene:
        return [plan.episode(episode)]
    return [before for before in plan.episodes(episode // plan.layout.episodes_per_shard) if before.episode <= episode]


def _write(instance: Instance, order: Render, episode: int, out: Path) -> Iterator[Path]:
    noted: dict[str, str] = {}
    try:
        for rendered, members in instance.render(order):
            for about, note in rendered.notes.items():
                if noted.setdefault(about, note) is note:
                    announce(f"Note: {note}")
            for name, content in members.items() if rendered.episode == episode else ():
                path = out / f"{rendered.key}.{name}"
                path.unlink(missing_ok=True)  # a link would lead elsewhere
                path.write_bytes(content)
                yield path
    except InstanceLost as loss:
        hint = _hint("its output is above", order)
        raise Incomplete(f"episode {episode}: the instance {loss}", hint) from None
    except JobBroken as error:
        raise JobBroken(str(error), _hint(error.hint, order), error.details) from None


def _hint(hint: str, order: Render) -> str:
    """Return the hint, and where the scene is that could not be rendered."""
    left = order.save_blend and Path(order.save_blend).exists()
    return "; ".join(filter(None, (hint, f"the scene before its first frame is in {order.save_blend}" if left else "")))
