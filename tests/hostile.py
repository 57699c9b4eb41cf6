"""A corpus of datasets that strangers might publish: each is a small one of ours with one thing made hostile."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import marshal
import os
import re
import struct
import sys
import tarfile
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from loaders.format import canonical_json
from loaders.manifest import FILE_NAME
from loaders.tarstream import END, sample_record
from tests.planned_dataset import Recipe, make

Change = Callable[[Path], object]

ESCAPE = "\x1b]0;owned\x07\x1b[2J\n1 shard, 1 sample, digest 00: ok\u202e"
"""Sets a terminal's title, clears it, fakes a verdict, and turns the rest around."""

READERS = ("verify", "show", "show-passes", "diff", "export", "shards", "skipping", "indexed", "rebuild")


def corpus() -> Iterator[tuple[str, Change]]:
    """Yield what is made hostile, by name."""
    yield from _manifests()
    yield from _shards()
    yield from _members()
    yield from _surroundings()


def publish(folder: Path, change: Change, marks: Path) -> None:
    """Write a dataset into `folder` and change it; whatever of it is run leaves a file in `marks`."""
    make(folder, Recipe(shards=2, samples_per_shard=3, passes=("depth",)))
    trap = f"open({str(marks / 'ran')!r}, 'w').close()\n"
    source = folder / "source"
    (source / "__pycache__").mkdir(parents=True)
    for place in (folder, source):
        for name in ("json", "multiprocessing", "numpy", "click", "sitecustomize", "torch"):
            (place / f"{name}.py").write_text(trap)
    (source / "job.py").write_text(trap)
    pyc = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + bytes(8) + marshal.dumps(compile(trap, "x", "exec"))
    (source / "__pycache__" / "job.cpython-311.pyc").write_bytes(pyc)
    change(folder)


