"""Beneath LiveDataset and LiveThenShards: the client of a live tee, its listeners, and recordings."""
