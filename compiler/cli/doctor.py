"""``compile-dataset doctor``: which Blender is here, which engines really render, and what it lacks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

import click

from blender_jobs.orders import DEVICES, ENGINE_SAMPLES, Hello, Probe, Survey, Surveyed
from blender_jobs.passes import PASSES
from compiler.blender.process import Instance, InstanceOptions
from compiler.cli.options import blender_option
from compiler.errors import BlenderUnusable, InstanceLost, JobBroken
from compiler.machine import cores
from compiler.terminal import announce, say_json, say_lines


@click.command("doctor")
@blender_option
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def doctor_command(blender: str | None, as_json: bool) -> None:
    """Say which Blender is here, which engines and GPUs render, and what to do about those that do not."""
    options = InstanceOptions(cores(), stall_timeout=120, blender=blender)
    hello, found = examine(options)

    def say(line: str) -> None:
        if not as_json:
            say_lines([line])

    say(f"blender    {hello.version} ({hello.build_hash}, {hello.build})")
    say(f"runs on    {hello.platform}, Python {hello.python}, numpy {hello.numpy}, {cores()} cores")
    made = []
    for check in _check_all(options, found, announce):
        made.append(check)
        say(f"{check.name:<10} {check.state:<6}  {check.text}")
    if as_json:
        say_json({"blender": asdict(hello), "cores": cores(), "checks": [asdict(check) for check in made]})
    if not any(check.name == "cycles" and check.state == "ok" for check in made):
        raise BlenderUnusable("Cycles, the default engine, does not render here", "see the line above")


_GL_HINT = "it needs OpenGL, in software at least: apt-get install libgl1 libegl1 libgl1-mesa-dri libegl-mesa0"

_SLOW = {"eevee": ": it compiles its shaders first, which takes half a minute without a GPU"}
"""What is said of engines that may keep one waiting."""


@dataclass(frozen=True)
class Check:
    """What came of trying one thing."""

    name: str
    state: str
    """``ok``, ``FAILED`` or, for what is only not there, ``none``."""
    text: str
    """What was found and how long it took, or what went wrong and what to do."""


def examine(options: InstanceOptions) -> tuple[Hello, Surveyed]:
    """Return which Blender the instances are, and what it has.

    Raises:
        BlenderUnusable: none that can be used.
    """
    try:
        with Instance(options) as instance:
            return instance.hello, instance.survey(Survey())
    except InstanceLost as loss:
        raise BlenderUnusable(f"Blender {loss}", details=loss.log) from None


def _check_all(options: InstanceOptions, found: Surveyed, say: Callable[[str], None]) -> Iterator[Check]:
    """Try what a build may need, one thing after another; `say` is called with what is being tried."""
    engines = []
    for check in check_engines(options, say):
        engines.append(check)
        yield check
    yield from check_gpus(found)
    yield check_passes(engines)
    yield check_meshes(found)


def check_engines(options: InstanceOptions, say: Callable[[str], None]) -> Iterator[Check]:
    """Render a tiny image with each engine, each in its own instance: without OpenGL, Blender may crash."""
    for engine in ENGINE_SAMPLES:
        say(f"rendering a tiny image with {engine}{_SLOW.get(engine, '')} ...")
        started = time.monotonic()
        try:
            with Instance(options) as instance:
                probed = instance.probe(Probe(engine))
        except (InstanceLost, JobBroken) as error:
            hint = "" if engine == "cycles" else f"; {_GL_HINT}"
            yield Check(engine, "FAILED", f"{error}{hint}")
        else:
            yield Check(engine, "ok", f"{probed.device} ({time.monotonic() - started:.1f} s with start-up)")


def check_gpus(found: Surveyed) -> Iterator[Check]:
    """Say for each programming interface which GPUs Cycles can use."""
    for device in DEVICES[1:]:
        names = found.gpus.get(device)
        if names:
            yield Check(device, "ok", f"--device {device}: {', '.join(names)}")
        elif names is None:
            yield Check(device, "none", "this Blender was built without it")
        else:
            yield Check(device, "none", "Cycles finds no such GPU; if you have one, install its driver")


def check_meshes(found: Surveyed) -> Check:
    """Say which mesh files can be read."""
    there = [suffix for suffix, works in found.importers.items() if works]
    lacking = [suffix for suffix, works in found.importers.items() if not works]
    text = f"{' '.join([*there, '.blend'])}{'; not ' if lacking else ''}{' '.join(lacking)}"
    return Check("meshes", "none" if lacking else "ok", text)


def check_passes(engines: Sequence[Check]) -> Check:
    """Say whether passes can be rendered: Cycles does that, whichever engine renders the image."""
    works = any(check.name == "cycles" and check.state == "ok" for check in engines)
    return Check("passes", "ok" if works else "FAILED", ", ".join(PASSES) if works else "they need Cycles")
