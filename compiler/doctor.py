"""Find out which Blender is here and which engines really render."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from blender_jobs.orders import ENGINE_SAMPLES, Hello, Probe
from compiler.errors import BlenderUnusable, InstanceLost, JobBroken
from compiler.instances import Instance, Launch

_GL_HINT = "it needs OpenGL, in software at least: apt-get install libgl1 libegl1 libgl1-mesa-dri libegl-mesa0"


@dataclass(frozen=True)
class EngineCheck:
    """What came of one tiny image."""

    engine: str
    works: bool
    text: str
    """The device and the seconds it took, or what went wrong and what to do."""


def find_blender(launch: Launch) -> Hello:
    """Return which Blender the instances are.

    Raises:
        BlenderUnusable: none that can be used.
    """
    try:
        instance = Instance(launch)
    except InstanceLost as loss:
        raise BlenderUnusable(f"Blender did not start: it {loss}", details=loss.log) from None
    instance.end()
    return instance.hello


def check_engines(launch: Launch) -> Iterator[EngineCheck]:
    """Render a tiny image with each engine, each in an instance of its own: without OpenGL, Blender may crash."""
    for engine in ENGINE_SAMPLES:
        started = time.monotonic()
        try:
            instance = Instance(launch)
            try:
                probed = instance.probe(Probe(engine))
            finally:
                instance.end()
        except (InstanceLost, JobBroken) as error:
            hint = "" if engine == "cycles" else f"; {_GL_HINT}"
            yield EngineCheck(engine, False, f"{error}{hint}")
        else:
            yield EngineCheck(engine, True, f"{probed.device} ({time.monotonic() - started:.1f} s with start-up)")
