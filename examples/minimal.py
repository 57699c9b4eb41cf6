"""Stream random cubes from two Blenders into a DataLoader with four workers; nothing touches the disk.

python examples/minimal.py
"""

from __future__ import annotations

import argparse

from torch.utils.data import DataLoader

import compiler
import loaders


def main(batches: int, size: str) -> None:
    """Print the shapes of some batches of four."""
    with compiler.launch("cube", instances=2, engine="workbench", size=size) as live:
        dataset = loaders.LiveDataset(live.address).stream_length(4 * batches)
        for batch in DataLoader(dataset, batch_size=4, num_workers=4, collate_fn=loaders.collate):
            print(tuple(batch["image"].shape), tuple(batch["keypoints"].shape), batch["key"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, help="a multiple of the four workers", default=8)
    parser.add_argument("--size", default="640x480")
    main(**vars(parser.parse_args()))
