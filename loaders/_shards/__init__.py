"""Internals of ShardDataset: the order of samples, plans for ranks and workers, reading local and streamed shards."""
