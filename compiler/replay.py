"""Render one episode again, in the foreground, with all that Blender says: where a job fails, one sees why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from compiler.again import chosen_again
from compiler.errors import Incomplete, InstanceLost, UsageError
from compiler.rendering.instances import Instance, Launch
from compiler.storage.sources import Places
from loaders.manifest import Manifest


def replay(
    manifest: Manifest, folder: Path, episode: int, out: Path, launch: Launch, places: Places, save_blend: bool
) -> tuple[list[Path], list[str]]:
    """Render `episode` and write its samples' members as files under `out`.

    With `save_blend` the scene, as it is before the first frame, becomes a file that Blender opens.

    Returns:
        The files' paths, and how this installation differs from the one that the dataset was made with.

    Raises:
        Incomplete: Blender died in it.
        BlendshardError: as `chosen_again`; JobBroken where the job fails.
    """
    written = []
    try:
        instance = Instance(launch)
        try:
            plan, elsewhere = chosen_again(manifest, folder, instance, places, doing="replay")
            order = plan.order([plan.episode(episode)], launch.threads)
            out.mkdir(parents=True, exist_ok=True)
            if save_blend:
                written.append(out.absolute() / f"episode-{episode}.blend")
                order = replace(order, save_blend=str(written[0]))
            for rendered, members in instance.render(order):
                for name, content in members.items():
                    path = out / f"{rendered.key}.{name}"
                    path.write_bytes(content)
                    written.append(path)
        finally:
            instance.end()
    except InstanceLost as loss:
        raise Incomplete(f"episode {episode}: the instance {loss}", "its whole output stands above") from None
    except OSError as error:
        raise UsageError(f"cannot write to {out}: {error.strerror}", "name another place with --out") from None
    return written, elsewhere
