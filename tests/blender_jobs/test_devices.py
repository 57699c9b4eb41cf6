"""Cycles renders on the GPUs asked for, and on those alone; where there are none, one line says what there is."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.commands import TINY, run
from tests.in_blender import needs_bpy, play, scene


@dataclass
class Entry:
    """A device as Cycles lists it."""

    name: str
    type: str
    use: bool


@dataclass
class StandIn:
    """Cycles' preferences on a machine with two GPUs, known to two interfaces, and a processor."""

    compute_device_type: str = "NONE"
    devices: list[Entry] = field(
        default_factory=lambda: [
            Entry("Beta", "CUDA", False),
            Entry("Alpha", "CUDA", True),
            Entry("Beta", "OPTIX", True),
            Entry("Processor", "CPU", True),
        ]
    )

    def get_device_types(self, context: Any) -> list[tuple[str, str, str, int]]:
        return [(name, name, "", at) for at, name in enumerate(("NONE", "CUDA", "OPTIX", "HIP"))]

    def get_devices_for_type(self, interface: str) -> list[Entry]:
        return [entry for entry in self.devices if entry.type in (interface, "CPU")]


@scene
def on_a_machine_with_gpus(folder: Path) -> Any:
    from blender_jobs._render import render
    from blender_jobs.job import JobError

    there = StandIn()
    real, render._preferences = render._preferences, lambda: there  # type: ignore[assignment]
    try:
        names = render.select_device("cuda")
        used = [(entry.name, entry.type) for entry in there.devices if entry.use]
        refused = {}
        for device in ("hip", "metal"):
            with pytest.raises(JobError) as refusal:
                render.select_device(device)
            refused[device] = str(refusal.value)
        return {"names": names, "interface": there.compute_device_type, "used": used, "refused": refused}
    finally:
        render._preferences = real


@scene
def emptied_after_a_choice(folder: Path) -> Any:
    """What stands in the preferences after the scene was replaced, as each episode does."""
    from blender_jobs import stage
    from blender_jobs._render import render

    device = next(iter(render.available_gpus()), None)
    if device is None:
        return None
    preferences = render._preferences()
    preferences.compute_device_type = device.upper()
    stage.clear()
    return [render._preferences().compute_device_type, device.upper()]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return play(__name__, tmp_path_factory.mktemp("scenes"))


@needs_bpy
def test_exactly_the_gpus_of_the_interface_are_used(seen: dict[str, Any]) -> None:
    """All of them, sorted by name; not the processor, not those of another interface."""
    found = seen["on_a_machine_with_gpus"]
    assert found["names"] == ["Alpha", "Beta"]
    assert found["interface"] == "CUDA"
    assert found["used"] == [["Beta", "CUDA"], ["Alpha", "CUDA"]]


@needs_bpy
def test_the_choice_outlives_the_scene(seen: dict[str, Any]) -> None:
    if seen["emptied_after_a_choice"] is None:
        pytest.skip("Cycles of this Blender knows no GPU interface")
    now, chosen = seen["emptied_after_a_choice"]
    assert now == chosen


@needs_bpy
def test_what_is_lacking_and_what_there_is_instead_is_one_line(seen: dict[str, Any]) -> None:
    refused = seen["on_a_machine_with_gpus"]["refused"]
    assert refused["hip"].startswith("--device hip: Cycles finds no such GPU, or not its driver; use")
    assert refused["metal"].startswith("--device metal: this build of Blender")
    for said in refused.values():
        assert said.endswith("use --device cuda (Alpha, Beta) or --device optix (Beta) or --device cpu")


def test_a_gpu_that_is_not_there_is_refused_before_anything_is_rendered(tmp_path: Path) -> None:
    """No build of Blender has all interfaces: one of these is absent on any machine."""
    refused = [
        run("cube", *TINY[4:], "--shards", 1, "--device", name, "--dry-run", cwd=tmp_path) for name in ("metal", "hip")
    ]
    absent = [done for done in refused if done.returncode]
    assert absent
    for done in absent:
        assert done.returncode == 2
        assert "use --device cpu" in done.stderr
        assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
