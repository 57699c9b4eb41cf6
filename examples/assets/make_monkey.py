"""Make monkey.ply, the mesh that ../turntable.py loads: Blender's Suzanne, subdivided once, without a material.

python examples/assets/make_monkey.py [PATH.ply]
"""

from __future__ import annotations

import sys
from pathlib import Path

import bpy

if __name__ == "__main__":
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    bpy.ops.mesh.primitive_monkey_add()
    bpy.context.object.modifiers.new("smooth", "SUBSURF").levels = 1
    wanted = Path(sys.argv[-1] if sys.argv[-1].endswith(".ply") else Path(__file__).with_name("monkey.ply"))
    bpy.ops.wm.ply_export(filepath=str(wanted.absolute()), export_normals=False, export_uv=False, export_colors="NONE")
