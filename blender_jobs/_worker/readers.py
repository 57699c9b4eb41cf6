"""What each kind of data-block reads from files: which of them are there, and which are lost.

`bpy.utils.blend_paths` names paths, not files: a template for tiles, the first of a sequence, a folder of caches, what
is written and never read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bpy

from blender_jobs import _simulations
from blender_jobs._render import shaders

Frames = Sequence[int]

_USD = frozenset([".usd", ".usda", ".usdc"])
_USD_REFERENCE = re.compile(r"@+([^@\n]+?)@+")
_IMPORTED = "GeometryNodeImport"
"""How the types of the nodes begin that read files while the geometry is evaluated."""


@dataclass(frozen=True)
class Reads:
    """What one data-block, or a modifier of it, reads."""

    owner: bpy.types.ID
    what: str
    """In words: ``image 'wood'``."""
    present: Sequence[Path] = ()
    lost: Sequence[Path] = ()
    """What a render of the frames would read, and what is not there."""
    is_used: bool = True
    """Whether renders that show the owner read it: not what a modifier reads that renders leave out."""
    note: str = ""
    """What the user should know."""


def files_read(frames: Frames) -> list[Reads]:
    """Return what everything that is loaded reads.

    Args:
        frames: those that are rendered.
    """
    found = [entry for kind in _KINDS for entry in kind(frames)]
    return [*found, *_anything_else(found)]


def _place(block: Any, path: str) -> Path:
    """Return a data-block's path, absolute: relative ones start at the ``.blend`` that the data-block is from."""
    return _absolute(path, block.library)


def _absolute(path: str, library: Any = None) -> Path:
    return Path(os.path.normpath(bpy.path.abspath(path, library=library)))


def _one(owner: Any, what: str, path: str, **more: Any) -> Reads:
    """Return the reading of one file; of none where there is no path."""
    if not path:
        return Reads(owner, what, **more)
    file = _place(owner, path)
    return Reads(owner, what, [file], **more) if file.is_file() else Reads(owner, what, (), [file], **more)


def _said(kind: str, block: Any) -> str:
    return f"{kind} {block.name!r}"


def _libraries(frames: Frames) -> Iterator[Reads]:
    for library in bpy.data.libraries:
        if not library.packed_file:
            path = _absolute(library.filepath)
            there = path.is_file()
            yield Reads(library, _said("library", library), [path] if there else (), () if there else [path])
    if not bpy.data.libraries:
        return
    kinds = (getattr(bpy.data, entry.identifier) for entry in bpy.data.bl_rna.properties if entry.type == "COLLECTION")
    for block in (block for kind in kinds for block in kind):
        if getattr(block, "is_missing", False) and block.library is not None:
            path = _absolute(block.library.filepath)
            if path.is_file():  # otherwise the library is what is lost
                yield Reads(block, _said(block.bl_rna.name.lower(), block), (), [path / block.name])


def _images(frames: Frames) -> Iterator[Reads]:
    users: dict[Any, list[Any]] | None = None
    for image in bpy.data.images:
        what = _said("image", image)
        if image.source in ("GENERATED", "VIEWER") or image.packed_file or len(image.packed_files):
            continue
        path = image.filepath_raw
        if not path:
            yield Reads(image, what)
        elif image.source == "TILED":
            yield _parted(image, what, [_place(image, _tile(path, tile.number)) for tile in image.tiles])
        elif image.source == "SEQUENCE":
            if users is None:
                users = {}
                for used, user in _image_users():
                    users.setdefault(used, []).append(user)
            first = _place(image, path)
            numbers = {image_file_number(user, frame) for user in users.get(image, ()) for frame in frames}
            yield _sequence(image, what, first, numbers)
        else:
            yield _one(image, what, path)


def _tile(path: str, number: int) -> str:
    u, v = (number - 1001) % 10 + 1, (number - 1001) // 10 + 1
    return path.replace("<UDIM>", str(number)).replace("<UVTILE>", f"u{u}_v{v}")


def _parted(owner: Any, what: str, files: Sequence[Path], **more: Any) -> Reads:
    """Return the reading of files, each there or lost."""
    there = [file for file in files if file.is_file()]
    return Reads(owner, what, there, [file for file in files if file not in there], **more)


