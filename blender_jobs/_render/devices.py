"""What Cycles renders on: the processor, or the GPUs of one programming interface."""

from __future__ import annotations

from typing import Any

import bpy

from blender_jobs.job import JobError
from blender_jobs.orders import DEVICES


def select(device: str) -> list[str]:
    """Let Cycles use the GPUs of `device` (one of `orders.DEVICES`), and the processor for nothing.

    This is a preference, not a setting of the scene: it outlives the scenes that are built after it.

    Returns:
        their names, sorted; none for ``cpu``.

    Raises:
        JobError: this Blender was built without it, or finds no such GPU.
    """
    if device == "cpu":
        return []
    found = available()
    if not found.get(device):
        raise JobError(_none(device, found))
    preferences = _preferences()
    preferences.compute_device_type = device.upper()
    for entry in preferences.devices:
        entry.use = entry.type == device.upper()
    return found[device]


def available() -> dict[str, list[str]]:
    """Return the names of the GPUs, sorted, by each interface that Cycles was built with: also where there is none."""
    preferences = _preferences()
    if preferences is None:
        return {}
    built = {entry[0] for entry in preferences.get_device_types(bpy.context)}
    return {device: _names(preferences, device.upper()) for device in DEVICES if device.upper() in built}


def _preferences() -> Any:
    """Return the preferences of Cycles; None where Blender was built without it."""
    add_on = bpy.context.preferences.addons.get("cycles")
    return add_on.preferences if add_on else None


def _names(preferences: Any, interface: str) -> list[str]:
    entries = preferences.get_devices_for_type(interface)  # with the processor, which may take part
    return sorted(entry.name for entry in entries if entry.type == interface)


def _none(device: str, found: dict[str, list[str]]) -> str:
    """Return one line: why `device` cannot be chosen, and what can."""
    others = [f"--device {other} ({', '.join(names)})" for other, names in found.items() if names]
    if device in found:
        why = "Cycles finds no such GPU, or not its driver"
    else:
        why = f"this build of Blender {bpy.app.version_string} has it not"
    return f"--device {device}: {why}; use {' or '.join([*others, '--device cpu'])}"
