"""Play a scene as an instance does, and keep what a judge needs: the picture's colours, the passes, the annotations."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from blender_jobs.job import Job, JobError
from blender_jobs.orders import Described, EpisodeOrder, JobSource, Render, RenderSettings, SampleOrder

WIDTH, HEIGHT = 48, 36
Arrays = dict[str, np.ndarray]


def play(
    build: Callable[[], Any],
    annotate: Callable[[Any, Any], dict[str, Any]],
    *,
    passes: Sequence[str] = ("depth", "segmentation"),
    size: tuple[int, int] = (WIDTH, HEIGHT),
    samples: int = 4,
    frames: Sequence[int] = (1,),
    cameras: Sequence[str] = (),
    blend: str = "",
    episodes: Sequence[int] = (0,),
    layer: str = "",
    **described: Any,
) -> list[dict[str, bytes]]:
    """Return the members of each frame's sample of a job with these hooks.

    Args:
        build: `setup`; what it returns is `annotate`'s second argument.
        annotate: of the view and what was built.
        passes: as a job's.
        size: width and height, pixels.
        samples: Cycles', per pixel.
        frames: as a job's.
        cameras: as a job's.
        blend: the file to open first.
        episodes: played one after the other in this Blender; the last one's samples are returned.
        layer: as a job's `view_layer`.
        described: more of what is resolved about a job.
    """
    from blender_jobs._worker.episode import Player

    @dataclass
    class Cell(Job):
        view_layer = layer

        def setup(self) -> None:
            self.built = build()

        def annotate(self, view: Any) -> dict[str, Any]:
            return annotate(view, self.built)

    known: dict[str, Any] = {
        "class_name": "Cell",
        "doc": "",
        "source_sha256": "",
        "fields": {},
        "portable_fields": {},
        "frames": list(frames),
        "reuse_scene": False,
        "settings": {},
        "cameras": list(cameras),
        "passes": list(passes),
        "blend": blend,
        **described,
    }
    settings = RenderSettings("cycles", samples, *size, "png", 100)
    order = Render(JobSource(__file__), Described(**known), 0, settings, 1, [])
    wanted = [SampleOrder(f"000000-{at:06d}", frame) for at, frame in enumerate(frames)]
    found: list[dict[str, bytes]] = []
    with tempfile.TemporaryDirectory() as scratch:
        player = Player(Cell, {}, order, Path(scratch))
        for episode in episodes:
            found = [members for _, _, members in player.play(EpisodeOrder(episode, wanted))]
    return found


def linear(png: bytes) -> np.ndarray:
    """A picture's colours before the display's curve, float32 (H, W, 3)."""
    encoded = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), dtype=np.float32) / 255
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4).astype(np.float32)


def arrays(members: Mapping[str, bytes], prefix: str = "") -> Arrays:
    """A sample's picture (as ``picture``, linear) and passes (by their names)."""
    found = {
        name[len(prefix) : -len(".npy")]: np.load(io.BytesIO(content))
        for name, content in members.items()
        if name.startswith(prefix) and name.endswith(".npy")
    }
    return {"picture": linear(members[f"{prefix}png"]), **found}


def annotations(members: Mapping[str, bytes], prefix: str = "") -> dict[str, Any]:
    """A sample's annotations."""
    found: dict[str, Any] = json.loads(members[f"{prefix}json"])
    return found


def keep(place: Path, name: str, build: Callable[[], Any], annotate: Any, **more: Any) -> dict[str, Any]:
    """Play one frame; leave its arrays in the folder, and return its annotations, or why there are none."""
    try:
        members = play(build, annotate, **more)[0]
    except JobError as error:
        return {"refused": str(error)}
    np.savez(place / f"{name}.npz", **arrays(members))
    return annotations(members)


def kept(place: Path, name: str) -> Arrays:
    """The arrays that `keep` left."""
    with np.load(place / f"{name}.npz") as found:
        return dict(found)