def _sequence(owner: Any, what: str, first: Path, numbers: Collection[int | None], **more: Any) -> Reads:
    """Return the reading of a sequence: all that is there of it, for a job may choose other frames."""
    there = siblings(first)
    wanted = sorted({numbered(first, number) for number in numbers if number is not None})
    return Reads(owner, what, there, [file for file in wanted if not file.is_file()], **more)


def _volumes(frames: Frames) -> Iterator[Reads]:
    for volume in bpy.data.volumes:
        what = _said("volume", volume)
        if volume.packed_file or not volume.filepath:
            continue
        if volume.is_sequence:
            numbers = {volume_file_number(volume, frame) for frame in frames}
            yield _sequence(volume, what, _place(volume, volume.filepath), numbers)
        else:
            yield _one(volume, what, volume.filepath)


def _cache_files(frames: Frames) -> Iterator[Reads]:
    for cache in bpy.data.cache_files:
        what = _said("cache file", cache)
        for path in filter(None, [cache.filepath, *(layer.filepath for layer in getattr(cache, "layers", ()))]):
            if cache.is_sequence:
                animated = cache.override_frame and cache.animation_data is not None
                numbers = {round(cache.frame)} if cache.override_frame else set(frames)
                entry = _sequence(cache, what, _place(cache, path), set() if animated else numbers)
            else:
                entry = _one(cache, what, path)
            yield entry
            yield from _usd_layers(cache, what, entry.present)


def _usd_layers(owner: Any, what: str, files: Sequence[Path]) -> Iterator[Reads]:
    """Follow what USD files written as text refer to: layers, payloads, textures."""
    done: set[Path] = set(files)
    ahead = [file for file in files if file.suffix.lower() in _USD]
    while ahead:
        file = ahead.pop()
        content = file.read_bytes()
        if content.startswith(b"PXR-USDC"):
            note = (
                f"{file.name} is binary USD: the files that it refers to are not known; list them in the job's `assets`"
            )
            yield Reads(owner, what, note=note)
            continue
        named = {file.parent / path for path in _USD_REFERENCE.findall(content.decode(errors="replace"))}
        there = sorted(path for path in named - done if path.is_file())
        done.update(there)
        ahead += [path for path in there if path.suffix.lower() in _USD]
        yield Reads(owner, what, there)


def _fonts(frames: Frames) -> Iterator[Reads]:
    for font in bpy.data.fonts:
        if font.filepath != "<builtin>" and not font.packed_file:
            yield _one(font, _said("font", font), font.filepath)


def _clips(frames: Frames) -> Iterator[Reads]:
    for clip in bpy.data.movieclips:
        what = _said("movie clip", clip)
        if clip.source == "SEQUENCE":
            yield _sequence(clip, what, _place(clip, clip.filepath), ())
        else:
            yield _one(clip, what, clip.filepath)


def _node_files(frames: Frames) -> Iterator[Reads]:
    owners = [*bpy.data.materials, *bpy.data.worlds, *bpy.data.lights, *bpy.data.node_groups]
    for owner in owners:
        tree = owner if isinstance(owner, bpy.types.NodeTree) else owner.node_tree
        nodes = [node for node in tree.nodes if _names_a_file(node)] if tree is not None else []
        reached = shaders.reached_nodes(tree) if nodes else []
        for node in nodes:
            what, is_used = f"node {node.name!r} of {owner.name!r}", node in reached and not node.mute
            if node.type == "TEX_IES":
                yield _one(owner, what, node.filepath, is_used=is_used)
                continue
            for socket in node.inputs:
                if socket.type == "STRING" and isinstance(socket.default_value, str):
                    if socket.is_linked:
                        note = f"{what} reads a file that other nodes name: list it in the job's `assets`"
                        yield Reads(owner, what, note=note)
                    else:
                        yield _one(owner, what, socket.default_value, is_used=is_used)


def _names_a_file(node: Any) -> bool:
    is_ies = node.type == "TEX_IES" and node.mode == "EXTERNAL"
    return is_ies or str(node.bl_idname).startswith(_IMPORTED)


def _modifiers(frames: Frames) -> Iterator[Reads]:
    for obj in bpy.data.objects:
        for modifier in obj.modifiers:
            read = _OF_MODIFIERS.get(modifier.type)
            if read is not None:
                what = f"modifier {modifier.name!r} of {obj.name!r}"
                yield from read(obj, modifier, what, frames)