def reseal(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest's JSON and make all its digests fit, as anybody can."""
    value = json.loads((folder / FILE_NAME).read_bytes())
    change(value)
    shards = value["shards"] if isinstance(value["shards"], list) else []
    whole = [shard for shard in shards if isinstance(shard, dict)]
    value["plan_digest"] = hashlib.sha256(canonical_json(value["plan"])).hexdigest()
    value["digest"] = hashlib.sha256("".join(f"{shard.get('sha256')}\n" for shard in whole).encode()).hexdigest()
    value["manifest_sha256"] = ""
    content = json.dumps(value, sort_keys=True, ensure_ascii=False, indent=1).encode() + b"\n"
    seal = hashlib.sha256(content).hexdigest().encode()
    (folder / FILE_NAME).write_bytes(re.sub(rb'(?<=\n "manifest_sha256": ")', seal, content, count=1))


def _manifests() -> Iterator[tuple[str, Change]]:
    strange: list[Any] = [None, 3, "x", [], {}, [[]], {"a": ESCAPE}, ESCAPE, 1e300, -1]
    for field in ("name", "plan", "schema", "provenance", "shards", "skipped"):
        for at, value in enumerate(strange):
            yield f"manifest: {field} is strange ({at})", _set((field,), value)
    paths = [("plan", "job"), ("plan", "job", "frames"), ("plan", "job", "cameras"), ("plan", "job", "passes")]
    paths += [("plan", "render"), ("plan", "render", "width"), ("plan", "samples_per_shard"), ("plan", "seed")]
    paths += [("schema", "members"), ("schema", "annotations"), ("schema", "categories"), ("schema", "members", "png")]
    paths += [("shards", "0", "name"), ("shards", "0", "samples"), ("shards", "0", "bytes"), ("shards", "0", "number")]
    for path in paths:
        for at, value in enumerate(strange):
            yield f"manifest: {'.'.join(path)} is strange ({at})", _set(path, value)
    for name in ("../../precious/x.tar", "/etc/x.tar", "x\0.tar", f"{ESCAPE}.tar", "source/x.tar", ".tar"):
        yield f"manifest: a shard is called {name!r}", _set(("shards", "0", "name"), name)
    for depth in (900, 100_000):
        yield f"manifest: {depth} brackets", lambda folder, n=depth: (folder / FILE_NAME).write_bytes(b"[" * n)  # type: ignore[misc]
    yield "manifest: 30 million values", lambda folder: (folder / FILE_NAME).write_bytes(b"[" + b"[]," * 30_000_000)
    yield "manifest: sparse, 200 GB", lambda folder: os.truncate(folder / FILE_NAME, 200 << 30)
    yield "manifest: a pipe", lambda folder: _pipe(folder / FILE_NAME)
    yield "manifest: endless", lambda folder: _link(folder / FILE_NAME, Path("/dev/zero"))
    yield "manifest: a link to itself", lambda folder: _link(folder / FILE_NAME, folder / FILE_NAME)
    yield "manifest: a path to run", _set(("provenance", "job"), {"path": "/etc/passwd", "sources": {"passwd": "0"}})


def _set(path: tuple[str, ...], value: Any) -> Change:
    def change(manifest: dict[str, Any]) -> None:
        place: Any = manifest
        for name in path[:-1]:
            place = place[int(name) if isinstance(place, list) else name]
        place[path[-1]] = value

    return lambda folder: reseal(folder, change)


def _first(folder: Path) -> Path:
    return min(folder.glob("*.tar"))


def _shards() -> Iterator[tuple[str, Change]]:
    yield "shard: a pipe", lambda folder: _pipe(_first(folder))
    yield "shard: endless", lambda folder: _link(_first(folder), Path("/dev/zero"))
    yield "shard: a folder", lambda folder: (path := _first(folder), path.unlink(), path.mkdir())
    yield "shard: sparse, 1 TB", lambda folder: os.truncate(_first(folder), 1 << 40)
    yield "shard: empty", lambda folder: os.truncate(_first(folder), 0)
    yield "shard: zeros", lambda folder: _listed(folder, bytes(4096))
    for size in (0o777_7777_7777, 1 << 30, (1 << 30) + 1):
        yield f"shard: a member of {size} bytes", lambda folder, n=size: _listed(folder, _header("k.png", n))  # type: ignore[misc]
    for kind in b"123456xgLKS":
        yield (
            f"shard: a member of type {chr(kind)}",
            lambda folder, k=kind: _listed(folder, _header("k.png", 0, k) + END),
        )  # type: ignore[misc]
    for name in (
        "../../precious/k.png",
        "/precious/k.png",
        "k",
        ".png",
        "k.\x1b[2J",
        "k\n.png",
        "a/../k.png",
        "k." + "x" * 90,
    ):
        yield f"shard: a member called {name!r}", lambda folder, n=name: _listed(folder, _header(n, 0) + END)  # type: ignore[misc]
    yield (
        "shard: 20 000 members of one sample",
        lambda folder: _listed(folder, b"".join(_header(f"k.m{at}", 0) for at in range(20_000)) + END),
    )


def _members() -> Iterator[tuple[str, Change]]:
    pictures: dict[str, Callable[[], bytes]] = {
        "a bomb of 169 megapixels": lambda: _png(13_000, 13_000),
        "a bomb of 4 gigapixels": lambda: _png(65_000, 65_000),
        "gray": lambda: _png(16, 12, 0),
        "cut": lambda: _png(16, 12)[:60],
        "PostScript": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 12\n(ran) (w) file\n",
        "TIFF": lambda: b"II*\0\x08\0\0\0\xff\xff",
        "SVG": lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    }
    for name, content in pictures.items():
        yield f"png: {name}", lambda folder, make=content: _member("png", make())(folder)  # type: ignore[misc]
    headers = [
        *("(2**62, 2**62, 0)", "(0,)" * 1, "(10**20,)", "(-1, -4)", "(True, 4)", "(1.5,)", "('a',)", "(1,)*70"),
        *("(0, 10**19)", "None", "()", "[4]", "(4294967296, 4294967296)", "__import__('os').abort()"),
    ]
    for shape in headers:
        yield (
            f"npy: shape {shape}",
            _member("depth.npy", _npy(f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}")),
        )
    for descr in (
        "'|O'",
        "[('a', '<f4')]",
        "'<M8[s]'",
        "'<c16'",
        "'<f16'",
        "'|V8'",
        "'>f4'",
        "'<U4'",
        "3",
        "'" + "(" * 999 + "'",
    ):
        yield (
            f"npy: dtype {descr[:20]}",
            _member("keypoints.npy", _npy(f"{{'descr': {descr}, 'fortran_order': True, 'shape': (4,), }}")),
        )
    yield "npy: pickled", _member("depth.npy", b"\x80\x04cposix\nabort\n(tR.")
    texts = {
        "deep": b"[" * 100_000,
        "a long number": b"1" * 100_000,
        "not a number": b'{"objects": NaN}',
        "half a character": b'{"objects": "\\ud800"}',
        "no text": b"\xff\xfe\0",
        "an escape": json.dumps({"objects": [], ESCAPE: ESCAPE}).encode(),
        "a list": b"[]",
        "many": b"[" + b"[]," * 500_000 + b"[]]",
    }
    for name, content in texts.items():
        yield f"json: {name}", _member("json", content)


def _member(name: str, content: bytes) -> Change:
    """Return what puts another content into the first sample."""

    def change(folder: Path) -> None:
        recipe = Recipe(shards=2, samples_per_shard=3, passes=("depth",))
        order = recipe.plan.episodes(0)
        samples = [(s.key, recipe.members(each, at)) for each in order for at, s in enumerate(each.samples)]
        samples[0][1][name] = content
        _listed(folder, b"".join(sample_record(*sample) for sample in samples) + END)

    return change


def _listed(folder: Path, content: bytes) -> None:
    """Put another content into the first shard, and make the manifest fit."""
    _first(folder).write_bytes(content)

    def change(manifest: dict[str, Any]) -> None:
        shard = manifest["shards"][0]
        manifest["bytes"] += len(content) - shard["bytes"]
        shard |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}

    reseal(folder, change)


def _surroundings() -> Iterator[tuple[str, Change]]:
    yield "file: an escape in its name", lambda folder: (folder / ESCAPE).touch()
    yield "file: an escape among the sources", lambda folder: (folder / "source" / ESCAPE).touch()
    yield "source: a pipe", lambda folder: _pipe(folder / "source" / "job.py")
    yield "source: endless", lambda folder: _link(folder / "source" / "job.py", Path("/dev/zero"))
    yield "source: sparse, 200 GB", lambda folder: os.truncate(folder / "source" / "job.py", 200 << 30)
    yield "source: a loop of folders", lambda folder: (folder / "source" / "loop").symlink_to(folder / "source")
    for name in ("dataset.json.part", ".lock", "failures.jsonl", "cubes-train-000009.tar.part"):
        yield (
            f"file: {name} leads outside",
            lambda folder, n=name: _link(folder / n, folder.parent / "precious" / "file"),
        )  # type: ignore[misc]


def _pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def _link(path: Path, to: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(to)


def _header(name: str, size: int, kind: int = ord("0")) -> bytes:
    header = tarfile.TarInfo(name)
    header.size, header.type = size, bytes([kind])
    if kind in b"12":
        header.linkname = "../../precious/file"
    return header.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")


def _png(width: int, height: int, colour: int = 2) -> bytes:
    def piece(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    data = _deflated_zeros((1 + width * (3 if colour == 2 else 1)) * min(height, 13_000))
    head = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + piece(b"IHDR", head) + piece(b"IDAT", data) + piece(b"IEND", b"")


def _deflated_zeros(count: int) -> bytes:
    """Compress so many zeros: one block again and again, for to compress gigabytes takes a quarter of a minute."""
    whole, rest = divmod(count, 1 << 24)
    squeeze = zlib.compressobj(9, wbits=-15)
    block = squeeze.compress(bytes(1 << 24)) + squeeze.flush(zlib.Z_FULL_FLUSH)
    end = zlib.compressobj(9, wbits=-15)
    checksum = (count % 65521) << 16 | 1  # Adler-32 of zeros
    return b"\x78\xda" + block * whole + end.compress(bytes(rest)) + end.flush() + struct.pack(">I", checksum)


def _npy(header: str) -> bytes:
    text = header.encode() + b" " * (-(10 + len(header) + 1) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(16)


def read(folder: Path, reader: str) -> None:
    """Be one command or loader."""
    beside = folder.parent / "written"
    small = ["--width", "64", "--out"]
    commands = {
        "verify": ["verify", str(folder), "--quiet"],
        "show": ["show", str(folder), "--count", "2", *small, str(beside / "sheet.png")],
        "show-passes": ["show", str(folder), "000000-000000", "--passes", *small, str(beside / "sample.png")],
        "diff": ["diff", str(folder), str(folder.parent / "honest")],
        "export": ["export", "coco", str(folder), str(beside / "coco"), "--quiet"],
    }
    if reader in commands:
        from compiler import cli

        sys.argv = ["compile-dataset", *commands[reader]]
        cli.main()
    import loaders

    warnings.simplefilter("always")  # as users have it
    try:
        if reader == "rebuild":
            loaders.rebuild_shards(folder, beside / "rebuilt")
        elif reader == "indexed":
            samples = loaders.IndexedShards(folder)
            for at in range(len(samples)):
                samples[at]
        else:
            skipping = {"on_error": "skip"} if reader == "skipping" else {}
            for _ in loaders.ShardDataset(str(folder), **skipping):  # type: ignore[arg-type]
                pass
    except (loaders.ShardError, loaders.ManifestError) as error:
        print(f"{type(error).__name__}: {error!r}", file=sys.stderr)
        sys.exit(2)
