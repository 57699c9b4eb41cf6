"""Render one episode again, in the foreground, with all that Blender says: where a job fails, one sees why."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from blender_jobs.orders import Describe, JobSource, Render, RenderSettings
from compiler.errors import Incomplete, InstanceLost, OtherPlan, UsageError
from compiler.instances import Instance, Launch
from compiler.plan import Plan, differences
from loaders.manifest import Manifest


def plan_again(manifest: Manifest, instance: Instance) -> Plan:
    """Return the manifest's plan, drawn up anew with this Blender and the job file where it was.

    Raises:
        UsageError: the manifest does not say what to render.
        OtherPlan: the job's file, the Blender or our code is another now.
        JobBroken, InstanceLost: as `Instance.describe`.
    """
    try:
        plan = manifest.plan
        source = JobSource(manifest.provenance["job_path"], plan["job"]["class"])
        render = RenderSettings(**{entry.name: plan["render"][entry.name] for entry in fields(RenderSettings)})
        described = instance.describe(Describe(source, plan["job"]["fields"], render))
        again = Plan(source, described, render, plan["seed"], plan["samples_per_shard"], instance.hello)
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"the manifest's plan cannot be read: {type(error).__name__}: {error}") from None
    if different := next(differences(again.identity(), plan), None):
        name, now, then = different
        raise OtherPlan(f"the plan is another now: {name} was {then!r}, is {now!r}", "restore it to replay")
    return again


def replay(manifest: Manifest, episode: int, out: Path, launch: Launch) -> list[Path]:
    """Render `episode` and write its samples' members as files under `out`; return their paths.

    Raises:
        Incomplete: Blender died in it.
        BlendshardError: as `plan_again`; JobBroken where the job fails.
    """
    written = []
    try:
        instance = Instance(launch)
        try:
            plan = plan_again(manifest, instance)
            job, settings = plan.job, plan.render
            episodes = [plan.episode(episode)]
            digest, threads = job.source_sha256, launch.threads
            order = Render(plan.source, digest, job.fields, plan.seed, settings, threads, episodes)
            out.mkdir(parents=True, exist_ok=True)
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
    return written
