"""Beneath ShardDataset: order, split over ranks and workers, reading local and streamed shards."""
