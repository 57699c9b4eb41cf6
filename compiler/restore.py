"""From a manifest back to its plan: to replay an episode, to render samples again, to reproduce the dataset."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from blender_jobs.orders import MISSING_FILES, Describe, RenderSettings
from blender_jobs.passes import NONE
from compiler.errors import InstanceLost, OtherPlan, UsageError
from compiler.planning.numbers import check_numbers
from compiler.planning.plan import Plan
from compiler.resolve import FirstBlender
from compiler.storage.changes import changes, told
from compiler.storage.places import Places, placed_blend, placed_fields
from compiler.trust import find_trusted, readable
from loaders.manifest import Manifest


def restore_plan(manifest: Manifest, folder: Path, first: FirstBlender, places: Places) -> Plan:
    """Return the manifest's plan as this Blender resolves it: equal to the manifest's, or not (`other_fields`).

    Args:
        manifest: the dataset's.
        folder: where its manifest lies.
        first: the Blender.
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
            job["passes"] or [NONE],
            placed_blend(manifest, source),
            job["trust_blend"],
            missing_files=job.get("missing_files", MISSING_FILES[0]),
        )
        try:
            described = first.describe(request)
        except InstanceLost as loss:
            raise UsageError(f"{source.path}: while it was loaded, Blender {loss}", details=loss.log) from None
        return Plan(source, described, render, plan["seed"], plan["samples_per_shard"], first.hello)


def restore_checked(
    manifest: Manifest, folder: Path, first: FirstBlender, places: Places, doing: str
) -> tuple[Plan, list[str]]:
    """Return the manifest's plan, resolved here, and how this installation differs from the one it was made with.

    Raises:
        OtherPlan: what the user chose is another now: the job's file, a field, an asset.
        UsageError, JobBroken: as `restore_plan`.
    """
    restored = restore_plan(manifest, folder, first, places)
    chosen, elsewhere = changes(restored, manifest)
    if chosen:
        raise OtherPlan(f"the plan is another now: {told(chosen)}", f"restore it to {doing}")
    return restored, elsewhere


def restore_identical(manifest: Manifest, folder: Path, first: FirstBlender, places: Places, doing: str) -> Plan:
    """Return the manifest's plan, resolved on the same Blender build and packages. Raises as `restore_checked`, too.

    Raises:
        OtherPlan: it is another now: the job's file, a field, an asset, Blender or our code.
    """
    restored, elsewhere = restore_checked(manifest, folder, first, places, doing)
    if elsewhere:
        more = f" (and {len(elsewhere) - 1} more)" if len(elsewhere) > 1 else ""
        raise OtherPlan(f"this installation is another: {elsewhere[0]}{more}", f"install what it was, to {doing}")
    return restored
