"""Which process of a distributed run this is."""

from __future__ import annotations

import os


def resolve_rank(rank: int | None = None, world_size: int | None = None) -> tuple[int, int]:
    """Return (rank, number of ranks): as given, else torch.distributed's, else the environment's, else (0, 1).

    Raises:
        ValueError: one of the two is given without the other, or RANK or WORLD_SIZE is no number.
    """
    if (rank is None) != (world_size is None):
        raise ValueError("give both rank and world_size, or neither")
    if rank is not None and world_size is not None:
        return rank, world_size
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    names = ("RANK", "WORLD_SIZE")
    if not all(name in os.environ for name in names):
        return 0, 1
    try:
        return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    except ValueError:
        raise ValueError(f"RANK={os.environ['RANK']} WORLD_SIZE={os.environ['WORLD_SIZE']} are not numbers") from None
