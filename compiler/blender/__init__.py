"""One Blender process: which executable it is, how it is driven, what it can do."""