def _mesh_cache(obj: Any, modifier: Any, what: str, frames: Frames) -> Iterator[Reads]:
    yield _one(obj, what, modifier.filepath, is_used=modifier.show_render)


def _multires(obj: Any, modifier: Any, what: str, frames: Frames) -> Iterator[Reads]:
    if modifier.is_external:
        yield _one(obj, what, modifier.filepath, is_used=modifier.show_render)


def _ocean(obj: Any, modifier: Any, what: str, frames: Frames) -> Iterator[Reads]:
    """A baked ocean is read from a folder, ``disp_0001.exr`` and so on; it does not move before and after."""
    if not modifier.is_cached:
        return
    folder = _place(obj, modifier.filepath)
    low, high = modifier.frame_start, modifier.frame_end
    wanted = sorted({folder / f"disp_{min(max(frame, low), high):04d}.exr" for frame in frames})
    there = sorted(folder.glob("*_[0-9]*.exr"))
    yield Reads(obj, what, there, [file for file in wanted if file not in there], is_used=modifier.show_render)


def _bakes(obj: Any, modifier: Any, what: str, frames: Frames) -> Iterator[Reads]:
    """Bakes of geometry nodes take effect where their folders are; without, Blender simulates."""
    folders = [_place(obj, modifier.bake_directory)] if getattr(modifier, "bake_directory", "") else []
    folders += [_place(obj, bake.directory) for bake in getattr(modifier, "bakes", ()) if bake.use_custom_path]
    yield Reads(obj, what, [file for folder in folders for file in _below(folder)])


def _fluids(frames: Frames) -> Iterator[Reads]:
    """What was baked; what is not is simulated again in each episode, in a folder of ours."""
    for obj, domain in _simulations.fluid_domains():
        if domain.cache_type != "REPLAY":
            what, folder = f"fluid of {obj.name!r}", _place(obj, domain.cache_directory)
            there = _below(folder)
            baked = domain.has_cache_baked_data or domain.has_cache_baked_any
            yield Reads(obj, what, there, [folder] if baked and not there else ())


def _point_caches(frames: Frames) -> Iterator[Reads]:
    """Baked caches in files: ``<name>_<frame>_<index>.bphys`` next to the ``.blend``, or in a folder that they name."""
    for owner, cache in _simulations.point_caches():
        for entry in cache.point_caches:
            if not entry.is_baked or not (entry.use_disk_cache or entry.use_external):
                continue
            name = entry.name or owner.name.encode().hex().upper()
            if entry.use_external:
                folder = _place(owner, entry.filepath)
            else:
                blend = _absolute(owner.library.filepath if owner.library else bpy.data.filepath)
                folder = blend.parent / f"blendcache_{blend.stem}"
            pattern = re.compile(re.escape(name) + r"_\d+(_\d+)?\.bphys")
            there = [file for file in _below(folder) if pattern.fullmatch(file.name)]
            yield Reads(owner, f"cache of {owner.name!r}", there, () if there else [folder / f"{name}_000001_00.bphys"])


