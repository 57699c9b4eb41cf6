"""Stream a job's samples from four Blenders and save each batch of four as a picture with its keypoints drawn.

python examples/generate.py falling_cubes
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch.utils.data import DataLoader

import compiler
import loaders


def picture(image: torch.Tensor, annotations: dict[str, Any]) -> Image.Image:
    """Return one image, uint8 (H, W, 3), with a dot on each visible keypoint."""
    drawn = Image.fromarray(image.numpy())
    draw = ImageDraw.Draw(drawn)
    for number, entry in enumerate(annotations["objects"]):
        color = f"hsl({number * 137 % 360}, 90%, 60%)"
        flat = entry["keypoints"]
        for x, y, visibility in zip(flat[0::3], flat[1::3], flat[2::3], strict=True):
            if visibility == 2:
                draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=color, outline="white")
    return drawn


def main(job: str, batches: int, engine: str, size: str, out: Path) -> None:
    """Save the batches as output_00.png, output_01.png, ... with two samples a row."""
    with compiler.launch(job, instances=4, engine=engine, size=size, samples_per_shard=20) as live:
        dataset = loaders.LiveDataset(live.address, image_layout="HWC").stream_length(4 * batches)
        loader = DataLoader(dataset, batch_size=4, num_workers=4, collate_fn=loaders.collate)
        for number, batch in enumerate(loader):
            tiles = [picture(*pair) for pair in zip(batch["image"], batch["annotations"], strict=True)]
            width, height = tiles[0].size
            sheet = Image.new("RGB", (2 * width, 2 * height))
            for at, tile in enumerate(tiles):
                sheet.paste(tile, (at % 2 * width, at // 2 * height))
            sheet.save(out / f"output_{number:02d}.png")
            print(out / f"output_{number:02d}.png", *batch["key"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", nargs="?", default="falling_cubes")
    parser.add_argument("--batches", type=int, help="a multiple of the four workers", default=4)
    parser.add_argument("--engine", default="workbench")
    parser.add_argument("--size", default="640x480")
    parser.add_argument("--out", type=Path, default=Path())
    main(**vars(parser.parse_args()))
