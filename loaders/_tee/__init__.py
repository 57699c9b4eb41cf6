"""Internals of LiveDataset and LiveThenShards: the client of a live tee, its listeners, the live epoch, recordings."""
