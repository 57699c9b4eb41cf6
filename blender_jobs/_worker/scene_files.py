"""The files that a scene reads beside its ``.blend``, by what reads them: which are there, and which are lost.

`bpy.utils.blend_paths` names paths, not files: a template for tiles, the first of a sequence, a folder of caches, what
is written and never read, what no render touches.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bpy

from blender_jobs import assets, caches
from blender_jobs._worker import needs, sequences
from blender_jobs.job import JobError

Frames = Sequence[int]

_OF_BLENDER = "datafiles/assets"
"""In the path of what comes with Blender: brushes of whatever saved the file, for one."""
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


@dataclass(frozen=True)
class SceneFiles:
    """What all data-blocks of the loaded scenes read."""

    reads: Sequence[Reads]

    def present(self, scene: bpy.types.Scene) -> list[Path]:
        """Return the files that are there, sorted, needed or not: a job may use what the scene does not yet show.

        Without damaged images that a render of the scene, as it is now, does not need.
        """
        files = {file for entry in self.reads for file in entry.present}
        files -= set(self._damaged(scene))
        return sorted(file for file in files if _OF_BLENDER not in file.as_posix())

    def lost(self, scene: bpy.types.Scene) -> list[Path]:
        """Return the files that a render of the scene, as it is now, needs and that are not there; sorted."""
        return sorted({file for entry in self._needed(scene, self._lacking) for file in entry.lost})

    def notes(self, scene: bpy.types.Scene) -> list[str]:
        """Return what the user should know: what is lost and not needed, and what cannot be known."""
        needed = self._needed(scene, self._lacking)
        others = sorted({file for entry in self.reads if entry not in needed for file in entry.lost})
        notes = list(dict.fromkeys(entry.note for entry in self.reads if entry.note))
        if lost := sorted({file for entry in needed for file in entry.lost}):
            notes.append(f"rendered without what is missing: {_in_words(lost)}")
        if others:
            notes.append(f"not there, and not needed by what is rendered: {_in_words(others)}")
        if damaged := self._damaged(scene):
            notes.append(f"damaged, and not needed by what is rendered: {_in_words(damaged)}")
        return notes

    def check(self, scene: bpy.types.Scene, blend: str) -> None:
        """Make sure that nothing is lost which a render of the scene, as it is now, needs.

        Raises:
            JobError: something is; all of it, in one line.
        """
        files = self.lost(scene)
        if not files:
            return
        where, it = blend or "the scene", "it" if len(files) == 1 else "them"
        what = f"{files[0]}, which is missing" if len(files) == 1 else f"{len(files)} missing files: {_in_words(files)}"
        raise JobError(
            f"{where} uses {what}; put {it} there, or open the file in Blender and use"
            " File > External Data > Find Missing Files; or render without: --missing-files allow"
        )

    @property
    def _lacking(self) -> list[Reads]:
        return [entry for entry in self.reads if entry.lost]

    def _damaged(self, scene: bpy.types.Scene) -> list[Path]:
        """Return the damaged images that a render of the scene does not need, sorted."""
        damaged = {file for entry in self.reads for file in entry.present if assets.damage(file)}
        readers = [entry for entry in self.reads if not damaged.isdisjoint(entry.present)]
        needed = {file for entry in self._needed(scene, readers) for file in entry.present}
        return sorted(damaged - needed)

    def _needed(self, scene: bpy.types.Scene, readers: Sequence[Reads]) -> list[Reads]:
        """Return those of the readers that a render of the scene, as it is now, depends on."""
        if not readers:
            return []
        wanted = needs.needed(scene)
        wanted |= {block.library for block in wanted if block.library is not None}
        return [entry for entry in readers if entry.is_used and entry.owner in wanted]


def survey(frames: Frames) -> SceneFiles:
    """Return what all that is loaded reads.

    Args:
        frames: those that are rendered.
    """
    found = [entry for kind in _KINDS for entry in kind(frames)]
    return SceneFiles([*found, *_anything_else(found)])


def _in_words(files: Sequence[Path]) -> str:
    return ", ".join(sequences.shortened(files))


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
                for used, user in needs.image_users():
                    users.setdefault(used, []).append(user)
            first = _place(image, path)
            numbers = {sequences.of_image(user, frame) for user in users.get(image, ()) for frame in frames}
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
    there = sequences.siblings(first)
    wanted = sorted({sequences.numbered(first, number) for number in numbers if number is not None})
    return Reads(owner, what, there, [file for file in wanted if not file.is_file()], **more)


def _volumes(frames: Frames) -> Iterator[Reads]:
    for volume in bpy.data.volumes:
        what = _said("volume", volume)
        if volume.packed_file or not volume.filepath:
            continue
        if volume.is_sequence:
            numbers = {sequences.of_volume(volume, frame) for frame in frames}
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
                f"{file.name} is binary USD: the files that it refers to are not known; name them in the job's `assets`"
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
        reached = needs.reached_nodes(tree) if nodes else []
        for node in nodes:
            what, is_used = f"node {node.name!r} of {owner.name!r}", node in reached and not node.mute
            if node.type == "TEX_IES":
                yield _one(owner, what, node.filepath, is_used=is_used)
                continue
            for socket in node.inputs:
                if socket.type == "STRING" and isinstance(socket.default_value, str):
                    if socket.is_linked:
                        note = f"{what} reads a file that other nodes name: name it in the job's `assets`"
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
    """A baked ocean is read from a folder, ``disp_0001.exr`` and so on; it stands still before and after."""
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
    """What was baked; what is not is simulated anew in each episode, in a folder of ours."""
    for obj, domain in caches.fluid_domains():
        if domain.cache_type != "REPLAY":
            what, folder = f"fluid of {obj.name!r}", _place(obj, domain.cache_directory)
            there = _below(folder)
            baked = domain.has_cache_baked_data or domain.has_cache_baked_any
            yield Reads(obj, what, there, [folder] if baked and not there else ())


def _point_caches(frames: Frames) -> Iterator[Reads]:
    """Baked caches in files: ``<name>_<frame>_<index>.bphys`` beside the ``.blend``, or in a folder that they name."""
    for owner, cache in caches.point_caches():
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
    """What no render reads: it is told of where it is lost, and is not part of a plan."""
    for sound in bpy.data.sounds:
        if not sound.packed_file:
            entry = _one(sound, _said("sound", sound), sound.filepath)
            yield Reads(sound, entry.what, (), entry.lost)


def _anything_else(found: Collection[Reads]) -> Iterator[Reads]:
    """Yield files that Blender knows of, and that are of no kind above."""
    paths = {_absolute(path) for path in bpy.utils.blend_paths(absolute=True, packed=False, local=False) if path}
    paths -= {file for entry in found for file in (*entry.present, *entry.lost)}
    if paths:
        paths -= {_place(block, block.filepath) for kind in (bpy.data.sounds, bpy.data.texts) for block in kind}
        paths -= set(_of_sequencers())
    if others := sorted(path for path in paths if path.is_file()):
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
