"""How fast 640x480 shards are read into batches, compared with the bare limit and with plain webdataset.

The limit is a single process that walks a tar and decodes each sample with Pillow, without order or batches. Each
contender runs in a separate process. Figures are medians over the rounds. Ratios compare runs of the same round, so a
busy machine slows all of them down equally.

    python benchmarks/read_shards.py [--samples 800] [--rounds 3] [--formats jpg png]
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from loaders._workers import keep_freed_memory  # noqa: E402
from loaders.tarstream import BLOCK, END, padded, sample_record  # noqa: E402

BATCH = 32
SHARDS = 4
CONTENDERS = ("bare limit", "Loader 0", "Loader 1", "Loader 2", "webdataset 1", "webdataset 2")
ENCODINGS = {"jpg": ("JPEG", {"quality": 95}), "png": ("PNG", {"compress_level": 1})}


def picture(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return a shaded floor with a dozen smooth blobs and a little noise: about as hard to encode as a rendering."""
    y, x = np.mgrid[0:480, 0:640].astype(np.float32)
    pixels = np.stack([90 + y / 8, 100 + x / 16, 120 - y / 10], axis=-1)
    for _ in range(12):
        center, radius, colour = rng.uniform((0, 0), (640, 480)), rng.uniform(20, 90), rng.uniform(0, 255, 3)
        inside = (np.abs(x - center[0]) < radius) & (np.abs(y - center[1]) < radius * 0.8)
        pixels[inside] = colour * (0.7 + 0.3 * (x[inside] - center[0] + radius) / (2 * radius))[:, None]
    noisy: NDArray[np.uint8] = np.clip(pixels + rng.normal(0, 0.4, pixels.shape), 0, 255).astype(np.uint8)
    return noisy


def write_shards(folder: Path, image_format: str, samples: int) -> None:
    """Write `samples` samples as the compiler does: image, keypoints of eight cubes, annotations."""
    rng = np.random.default_rng(0)
    name, options = ENCODINGS[image_format]
    pictures = []
    for _ in range(50):  # distinct ones; the disk cache holds far more than a processor's
        file = io.BytesIO()
        Image.fromarray(picture(rng)).save(file, name, **options)
        pictures.append(file.getvalue())
    keypoints = io.BytesIO()
    np.save(keypoints, rng.random((64, 4), dtype=np.float32))
    cube = {"name": "cube", "bbox": [1.5, 2.5, 30.0, 40.0], "keypoints": rng.random(24).round(3).tolist()}
    for shard in range(SHARDS):
        with (folder / f"bench-{shard:06d}.tar").open("wb") as tar:
            for place in range(samples // SHARDS):
                annotations = json.dumps({"frame": place, "objects": [cube] * 8}).encode()
                members = {"json": annotations, "keypoints.npy": keypoints.getvalue()}
                members[image_format] = pictures[(shard * 17 + place) % len(pictures)]
                tar.write(sample_record(f"{shard:06d}-{place:06d}", members))
            tar.write(END)


def bare_limit(folder: Path) -> Iterator[int]:
    """Decode every member in the order of the files."""
    keep_freed_memory()
    for path in sorted(folder.glob("*.tar")):
        with path.open("rb") as tar:
            while (header := tar.read(BLOCK)).strip(b"\0"):
                member = header[:100].rstrip(b"\0").partition(b".")[2]
                size = int(header[124:135], 8)
                content = tar.read(padded(size))[:size]
                if member == b"json":
                    json.loads(content)
                elif member == b"keypoints.npy":
                    np.load(io.BytesIO(content), allow_pickle=False)
                else:
                    np.asarray(Image.open(io.BytesIO(content)))
                    yield 1


def our_loader(folder: Path, workers: int) -> Iterator[int]:
    """Shuffle over all samples, torch tensors, batches."""
    import loaders

    dataset = loaders.ShardDataset(sorted(folder.glob("*.tar")))
    for batch in loaders.Loader(dataset, BATCH, num_workers=workers):
        yield len(batch["image"])


def webdataset_loader(folder: Path, workers: int) -> Iterator[int]:
    """The pipeline of webdataset's own documentation, with a shuffle buffer, to the same tensors."""
    import webdataset

    urls = [str(path) for path in sorted(folder.glob("*.tar"))]
    dataset = (
        webdataset.WebDataset(urls, shardshuffle=SHARDS)
        .shuffle(200)
        .decode("torchrgb8")
        .to_tuple("png;jpg", "json", "keypoints.npy")
        .batched(BATCH)
    )
    for images, *_ in webdataset.WebLoader(dataset, batch_size=None, num_workers=workers):
        yield len(images)


def contender(name: str, folder: Path) -> Iterator[int]:
    """Return what yields the numbers of samples that `name` reads."""
    kind, _, workers = name.rpartition(" ")
    if name == "bare limit":
        return bare_limit(folder)
    read: Callable[[Path, int], Iterator[int]] = our_loader if kind == "Loader" else webdataset_loader
    return read(folder, int(workers))


def cpu_seconds() -> float:
    """Return what this process and its ended children have used."""
    uses = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(use.ru_utime + use.ru_stime for use in uses)


def measure_here(name: str, folder: Path) -> dict[str, float]:
    """Run one contender over all samples."""
    import torch
    import webdataset  # noqa: F401  # do not measure the import

    torch.set_num_threads(1)
    cpu, wall = cpu_seconds(), time.perf_counter()
    samples = sum(contender(name, folder))
    wall = time.perf_counter() - wall
    return {"samples": samples, "rate": samples / wall, "cpu_ms": 1e3 * (cpu_seconds() - cpu) / samples}


def measure(name: str, folder: Path, samples: int) -> dict[str, float]:
    """Run one contender in a fresh process."""
    command = [sys.executable, __file__, "--one", name, "--folder", str(folder)]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(run.stdout.splitlines()[-1])
    assert result["samples"] == samples, f"{name} read {result['samples']} of {samples}"
    return result


def table(image_format: str, size: int, rounds: list[dict[str, dict[str, float]]]) -> None:
    """Print a line per contender: medians, and ratios to the bare limit and to webdataset in the same round."""
    print(
        f"\n{image_format}, {size / 1e3:.0f} kB a sample\n{'':14}{'samples/s':>12}{'CPU ms':>10}{'CPU, of bare':>14}",
        end="",
    )
    print(f"{'speed, of webdataset':>24}")
    for name in CONTENDERS:
        middle = {what: statistics.median(one[name][what] for one in rounds) for what in ("rate", "cpu_ms")}
        bare = statistics.median(one[name]["cpu_ms"] / one["bare limit"]["cpu_ms"] for one in rounds)
        rival = f"webdataset {name[-1]}"
        against = (
            statistics.median(one[name]["rate"] / one[rival]["rate"] for one in rounds) if rival in CONTENDERS else None
        )
        shown = f"{against:.2f}" if against else ""
        print(f"{name:14}{middle['rate']:12.0f}{middle['cpu_ms']:10.2f}{bare:14.2f}{shown:>24}")


def main() -> None:
    """Make shards once, run all contenders, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=800, help="in each format; a multiple of 4")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--formats", nargs="+", choices=sorted(ENCODINGS), default=sorted(ENCODINGS))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure_here(options.one, options.folder)))
        return
    for image_format in options.formats:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_shards(folder, image_format, options.samples)
            rounds = [
                {name: measure(name, folder, options.samples) for name in CONTENDERS} for _ in range(options.rounds)
            ]
            size = sum(path.stat().st_size for path in folder.iterdir()) // options.samples
            table(image_format, size, rounds)


if __name__ == "__main__":
    main()
