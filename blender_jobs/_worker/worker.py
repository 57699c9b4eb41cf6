"""An instance: one Blender process that takes orders on stdin and answers with samples.

Run as ``python -m blender_jobs._worker.worker --scratch DIR`` with the bpy wheel, elsewhere by `bootstrap`. The pipe
that was stdout becomes the private channel; whatever Blender or a job prints goes to stderr. When stdin closes, its
compiler is done or gone, and the process ends at once, whatever it is doing: `bpy` renders without the GIL, so the
reading thread always gets its turn.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import platform
import queue
import shutil
import sys
import threading
import traceback
from pathlib import Path
from typing import BinaryIO

import numpy as np

from blender_jobs import orders, wire
from blender_jobs._worker.fields import resolve_fields
from blender_jobs._worker.loading import code_sha256, load_job
from blender_jobs.job import JobError

_CHUNK = 1 << 20


def main() -> None:
    """Serve until stdin closes."""
    scratch = Path(sys.argv[sys.argv.index("--scratch") + 1])
    channel = _take_channel()
    requests: queue.SimpleQueue[orders.Request] = queue.SimpleQueue()
    threading.Thread(target=_read_requests, args=(requests, scratch), daemon=True).start()
    channel.write(wire.SYNC)
    try:
        wire.send(channel, orders.to_head(_hello()))
        while True:
            _serve(requests.get(), channel, scratch)
    except BaseException:
        try:
            traceback.print_exc()
            sys.stderr.flush()
        finally:  # stderr may be gone with the compiler
            os._exit(1)  # the thread that waits for stdin would make an orderly exit abort or hang


def _take_channel() -> BinaryIO:
    """Keep the pipe that is stdout for messages and let prints, C's too, go to stderr."""
    private = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(private, "wb")


def _read_requests(requests: queue.SimpleQueue[orders.Request], scratch: Path) -> None:
    try:
        while (frame := wire.receive(sys.stdin.buffer)) is not None:
            requests.put(orders.from_head(frame[0]))  # type: ignore[arg-type]
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        os._exit(0)  # not sys.exit: bpy may crash in its static destructors


def _serve(request: orders.Request, channel: BinaryIO, scratch: Path) -> None:
    try:
        if isinstance(request, orders.Describe):
            from blender_jobs._worker.describing import describe

            wire.send(channel, orders.to_head(describe(request)))
        elif isinstance(request, orders.Render):
            _render(request, channel, scratch)
        elif isinstance(request, orders.Survey):
            wire.send(channel, orders.to_head(_surveyed()))
        else:
            wire.send(channel, orders.to_head(_probe(request, scratch)))
    except JobError as error:
        wire.send(channel, orders.to_head(orders.JobFailed(str(error), error.trace)))


def _render(order: orders.Render, channel: BinaryIO, scratch: Path) -> None:
    from blender_jobs._render import render
    from blender_jobs._worker.episode import Player

    render.select_device(order.render.device)
    due = {source.name: source.sha256 for source in order.described.sources}
    job_class, _ = load_job(dataclasses.replace(order.job, due=due))
    player = Player(job_class, resolve_fields(job_class, order.described.fields), order, scratch)
    sent = 0
    for wanted in order.episodes:
        try:
            for key, frame, members in player.play(wanted):
                sizes = {name: len(content) for name, content in members.items()}
                head = orders.to_head(orders.Rendered(key, wanted.episode, frame, sizes, player.notes))
                wire.send(channel, head, list(members.values()))
                sent += 1
        except JobError as error:
            failed = orders.JobFailed(str(error), error.trace, wanted.episode)
            wire.send(channel, orders.to_head(failed))
            return
    wire.send(channel, orders.to_head(orders.Done(sent)))


def _probe(request: orders.Probe, scratch: Path) -> orders.Probed:
    import bpy

    from blender_jobs import stage
    from blender_jobs._render import properties, render

    stage.clear()
    stage.cube("cube")
    stage.sun()
    stage.camera(at=(3, -3, 2))
    settings = orders.RenderSettings(request.engine, orders.ENGINE_SAMPLES[request.engine], 64, 48, "png", 100)
    properties.apply(bpy.context.scene, render.pinned(settings))
    if not render.render_image(bpy.context.scene, settings, scratch, None):
        raise JobError(f"{request.engine} rendered no image")
    return orders.Probed(device=_device(request.engine))


def _device(engine: str) -> str:
    """Return what renders: the processor, or OpenGL's name of its renderer."""
    if engine == "cycles":
        return "CPU"
    try:
        import gpu

        return str(gpu.platform.renderer_get())
    except (ImportError, SystemError, AttributeError):
        return "unknown"


def _hello() -> orders.Hello:
    """Import Blender and say which one it is, or why there is none."""
    if problem := _problem():
        return orders.Hello("", "", "", platform.python_version(), np.__version__, "", problem=problem)
    import bpy

    bpy.ops.wm.read_factory_settings(use_empty=True)  # add-ons, Cycles among them, come with it
    return orders.Hello(
        version=bpy.app.version_string,
        build_hash=bpy.app.build_hash.decode(),
        platform=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        numpy=np.__version__,
        code_sha256=code_sha256(),
        build=_build(),
    )


def _problem() -> str:
    if sys.flags.hash_randomization:
        return "PYTHONHASHSEED=0 does not reach its Python, so the order of sets would change from process to process"
    try:
        import bpy  # noqa: F401
    except ImportError as error:
        return str(error)
    return ""


def _build() -> str:
    """Return what tells builds of one version apart: kind, branch and time, or the executable's digest.

    Distributions build from a tarball: such a Blender knows neither its commit nor when it was built.
    """
    import bpy

    app = bpy.app
    kind = "executable" if app.binary_path else "wheel"
    made = [entry.decode(errors="replace") for entry in (app.build_branch, app.build_date, app.build_time)]
    if "unknown" in app.build_hash.decode().lower() or any("unknown" in entry.lower() for entry in made):
        made = [f"sha256:{_sha256(Path(app.binary_path or bpy.__file__))}"]
    return " ".join([kind, *made])


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _surveyed() -> orders.Surveyed:
    """Return which GPUs Cycles can use and which mesh files can be read."""
    from blender_jobs import _mesh_files
    from blender_jobs._render import render

    return orders.Surveyed(gpus=render.available_gpus(), importers=_mesh_files.importers())


if __name__ == "__main__":
    main()
