"""What a compiler does at its live tee, without Blender: a real tee, small samples, shards beside it if wanted."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compiler.live.tee import Tee, TeeOptions
from loaders.content import content_digest
from loaders.files import write_atomically
from loaders.format import sample_digest
from loaders.manifest import Manifest, ShardInfo
from loaders.tarstream import END, sample_record
from tests.synthetic import Members, full_members, key_of


@dataclass
class Compiler:
    """Offers the samples of a dataset, and writes its shards where there is a folder."""

    shards: int = 4
    per_shard: int = 5
    seed: int = 0
    members: Members = full_members
    folder: Path | None = None
    manifest: Manifest = field(init=False)
    tee: Tee = field(init=False)

    def __post_init__(self) -> None:
        plan = {
            "seed": self.seed,
            "samples_per_shard": self.per_shard,
            "job": {"name": "cubes", "frames": [1], "cameras": [], "passes": []},
            "render": {"image": "png", "width": 8, "height": 6},
        }
        schema = {"members": {name: {"description": name} for name in self.members(0)}}
        self.manifest = Manifest("cubes", plan, schema, {"command": "compile-dataset"})
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._write_manifest()

    @contextmanager
    def listening(self, **options: Any) -> Iterator[Compiler]:
        """Open the tee; leaving cuts it."""
        with Tee(TeeOptions(**{"port": 0, "policy": "block", **options}), self.describe) as self.tee:
            yield self

    @property
    def address(self) -> str:
        return self.tee.address

    @property
    def numbers(self) -> range:
        """The numbers of all samples."""
        return range(self.shards * self.per_shard)

    @property
    def keys(self) -> list[str]:
        return [self.key(number) for number in self.numbers]

    def describe(self) -> dict[str, Any]:
        """Say what `compiler.live.tee` says."""
        manifest = self.manifest
        return {
            "name": manifest.name,
            "plan": manifest.plan,
            "plan_digest": manifest.plan_digest,
            "schema": {"members": manifest.schema["members"]},
            "shards_wanted": self.shards,
        }

    def key(self, number: int) -> str:
        return key_of(*divmod(number, self.per_shard))

    def record(self, number: int) -> bytes:
        return sample_record(self.key(number), self.members(number))

    def offer(self, *numbers: int) -> None:
        for number in numbers:
            assert self.tee.offer(self.key(number), self.record(number))

    def shard_bytes(self, shard: int) -> bytes:
        first = shard * self.per_shard
        return b"".join(self.record(number) for number in range(first, first + self.per_shard)) + END

    def commit(self, *shards: int) -> None:
        """Write finished shards."""
        assert self.folder is not None
        for shard in shards:
            content, name = self.shard_bytes(shard), f"cubes-train-{shard:06d}.tar"
            first = shard * self.per_shard
            digests = [content_digest(self.key(at), self.members(at)) for at in range(first, first + self.per_shard)]
            records = "".join(sample_digest(self.record(at)) for at in range(first, first + self.per_shard))
            info = ShardInfo(
                name,
                "train",
                shard,
                self.per_shard,
                len(content),
                _sha256(content),
                _sha256(b"".join(digests)),
                records,
            )
            write_atomically(self.folder / name, content)
            self.manifest = self.manifest.with_shard(info)
            self._write_manifest()

    def compile(self, *shards: int) -> None:
        """Offer whole shards and write them (all by default)."""
        for shard in shards or range(self.shards):
            self.offer(*range(shard * self.per_shard, (shard + 1) * self.per_shard))
            if self.folder is not None:
                self.commit(shard)

    def offer_when_heard(self, *numbers: int, listeners: int = 1) -> None:
        assert self.tee.wait_for(listeners, timeout=60)
        self.offer(*numbers)

    def compile_when_heard(self, *shards: int, listeners: int = 1) -> None:
        assert self.tee.wait_for(listeners, timeout=60)
        self.compile(*shards)

    def run(self, *shards: int, listeners: int = 1) -> None:
        """Do all that a compiler does, from the first listener to the dataset's end."""
        self.compile_when_heard(*shards, listeners=listeners)
        if not self.tee.finish():
            self.tee.abort()  # or those who wait for the end would wait on
            raise AssertionError("a group was given up")

    def _write_manifest(self) -> None:
        assert self.folder is not None
        self.manifest.save(self.folder)


@contextmanager
def beside(action: Callable[..., object], *args: Any, **options: Any) -> Iterator[None]:
    """Run `action` in a thread meanwhile; what it raises is an error."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            action(*args, **options)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield
    thread.join(30)
    assert not thread.is_alive()
    assert not failed, failed


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
