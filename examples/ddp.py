"""Two processes train on one dataset with DistributedDataParallel (gloo): each sample once an epoch, equal steps.

compile-dataset cube --shards 4 --samples-per-shard 50 --engine workbench --size 128x96
python examples/ddp.py cube
"""

from __future__ import annotations

import argparse
import os

import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import loaders


def train(rank: int, world: int, port: int, source: str, epochs: int) -> None:
    """Run one rank. The model is linear and learns the mean keypoint: this example is about loading."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=world)
    torch.set_num_threads(1)
    model = DistributedDataParallel(nn.Sequential(nn.AdaptiveAvgPool2d(8), nn.Flatten(), nn.Linear(192, 2)))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    # remainder="pad": all ranks get the same number of batches; otherwise one would wait forever for the other
    loader = loaders.Loader(loaders.ShardDataset(source, remainder="pad"), batch_size=10, num_workers=1)
    for epoch in range(epochs):
        loader.set_epoch(epoch)
        keys: list[str] = []
        for batch in loader:
            target = batch["keypoints"][:, :, :2].mean(1) / 100
            loss = (model(batch["image"].float() / 255) - target).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            keys += batch["key"]
        everyone: list[list[str]] = [[] for _ in range(world)]
        dist.all_gather_object(everyone, keys)
        if rank == 0:
            seen = sum(map(len, everyone))
            unique = len(set().union(*everyone))
            print(f"epoch {epoch}: loss {loss.item():.3f}, {seen} samples on {world} ranks, {unique} different ones")
    del model  # it uses the process group, which goes once both ranks are done with it
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--port", type=int, default=29511)
    given = parser.parse_args()
    torch.multiprocessing.spawn(train, (2, given.port, given.source, given.epochs), nprocs=2)
