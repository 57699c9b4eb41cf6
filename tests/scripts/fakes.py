"""`compile-dataset` with a stand-in for Blender that renders at once and fails as told: for hundreds of kills a minute.

Run as a script: ``python fakes.py build ...`` is ``compile-dataset build ...``, every part of it but Blender. What goes
wrong is Python code in the environment: ``FAKE_COMPILER`` as the compiler starts, ``FAKE_START`` as an instance does,
``FAKE_DESCRIBE`` before it describes the job, ``FAKE_SAMPLE`` before each sample.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from blender_jobs import orders, wire

PACE_S = 0.002
"""A sample takes so long."""

PLACE = {
    "camera": {
        "name": "camera",
        "type": "PERSP",
        "width": 8,
        "height": 8,
        "K": [[8.0, 0.0, 4.0], [0.0, 8.0, 4.0], [0.0, 0.0, 1.0]],
        "cam_to_world": [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]],
        "clip_start": 0.1,
        "clip_end": 100.0,
        "distortion": [],
    },
    "image": {"width": 8, "height": 8},
    "objects": [],
    "seed": 0,
}
"""What every sample's annotations hold."""


def main() -> None:
    """Be the compiler, or one of its instances."""
    if "--scratch" in sys.argv:
        serve()
    else:
        compile_dataset()


def compile_dataset() -> None:
    """Run the command line with instances of this kind."""
    from compiler import cli
    from compiler.blender.process import InstanceOptions

    InstanceOptions.command = lambda self, scratch: [sys.executable, __file__, "--scratch", scratch]  # type: ignore[method-assign]
    InstanceOptions.environment = lambda self, scratch: dict(os.environ)  # type: ignore[method-assign]
    exec(os.environ.get("FAKE_COMPILER", ""))
    cli.main()


def serve() -> None:
    """Answer as the worker does."""
    exec(os.environ.get("FAKE_START", ""))
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    channel.write(wire.SYNC)
    wire.send(channel, orders.to_head(orders.Hello("4.5.0", "0" * 12, "Linux fake", "3.11.0", "1.26.4", "ab" * 32)))
    while (frame := wire.receive(sys.stdin.buffer)) is not None:
        request = orders.from_head(frame[0])
        if isinstance(request, orders.Describe):
            exec(os.environ.get("FAKE_DESCRIBE", ""))
            fields = {"every": 1}
            job = Path(request.job.path)
            source = orders.Asset(job.name, str(job), 0, hashlib.sha256(job.read_bytes()).hexdigest())
            described = orders.Described(
                *("Fake", "A fake.", source.sha256, fields, fields, [1, 2, 3], "REUSE" in os.environ, {}),
                sources=[source],
            )
            wire.send(channel, orders.to_head(described))
        elif isinstance(request, orders.Render):
            for head, members in samples(request):
                wire.send(channel, orders.to_head(head), members)
            wire.send(channel, orders.to_head(orders.Done(0)))


def samples(request: orders.Render) -> Iterator[tuple[orders.Rendered, list[bytes]]]:
    """Yield what is ordered, each sample another, the same each time."""
    fault = compile(os.environ.get("FAKE_SAMPLE", ""), "FAKE_SAMPLE", "exec")
    for wanted in request.episodes:
        for sample in wanted.samples:
            exec(fault, {"episode": wanted.episode, "frame": sample.frame, "key": sample.key, "os": os, "time": time})
            time.sleep(PACE_S)
            noise = hashlib.shake_256(sample.key.encode()).digest(2000 + wanted.episode * 37 % 999)
            rare = 1.5 if wanted.episode == 4 else None
            fields = {**PLACE, "episode": wanted.episode, "frame": sample.frame, "rare": rare}
            members = {"png": picture(noise), "json": json.dumps(fields).encode(), "keypoints.npy": noise}
            sizes = {name: len(content) for name, content in members.items()}
            yield orders.Rendered(sample.key, wanted.episode, sample.frame, sizes), list(members.values())


def picture(noise: bytes) -> bytes:
    """Return a PNG of 8x8 pixels."""
    from PIL import Image

    file = io.BytesIO()
    Image.frombytes("RGB", (8, 8), noise[:192]).save(file, "PNG")
    return file.getvalue()


SCRIPT = str(Path(__file__).resolve())

if __name__ == "__main__":
    main()
