"""Small datasets of a true plan, with everything that a sample can hold, as the compiler writes them; no Blender."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from blender_jobs.orders import Described, EpisodeOrder, Hello, JobSource, RenderSettings
from compiler.planning import schemas
from compiler.planning.plan import Plan
from loaders.content import content_digest
from loaders.format import SPLIT, sample_digest
from loaders.layout import ShardLayout
from loaders.manifest import FILE_NAME, Manifest, ShardInfo
from loaders.tarstream import END, sample_record
from tests.synthetic import image_bytes, npy_bytes

Samples = list[tuple[str, dict[str, bytes]]]
"""Keys and members."""

CATEGORIES = [{"id": 1, "name": "cube", "keypoints": [], "skeleton": [], "colors": []}]


@dataclass(frozen=True)
class Recipe:
    """What a dataset is made of; equal recipes, equal bytes."""

    seed: int = 0
    shards: int = 3
    samples_per_shard: int = 5
    frames: tuple[int, ...] = (1, 26)
    size: tuple[int, int] = (16, 12)
    """Width and height."""
    image: str = "png"
    cameras: tuple[str, ...] = ()
    passes: tuple[str, ...] = ()
    objects: int = 2
    categories: list[dict[str, Any]] = field(default_factory=lambda: CATEGORIES, hash=False)

    @property
    def plan(self) -> Plan:
        """The plan, as the compiler draws it up."""
        return Plan(
            JobSource("/jobs/cubes.py"),
            Described(
                "Cubes",
                "Cubes.",
                "ab" * 32,
                {"count": 10},
                {"count": 10},
                list(self.frames),
                False,
                {"render.fps": 24},
                cameras=list(self.cameras),
                categories=self.categories,
                passes=list(self.passes),
            ),
            RenderSettings("cycles", 16, *self.size, self.image, 90),
            self.seed,
            self.samples_per_shard,
            Hello("4.5.15", "0123abcd", "Linux x86_64", "3.11.2", "1.26.4", "cd" * 32),
        )

    def members(self, order: EpisodeOrder, at: int) -> dict[str, bytes]:
        """Return the members of one sample, drawn from seed, episode, frame and camera."""
        found = {}
        for number, camera in enumerate(self.cameras or ("",)):
            frame = order.samples[at].frame
            rng = np.random.default_rng([self.seed, order.episode, frame, number])
            prefix = f"{camera}." if camera else ""
            view = self._view(rng, order.episode, frame, camera or "Camera")
            found.update({f"{prefix}{name}": content for name, content in view.items()})
        return found

    def _view(self, rng: np.random.Generator, episode: int, frame: int, camera: str) -> dict[str, bytes]:
        width, height = self.size
        points = rng.random((self.objects, 8, 4)).round(6) * [width, height, 1, 5]
        points[..., 2] = rng.integers(0, 3, (self.objects, 8))
        annotations = {
            "camera": _camera(camera, width, height),
            "image": {"width": width, "height": height},
            "episode": episode,
            "frame": frame,
            "seed": self.seed,
            "objects": [_described(at, rows) for at, rows in enumerate(points, start=1)],
            "note": "of the job's own",
        }
        return {
            self.image: self._image(rng),
            "json": json.dumps(annotations, sort_keys=True, separators=(",", ":")).encode(),
            "keypoints.npy": npy_bytes(points.reshape(-1, 4).astype(np.float32)),
            **self._arrays(rng),
        }

    def _image(self, rng: np.random.Generator) -> bytes:
        width, height = self.size
        noise = rng.integers(0, 40, (height, width, 3)) + np.linspace(0, 200, width)[:, None]
        kinds = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}
        return image_bytes(noise.astype(np.uint8), kinds[self.image])

    def _arrays(self, rng: np.random.Generator) -> dict[str, bytes]:
        bare = replace(self, cameras=())
        entries = {name: entry for name, entry in bare.plan.members().items() if name.endswith(".npy")}
        del entries["keypoints.npy"]
        highest = {"segmentation.npy": self.objects, "categories.npy": 1}
        return {
            name: npy_bytes((rng.random(entry["shape"]) * (highest.get(name, 0) + 1)).astype(entry["dtype"]))
            for name, entry in entries.items()
        }


def make(folder: Path, recipe: Recipe | None = None) -> Manifest:
    """Write the dataset into `folder` and return its manifest."""
    recipe = recipe or Recipe()
    folder.mkdir(parents=True, exist_ok=True)
    plan = recipe.plan
    manifest = plan.manifest({"job_path": plan.source.path})
    gathered: schemas.Schema = "null"
    for number in range(recipe.shards):
        samples = [
            (sample.key, recipe.members(order, at))
            for order in plan.episodes(number)
            for at, sample in enumerate(order.samples)
        ]
        manifest = manifest.with_shard(write_shard(folder, plan.layout, number, samples))
        views = [content for _, members in samples for name, content in members.items() if name.endswith("json")]
        for content in views:
            gathered = schemas.merge(gathered, schemas.schema_of(json.loads(content)))
    return write_manifest(folder, replace(manifest, schema={**manifest.schema, "annotations": gathered}))


def write_shard(folder: Path, layout: ShardLayout, number: int, samples: Samples) -> ShardInfo:
    """Write a shard of these samples and return its entry for the manifest."""
    records = [sample_record(key, members) for key, members in samples]
    content, name = b"".join(records) + END, layout.shard_name(number)
    (folder / name).write_bytes(content)
    meaning = hashlib.sha256(b"".join(content_digest(key, members) for key, members in samples)).hexdigest()
    each = "".join(map(sample_digest, records))
    sha256 = hashlib.sha256(content).hexdigest()
    return ShardInfo(name, SPLIT, number, len(samples), len(content), sha256, meaning, each)


def write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """Write the manifest into the folder, and return it."""
    (folder / FILE_NAME).write_bytes(manifest.to_json())
    return manifest


def _camera(name: str, width: int, height: int) -> dict[str, Any]:
    return {
        "name": name,
        "type": "PERSP",
        "width": width,
        "height": height,
        "K": [[50.0, 0.0, width / 2], [0.0, 50.0, height / 2], [0.0, 0.0, 1.0]],
        "cam_to_world": np.eye(4).tolist(),
        "clip_start": 0.1,
        "clip_end": 100.0,
        "distortion": [],
    }


def _described(number: int, rows: Any) -> dict[str, Any]:
    return {
        "name": f"cube.{number:03d}",
        "category": "cube",
        "category_id": 1,
        "segmentation_id": number,
        "pose": np.eye(4).tolist(),
        "matrix_world": np.eye(4).tolist(),
        "dimensions": [1.0, 1.0, 1.0],
        "bbox": [0.0, 0.0, 4.0, 3.0],
        "bbox_unclipped": [-1.0, 0.0, 5.0, 3.0],
        "box3d": np.zeros((8, 3)).tolist(),
        "keypoint_names": [f"corner{at}" for at in range(8)],
        "keypoints": rows[:, :3].ravel().tolist(),
        "keypoint_depths": rows[:, 3].tolist(),
        "num_keypoints": int((rows[:, 2] > 0).sum()),
    }
