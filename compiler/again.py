"""Draw a manifest's plan up again: to replay an episode, to render samples anew, to reproduce the dataset."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from blender_jobs.orders import Describe, RenderSettings
from compiler.errors import InstanceLost, OtherPlan, UsageError
from compiler.instances import Instance
from compiler.plan import Plan, differences
from compiler.sources import Places, find_source, placed_blend, placed_fields
from loaders.manifest import Manifest

BUILD = ("blender.", "render.settings.", "code_sha256")
"""What of a plan's identity comes with the installation, not from the user: paths begin so."""


def plan_again(manifest: Manifest, folder: Path, instance: Instance, places: Places) -> Plan:
    """Return the manifest's plan as this Blender draws it up: equal to the manifest's, or not (`other_fields`).

    Args:
        manifest: the dataset's.
        folder: where its manifest lies.
        instance: the Blender.
        places: where the job and its assets are.

    Raises:
        UsageError: the manifest does not say what to render, or the job's file is gone.
        JobBroken: the job cannot be used.
    """
    try:
        plan, job = manifest.plan, manifest.plan["job"]
        source = find_source(manifest, folder, places)
        render = RenderSettings(**{entry.name: plan["render"][entry.name] for entry in fields(RenderSettings)})
        request = Describe(
            source,
            placed_fields(manifest, source),
            render,
            job["passes"],
            placed_blend(manifest, source),
            job["trust_blend"],
        )
        described = instance.describe(request)
        return Plan(source, described, render, plan["seed"], plan["samples_per_shard"], instance.hello)
    except InstanceLost as loss:
        raise UsageError(f"{source.path}: while it was loaded, Blender {loss}", details=loss.log) from None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"the manifest's plan cannot be read: {type(error).__name__}: {error}") from None


def same_plan(manifest: Manifest, folder: Path, instance: Instance, places: Places, doing: str) -> Plan:
    """Return the manifest's plan, drawn up again; it is the same. Raises as `plan_again`, too.

    Raises:
        OtherPlan: it is another now: the job's file, an asset, the Blender or our code.
    """
    again = plan_again(manifest, folder, instance, places)
    if different := sorted(differences(again.identity(), manifest.plan), key=_of_the_build):
        name, now, then = different[0]
        more = f" (and {len(different) - 1} more)" if len(different) > 1 else ""
        raise OtherPlan(f"the plan is another now: {name} was {then!r}, is {now!r}{more}", f"restore it to {doing}")
    return again


def _of_the_build(difference: tuple[str, object, object]) -> bool:
    return difference[0].startswith(BUILD)
