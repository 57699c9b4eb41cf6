"""``compile-dataset doctor``: which Blender is here, and what works."""

from __future__ import annotations

from dataclasses import asdict

import click

from compiler.blender import doctor as checks
from compiler.blender.process import InstanceOptions
from compiler.cli.plan_options import blender_option
from compiler.errors import BlenderUnusable
from compiler.machine import cores
from compiler.terminal import announce, say_json, say_lines


@click.command("doctor")
@blender_option
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def doctor_command(blender: str | None, as_json: bool) -> None:
    """Say which Blender is here, which engines and GPUs render, and what to do about those that do not."""
    options = InstanceOptions(cores(), stall_timeout=120, blender=blender)
    hello, found = checks.examine(options)

    def say(line: str) -> None:
        if not as_json:
            say_lines([line])

    say(f"blender    {hello.version} ({hello.build_hash}, {hello.build})")
    say(f"runs on    {hello.platform}, Python {hello.python}, numpy {hello.numpy}, {cores()} cores")
    made = []
    for check in checks.check_all(options, found, announce):
        made.append(check)
        say(f"{check.name:<10} {check.state:<6}  {check.text}")
    if as_json:
        say_json({"blender": asdict(hello), "cores": cores(), "checks": [asdict(check) for check in made]})
    if not any(check.name == "cycles" and check.state == "ok" for check in made):
        raise BlenderUnusable("Cycles, the default engine, does not render here", "see the line above")
