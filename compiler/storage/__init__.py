"""Where samples go: the directory, shards, part files and their journal."""
