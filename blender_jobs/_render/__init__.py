"""Pixels out of Blender: the image, with every setting pinned, and the passes."""
