"""Text as a mesh whose glyphs are known: what `meshes.text` builds, and what `parts.glyphs` reads again.

Blender sets the text, and each glyph's faces are marked by a material number of their own, which its text object
assigns to characters.
"""

from __future__ import annotations

import functools
import struct
from pathlib import Path
from typing import Any, Literal

import bpy
import numpy as np
import numpy.typing as npt

from blender_jobs import assets, stage
from blender_jobs.job import JobError

Align = Literal["left", "center", "right"]

PROPERTY = "glyph_boxes"
"""Of the mesh: the glyphs' boxes, (G, 2, 3) flat: lowest and highest corner of each, in the mesh's own frame."""

CORNERS = ("top_left", "top_right", "bottom_right", "bottom_left")
"""Of a glyph's box, as it is read: clockwise."""

_NO_CHARACTER = "\U0010fffe"
"""One that Unicode promises never to assign: what Blender draws for it, it draws for what it has no glyph for."""

_ALIKE = 0.01
"""Of the font's size: by how much the boxes of Blender's signs for missing characters differ."""


def build(
    name: str, text: str, font: assets.AnyPath | None, height_m: float, depth_m: float, spacing: float, align: Align
) -> Any:
    """Return what `meshes.text` does."""
    if not text.strip():
        raise JobError(f"text: {name!r} has nothing to show; use at least one character other than a space")
    if not (height_m > 0 and depth_m >= 0 and spacing > 0):
        raise JobError(f"text: {name!r} needs a height and a spacing above 0, and a depth of 0 or more")
    if align not in ("left", "center", "right"):
        raise JobError(f"text: align is {align!r}, which must be left, center or right")
    loaded = _load(text, font)
    unit = _set("H", loaded, 0.0, 1.0, "left")[0]
    cap = float(np.ptp(unit[:, 1])) if len(unit) else float(np.ptp(_set(text, loaded, 0.0, 1.0, "left")[0][:, 1]))
    scale = height_m / cap
    points, faces, glyphs = _set(text, loaded, depth_m / scale, spacing, align)
    points = points * scale
    low, high = points.min(axis=0), points.max(axis=0)
    points -= [(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]]
    numbers = np.unique(glyphs)
    boxes = [[corner(points[glyphs == number], axis=0) for corner in (np.min, np.max)] for number in numbers.tolist()]
    made = stage.mesh(name, points.tolist(), faces)
    made.data[PROPERTY] = np.array(boxes).ravel().tolist()
    return made


def corners(mesh: Any) -> npt.NDArray[np.float64]:
    """Return the corners of the glyphs' boxes, (G, 4, 3), in the mesh's own frame, on the side that is read.

    Raises:
        ValueError: it was not made by `meshes.text`.
    """
    if PROPERTY not in mesh:
        raise ValueError(f"mesh {mesh.name!r} was not made by meshes.text: it has no glyphs")
    low, high = np.array(mesh[PROPERTY], dtype=np.float64).reshape(-1, 2, 3).swapaxes(0, 1)
    top = high[:, 2]
    ends = [(low[:, 0], high[:, 1]), (high[:, 0], high[:, 1]), (high[:, 0], low[:, 1]), (low[:, 0], low[:, 1])]
    return np.stack([np.stack([x, y, top], axis=1) for x, y in ends], axis=1)


def names(count: int) -> tuple[str, ...]:
    """Return the keypoints' names for so many glyphs."""
    return tuple(f"glyph{number}_{corner}" for number in range(count) for corner in CORNERS)


def _load(text: str, path: assets.AnyPath | None) -> Any:
    """Return Blender's font, which has all that the text shows; None for the one that is built in."""
    wanted = sorted(set(text) - {"\n"})
    if path is None:
        if missing := [character for character in wanted if _is_missing(character)]:
            raise JobError(f"text: Blender's own font lacks {_listed(missing)}; give a font file that has them")
        return None
    file = assets.use(path)
    known = _characters(file)
    if missing := [character for character in wanted if ord(character) not in known]:
        raise JobError(f"{file} lacks {_listed(missing)}; use another font, or leave them out")
    try:
        return bpy.data.fonts.load(str(file), check_existing=True)
    except RuntimeError:
        raise JobError(f"{file}: Blender cannot read it as a font") from None


@functools.lru_cache(maxsize=4096)
def _is_missing(character: str) -> bool:
    """Whether Blender's own fonts draw nothing for a character, or their sign for those that they do not know."""
    if character.isspace():
        return character not in " \u00a0\u3000"
    points, sign = (_set(entry, None, 0.0, 1.0, "left")[0] for entry in (character, _NO_CHARACTER))
    if not len(points) or not len(sign):
        return not len(points)
    return bool((np.abs([points.min(0) - sign.min(0), points.max(0) - sign.max(0)]) < _ALIKE).all())


def _listed(characters: list[str]) -> str:
    return ", ".join(f"{character!r} (U+{ord(character):04X})" for character in characters)


