"""Tests of what runs inside Blender."""
