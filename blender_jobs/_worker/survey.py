"""What this Blender has beside its engines."""

from __future__ import annotations

from blender_jobs import importing
from blender_jobs._render import devices
from blender_jobs.orders import Surveyed


def survey() -> Surveyed:
    """Return which GPUs Cycles can use and which mesh files can be read."""
    return Surveyed(gpus=devices.available(), importers=importing.importers())
