"""The doctor tells what is there, what renders, and what is lacking."""

from __future__ import annotations

import json
from typing import NoReturn

import pytest

from blender_jobs.orders import DEVICES, ENGINE_SAMPLES, Surveyed
from compiler.blender.process import InstanceOptions
from compiler.cli.doctor import Check, check_engines, check_gpus, check_meshes, check_passes
from compiler.errors import InstanceLost
from tests.commands import ok, run


def test_it_says_what_there_is_of_gpus_passes_and_meshes() -> None:
    found = Surveyed(gpus={"cuda": ["A", "B"], "hip": []}, importers={".obj": True, ".ply": False})
    gpus = {check.name: check for check in check_gpus(found)}
    assert list(gpus) == list(DEVICES[1:])
    assert gpus["cuda"] == Check("cuda", "ok", "--device cuda: A, B")
    assert gpus["hip"].text.startswith("Cycles finds no such GPU")
    assert gpus["metal"].text == "this Blender was built without it"
    assert check_meshes(found) == Check("meshes", "none", ".obj .blend; not .ply")
    assert check_passes([Check("cycles", "ok", "CPU")]).state == "ok"
    assert check_passes([Check("cycles", "FAILED", "")]).state == "FAILED"


def test_before_each_trial_it_says_what_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling EEVEE's shaders takes half a minute: nobody should wonder what for."""
    heard: list[str] = []

    def fails(_: InstanceOptions) -> NoReturn:
        heard.append("started")
        raise InstanceLost("died")

    monkeypatch.setattr("compiler.cli.doctor.Instance", fails)
    checks = list(check_engines(InstanceOptions(1, 1), heard.append))
    assert [check.state for check in checks] == ["FAILED"] * 3
    assert [line.partition(":")[0] for line in heard[0::2]] == [
        "rendering a tiny image with cycles ...",
        "rendering a tiny image with eevee",
        "rendering a tiny image with workbench ...",
    ]
    assert "compiles its shaders first" in heard[2]
    assert heard[1::2] == ["started"] * 3


@pytest.mark.slow
def test_it_renders_with_each_engine_of_the_wheel() -> None:
    done = run("doctor")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines[2:5]] == [[engine, "ok"] for engine in ENGINE_SAMPLES]
    assert lines[0].startswith("blender ")
    assert "wheel" in lines[0]
    tried = [line for line in done.stderr.splitlines() if line.startswith("rendering a tiny image with ")]
    assert len(tried) == len(ENGINE_SAMPLES)
    assert "eevee: it compiles its shaders first" in tried[1]


@pytest.mark.slow
def test_it_renders_with_each_engine_of_an_executable(blender_executable: str) -> None:
    told = json.loads(ok("doctor", "--json", "--blender", blender_executable))
    states = {check["name"]: check["state"] for check in told["checks"]}
    assert {engine: states[engine] for engine in ENGINE_SAMPLES} == dict.fromkeys(ENGINE_SAMPLES, "ok")
    assert set(states) == {*ENGINE_SAMPLES, *DEVICES[1:], "passes", "meshes"}
    assert told["blender"]["build"].startswith("executable")