def _set(
    text: str, font: Any, depth: float, spacing: float, align: Align
) -> tuple[npt.NDArray[np.float64], list[list[int]], npt.NDArray[np.int32]]:
    """Let Blender set a text at its size of 1: vertices (N, 3), faces, and the number of each vertex's character.

    Vertices at one place are one, within a glyph: Blender does not join the sides to the front and the back.
    """
    data = bpy.data.curves.new("text", "FONT")
    if font is not None:
        data.font = font
    data.body, data.space_character, data.align_x, data.extrude = text, spacing, align.upper(), depth / 2
    for number, character in enumerate(data.body_format):
        character.material_index = number
    obj = bpy.data.objects.new("text", data)
    mesh = bpy.data.meshes.new_from_object(obj)  # in no scene, so that none has to be evaluated for it
    try:
        return _welded(mesh)
    finally:
        bpy.data.objects.remove(obj)
        bpy.data.curves.remove(data)
        bpy.data.meshes.remove(mesh)


def _welded(mesh: Any) -> tuple[npt.NDArray[np.float64], list[list[int]], npt.NDArray[np.int32]]:
    points = np.empty(3 * len(mesh.vertices), dtype=np.float32)
    mesh.vertices.foreach_get("co", points)
    corners, starts, sizes, numbers = (np.empty(count, dtype=np.int32) for count in _counts(mesh))
    mesh.loops.foreach_get("vertex_index", corners)
    for attribute, values in (("loop_start", starts), ("loop_total", sizes), ("material_index", numbers)):
        mesh.polygons.foreach_get(attribute, values)
    keys = np.column_stack([np.repeat(numbers, sizes).astype(np.float64), points.reshape(-1, 3)[corners]])
    found, first, which = np.unique(keys + 0.0, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)  # as they came, not as numbers sort
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    joined = place[which.reshape(-1)].tolist()
    faces = [
        list(dict.fromkeys(joined[at : at + size])) for at, size in zip(starts.tolist(), sizes.tolist(), strict=True)
    ]
    return found[order, 1:], [face for face in faces if len(face) > 2], found[order, 0].astype(np.int32)


def _counts(mesh: Any) -> tuple[int, int, int, int]:
    return len(mesh.loops), len(mesh.polygons), len(mesh.polygons), len(mesh.polygons)


def _characters(file: Path) -> set[int]:
    """Return the code points that a font file has glyphs for: its cmap table, as OpenType describes it.

    Raises:
        JobError: it is not a TrueType or OpenType font, or damaged.
    """
    content = file.read_bytes()
    try:
        start = struct.unpack(">I", content[12:16])[0] if content[:4] == b"ttcf" else 0  # of a collection, the first
        if content[start : start + 4] not in (b"\0\1\0\0", b"OTTO", b"true"):
            raise JobError(f"{file} is not a TrueType or OpenType font; use .ttf, .otf or .ttc")
        (tables,) = struct.unpack_from(">H", content, start + 4)
        entries = (struct.unpack_from(">4s4xII", content, start + 12 + 16 * at) for at in range(tables))
        place = {tag: offset for tag, offset, _ in entries}[b"cmap"]
        (count,) = struct.unpack_from(">H", content, place + 2)
        records = [struct.unpack_from(">HHI", content, place + 4 + 8 * at) for at in range(count)]
        unicode = [place + offset for platform, encoding, offset in records if (platform, encoding) in _UNICODE]
        return {code for at in dict.fromkeys(unicode) for code in _of_subtable(content, at)}
    except (struct.error, KeyError):
        raise JobError(f"{file} is damaged: its table of characters cannot be read") from None


_UNICODE = {(3, 1), (3, 10), *((0, encoding) for encoding in (0, 1, 2, 3, 4))}
"""Platform and encoding of tables by Unicode."""


def _of_subtable(content: bytes, at: int) -> set[int]:
    """Return the code points of one table of formats 4 or 12, which is what fonts have for Unicode."""
    (kind,) = struct.unpack_from(">H", content, at)
    if kind == 12:
        (groups,) = struct.unpack_from(">I", content, at + 12)
        spans = (struct.unpack_from(">III", content, at + 16 + 12 * group) for group in range(groups))
        return {
            code for low, high, glyph in spans for code in range(low, min(high, 0x10FFFF) + 1) if glyph + code - low
        }
    if kind != 4:
        return set()
    (twice,) = struct.unpack_from(">H", content, at + 6)
    count = twice // 2
    ends, starts = (struct.unpack_from(f">{count}H", content, at + skip) for skip in (14, 16 + twice))
    deltas, offsets = (struct.unpack_from(f">{count}H", content, at + 16 + times * twice) for times in (2, 3))
    found = set()
    for segment in range(count):
        for code in range(starts[segment], min(ends[segment], 0xFFFE) + 1):
            glyph = code
            if offsets[segment]:
                where = at + 16 + 3 * twice + 2 * segment + offsets[segment] + 2 * (code - starts[segment])
                (glyph,) = struct.unpack_from(">H", content, where)
                if not glyph:
                    continue
            if (glyph + deltas[segment]) & 0xFFFF:
                found.add(code)
    return found
