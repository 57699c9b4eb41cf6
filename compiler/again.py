"""Draw a manifest's plan up again: to replay an episode, to render samples anew, to reproduce the dataset."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from blender_jobs.orders import Describe, RenderSettings
from compiler.errors import InstanceLost, OtherPlan, UsageError
from compiler.planning.numbers import check_numbers
from compiler.planning.plan import Plan, differences
from compiler.rendering.instances import Instance
from compiler.storage.places import Places, placed_blend, placed_fields
from compiler.trust import find_trusted, readable
from loaders.manifest import Manifest

BUILD = ("blender.", "render.settings.", "code_sha256")
"""What of a plan's identity comes with the installation, not from the user: paths begin so."""


def plan_again(manifest: Manifest, folder: Path, instance: Instance, places: Places) -> Plan:
    """Return the manifest's plan as this Blender draws it up: equal to the manifest's, or not (`other_fields`).

    Args:
        manifest: the dataset's.
        folder: where its manifest lies.
        instance: the Blender.
        places: where the job and its assets are, and what is trusted.

    Raises:
        UsageError: the manifest does not say what to render, the job's file or an asset is gone, or the job is a
            stranger's and not trusted.
        OtherPlan: the job's file, a module beside it or an asset is another; nothing was run.
        JobBroken: the job cannot be used.
    """
    if manifest.recorded:
        raise UsageError(
            "this is a recording of live samples: its manifest does not tell where the job is",
            "name the dataset that was recorded, or build that",
        )
    with readable():
        check_numbers(manifest.plan)
        plan, job = manifest.plan, manifest.plan["job"]
        source = find_trusted(manifest, folder, places)
        render = RenderSettings(**{entry.name: plan["render"][entry.name] for entry in fields(RenderSettings)})
        request = Describe(
            source,
            placed_fields(manifest, source),
            render,
            job["passes"],
            placed_blend(manifest, source),
            job["trust_blend"],
        )
        try:
            described = instance.describe(request)
        except InstanceLost as loss:
            raise UsageError(f"{source.path}: while it was loaded, Blender {loss}", details=loss.log) from None
        return Plan(source, described, render, plan["seed"], plan["samples_per_shard"], instance.hello)


def chosen_again(
    manifest: Manifest, folder: Path, instance: Instance, places: Places, doing: str
) -> tuple[Plan, list[str]]:
    """Return the manifest's plan, drawn up again, and how this installation differs from the one it was made with.

    Raises:
        OtherPlan: what the user chose is another now: the job's file, a field, an asset.
        UsageError, JobBroken: as `plan_again`.
    """
    again, elsewhere = plan_again(manifest, folder, instance, places), []
    for name, now, then in differences(again.identity(), manifest.plan):
        if not name.startswith(BUILD):
            raise OtherPlan(f"the plan is another now: {name} was {then!r}, is {now!r}", f"restore it to {doing}")
        elsewhere.append(f"{name} was {then!r}, is {now!r}")
    return again, elsewhere


def same_plan(manifest: Manifest, folder: Path, instance: Instance, places: Places, doing: str) -> Plan:
    """Return the manifest's plan, drawn up again on the same Blender build and packages. Raises as `chosen_again`, too.

    Raises:
        OtherPlan: it is another now: the job's file, a field, an asset, Blender or our code.
    """
    again, elsewhere = chosen_again(manifest, folder, instance, places, doing)
    if elsewhere:
        more = f" (and {len(elsewhere) - 1} more)" if len(elsewhere) > 1 else ""
        raise OtherPlan(f"this installation is another: {elsewhere[0]}{more}", f"install what it was, to {doing}")
    return again
