"""``compile-dataset verify --rerender``: samples rendered again and held against the published ones."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from compiler.commands.output import announce
from compiler.errors import OtherPixels, VerificationFailed
from compiler.prepare import cores, share_cores, start_first
from compiler.proof.rerender import Comparison, Rerendered, prepare_rerender, rerender
from compiler.rendering.instances import STALL_TIMEOUT_S, Launch
from compiler.storage.sources import Places
from loaders.manifest import Manifest

_SHOWN = 20
"""Samples that differ are spelled out up to this number; all are counted."""


class AmountType(click.ParamType[int]):
    """A number of samples, or ``all`` (0)."""

    name = "K|all"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number, 0 for ``all``."""
        if value == "all":
            return 0
        number: int = click.IntRange(min=1).convert(value, param, ctx)
        return number


def rerender_and_compare(folder: Path, manifest: Manifest, given: Mapping[str, Any]) -> dict[str, Any]:
    """Render samples again, say which differ and how, and return the counts for a program.

    Raises:
        VerificationFailed: they differ on the same Blender build and processor.
        OtherPixels: they differ, and the build or the processor is another.
        BlendshardError: as `prepare_rerender` and `rerender`.
    """
    seed = secrets.randbits(32) if given["pick"] is None else given["pick"]
    instances, threads = share_cores(given["jobs"] or cores(), shards=0)
    launch = Launch(threads, STALL_TIMEOUT_S, blender=given["blender"])
    first = start_first(launch)
    try:
        places = Places(given["job"], given["assets"])
        comparison = prepare_rerender(folder, manifest, given["rerender"] or None, seed, first, places)
    finally:
        first.end()
    for line in comparison.elsewhere:
        announce(f"Note: another installation: {line}")
    compared, different = 0, []
    for sample in rerender(comparison, launch, instances):
        compared += 1
        if sample.differences:
            different.append(sample.key)
            _say(sample, len(different))
    counts = {"rerendered": compared, "different": different, "pick": seed, "elsewhere": comparison.elsewhere}
    if not given["as_json"]:
        click.echo(f"{compared} samples rendered again, {len(different)} differ (--pick {seed})")
    if different:
        raise _verdict(comparison, compared, len(different))
    return counts


def _say(sample: Rerendered, number: int) -> None:
    if number <= _SHOWN:
        for difference in sample.differences:
            announce(f"{sample.key}  {difference}")


def _verdict(comparison: Comparison, compared: int, different: int) -> VerificationFailed | OtherPixels:
    count = f"{different} of {compared} samples that were rendered again have other bytes"
    if comparison.elsewhere:
        return OtherPixels(
            f"{count}; so may it be on another installation ({comparison.elsewhere[0]})",
            "render on the Blender build and the processor of the manifest to prove the bytes",
        )
    return VerificationFailed(f"{count}, on the same Blender build and processor", "compile-dataset replay shows one")
