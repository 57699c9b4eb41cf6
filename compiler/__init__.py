"""The host: plans, drives Blender instances, writes shards and the manifest."""