def _below(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else []


def _unheard(frames: Frames) -> Iterator[Reads]:
    """What no render reads: reported where it is lost, and not part of a plan."""
    for sound in bpy.data.sounds:
        if not sound.packed_file:
            entry = _one(sound, _said("sound", sound), sound.filepath)
            yield Reads(sound, entry.what, (), entry.lost)


def _anything_else(found: Collection[Reads]) -> Iterator[Reads]:
    """Yield files that Blender knows of, and that are of no kind above."""
    unknown = {_absolute(path) for path in bpy.utils.blend_paths(absolute=True, packed=False, local=False) if path}
    unknown -= {file for entry in found for file in (*entry.present, *entry.lost)}
    if unknown:
        unknown -= {_place(block, block.filepath) for kind in (bpy.data.sounds, bpy.data.texts) for block in kind}
        unknown -= set(_of_sequencers())
    if others := sorted(path for path in unknown if path.is_file()):
        yield Reads(bpy.context.scene, "the scene", others)


def _of_sequencers() -> Iterator[Path]:
    for scene in bpy.data.scenes:
        editor = scene.sequence_editor
        strips: Any = getattr(editor, "strips_all", None) or getattr(editor, "sequences_all", ())
        for strip in strips:
            if path := getattr(strip, "filepath", ""):
                yield _place(scene, path)
            for element in getattr(strip, "elements", ()):
                yield _place(scene, os.path.join(getattr(strip, "directory", ""), element.filename))  # noqa: PTH118


_OF_MODIFIERS: dict[str, Callable[[Any, Any, str, Frames], Iterator[Reads]]] = {
    "MESH_CACHE": _mesh_cache,
    "MULTIRES": _multires,
    "NODES": _bakes,
    "OCEAN": _ocean,
}
_KINDS: tuple[Callable[[Frames], Iterator[Reads]], ...] = (
    _libraries,
    _images,
    _volumes,
    _cache_files,
    _fonts,
    _clips,
    _node_files,
    _modifiers,
    _fluids,
    _point_caches,
    _unheard,
)


def _image_users() -> Iterator[tuple[Any, Any]]:
    """Yield each image with the settings by which something of what is loaded chooses its frame."""
    trees = [block.node_tree for kind in (bpy.data.materials, bpy.data.worlds, bpy.data.lights) for block in kind]
    for tree in [*trees, *bpy.data.node_groups]:
        for node in tree.nodes if tree else ():
            if getattr(node, "image", None) is not None and hasattr(node, "image_user"):
                yield node.image, node.image_user
    for texture in bpy.data.textures:
        if getattr(texture, "image", None) is not None:
            yield texture.image, texture.image_user


_NUMBERED = re.compile(r"(?P<head>.*?)(?P<digits>\d+)(?P<tail>\D*)", re.DOTALL)


def siblings(path: Path) -> list[Path]:
    """Return the files that differ from `path` in the last number of their names alone, sorted; itself included."""
    found = _NUMBERED.fullmatch(path.stem)
    if found is None or not path.parent.is_dir():
        return [path] if path.is_file() else []
    pattern = re.compile(re.escape(found["head"]) + r"-?\d+" + re.escape(found["tail"] + path.suffix))
    return sorted(file for file in path.parent.iterdir() if pattern.fullmatch(file.name) and file.is_file())


def numbered(path: Path, number: int) -> Path:
    """Return the file of a number: the last one in the name is replaced, in as many digits."""
    found = _NUMBERED.fullmatch(path.stem)
    if found is None:
        return path
    sign, width = "-" * (number < 0), len(found["digits"])
    return path.with_name(f"{found['head']}{sign}{abs(number):0{width}d}{found['tail']}{path.suffix}")


def image_file_number(user: Any, frame: int) -> int | None:
    """Return the number of the file that an image user (`bpy.types.ImageUser`) reads in a frame; None: none."""
    length = user.frame_duration
    if not length:
        return None
    at = frame - user.frame_start + 1
    at = (at - 1) % length + 1 if user.use_cyclic else min(max(at, 0), length)
    return max(int(at + user.frame_offset), 0)


def volume_file_number(volume: Any, frame: int) -> int | None:
    """Return the number of the file that a volume (`bpy.types.Volume`) reads in a frame; None: none."""
    length, at = volume.frame_duration, frame - volume.frame_start + 1
    if not length or (volume.sequence_mode == "CLIP" and not 1 <= at <= length):
        return None
    if volume.sequence_mode == "EXTEND":
        at = min(max(at, 1), length)
    elif volume.sequence_mode == "REPEAT":
        at = (at - 1) % length + 1
    elif volume.sequence_mode == "PING_PONG":
        turn = max(2 * length - 2, 1)
        at = at % turn or turn
        at = 2 * length - at if at > length else at
    return int(at + volume.frame_offset)


def shortened(paths: Iterable[Path]) -> list[str]:
    """Return the paths in words, those of a sequence as its first and last."""
    runs: dict[tuple[Path, str, str], list[Path]] = {}
    for path in paths:
        found = _NUMBERED.fullmatch(path.stem)
        key = (path.parent, found["head"], found["tail"] + path.suffix) if found else (path, "", "")
        runs.setdefault(key, []).append(path)
    return [str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1].name} ({len(run)} files)" for run in runs.values()]
