"""Datasets written for tools that do not read shards: one module a format, one writer for all."""
