"""A small network learns the corners of the `cube` job: from shards, from the live tee, or live and then from disk.

    python examples/train_keypoints.py --source shards|live|live-then-shards

A plain cube looks the same in 24 poses, so nobody can see which corner is which. Loss and error therefore use the best
of the 24 relabellings (like the symmetry-aware pose errors of the BOP benchmark, https://bop.felk.cvut.cz).
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import compiler
import loaders

WIDTH, HEIGHT = 128, 96
SHARD = 100
BATCH = 50
CHEAP: dict[str, Any] = {
    "engine": "workbench",
    "render_samples": 0,
    "size": f"{WIDTH}x{HEIGHT}",
    "samples_per_shard": SHARD,
}


def cube_symmetries() -> Tensor:
    """Return the 24 rotations of a cube as permutations of its corners, int64 (24, 8), in Blender's corner order."""
    corners = torch.tensor([[x, y, z] for x in (-1, 1) for y, z in ((-1, -1), (-1, 1), (1, 1), (1, -1))])
    found = []
    for axes in itertools.permutations(range(3)):
        for signs in itertools.product((-1, 1), repeat=3):
            rotation = torch.diag(torch.tensor(signs))[list(axes)]
            if round(float(torch.det(rotation.float()))) == 1:
                found.append([int((corners == corner).all(1).nonzero()) for corner in corners @ rotation.T])
    return torch.tensor(found)


def pixel_error(predicted: Tensor, corners: Tensor, symmetries: Tensor) -> Tensor:
    """Return the mean distance to the corners in pixels, (B,), for the best relabelling; both are (B, 8, 2)."""
    distances = (predicted[:, None] - corners[:, symmetries]).norm(dim=-1)  # (B, 24, 8)
    return distances.mean(-1).min(1).values


class Corners(nn.Module):
    """Four strided convolutions and two linear layers: uint8 (B, 3, 96, 128) to pixels (B, 8, 2)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise((3, 24, 48, 96, 128)):
            layers += [nn.Conv2d(before, after, 3, 2, 1), nn.BatchNorm2d(after), nn.ReLU()]
        layers += [nn.Flatten(), nn.Linear(128 * (WIDTH // 16) * (HEIGHT // 16), 256), nn.ReLU(), nn.Linear(256, 16)]
        self.layers = nn.Sequential(*layers)
        self.register_buffer("center", torch.tensor([WIDTH / 2, HEIGHT / 2]))

    def forward(self, image: Tensor) -> Tensor:
        """Return the corners' pixels."""
        offsets: Tensor = self.layers(image.float() / 255 - 0.5)
        return offsets.view(-1, 8, 2) * 40 + self.center


@contextmanager
def batches(source: str, folder: Path, shards: int, epochs: int) -> Iterator[Iterator[Any]]:
    """Yield an iterator over the batches of all epochs: the only place where the sources differ."""
    if source == "shards":
        compile_cubes(folder, shards, seed=0)
        loader = loaders.Loader(loaders.ShardDataset(folder), BATCH)
        yield (batch for _ in range(epochs) for batch in loader)
    elif source == "live":
        with compiler.launch("cube", **CHEAP) as live:
            dataset = loaders.LiveDataset(live.address).stream_length(epochs * shards * SHARD)
            yield iter(DataLoader(dataset, BATCH, collate_fn=loaders.collate))
    else:
        with compiler.launch("cube", shards=shards, out=folder, live_wait=1, **CHEAP) as live:
            loader = loaders.Loader(loaders.LiveThenShards(folder, live.address), BATCH)
            yield (batch for _ in range(epochs) for batch in loader)


def compile_cubes(folder: Path, shards: int, seed: int) -> None:
    """Compile the shards that are missing."""
    words = [word for name, value in CHEAP.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    command = [sys.executable, "-m", "compiler", "cube", "--shards", str(shards), "--seed", str(seed), *words]
    subprocess.run([*command, "--out", str(folder), "--quiet"], check=True)


def main(source: str, shards: int, epochs: int, folder: Path) -> None:
    """Train; print the falling loss, then the pixel error on a shard of another seed."""
    torch.manual_seed(0)
    symmetries = cube_symmetries()
    model, steps = Corners(), epochs * shards * SHARD // BATCH
    optimizer = torch.optim.Adam(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps + 1)
    began, recent = time.monotonic(), []
    with batches(source, folder / source, shards, epochs) as stream:
        for step, batch in enumerate(stream, 1):
            loss = pixel_error(model(batch["image"]), batch["keypoints"][:, :, :2], symmetries).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            recent.append(loss.item())
            if step % max(1, steps // 12) == 0:
                passed = time.monotonic() - began
                print(
                    f"{passed:5.0f} s  {step * BATCH:6} samples  loss {sum(recent) / len(recent):6.2f} px", flush=True
                )
                recent.clear()
    compile_cubes(folder / "held-out", 1, seed=1)
    held_out = next(iter(loaders.Loader(loaders.ShardDataset(folder / "held-out", shuffle=False), SHARD)))
    corners = held_out["keypoints"][:, :, :2]
    model.eval()
    with torch.no_grad():
        error = pixel_error(model(held_out["image"]), corners, symmetries).mean().item()
    mean = pixel_error(corners.mean(0, keepdim=True).expand_as(corners), corners, symmetries).mean().item()
    print(f"held-out shard: {error:.2f} px; predicting the mean: {mean:.2f} px")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", choices=["shards", "live", "live-then-shards"], default="shards")
    parser.add_argument("--shards", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--folder", type=Path, default=Path("keypoints"))
    main(**vars(parser.parse_args()))
