"""The parsers of foreign bytes: each takes any bytes and raises nothing but the errors that its documentation names."""

from __future__ import annotations

import io
import json
import tomllib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from blender_jobs import orders, wire
from blender_jobs._render import formats
from blender_jobs._worker.fields import json_value, resolve_fields
from blender_jobs.job import Job, JobError
from loaders._decode import Decoder, decode_npy
from loaders.content import content_digest
from loaders.errors import SampleError
from loaders.manifest import Manifest, ManifestError
from loaders.tarstream import TarStreamError, read_samples, sample_record

KEY = "000000-000000"


@dataclass
class Fields(Job):
    """A field of each kind that a job may have."""

    count: int = 1
    size: float = 1.0
    name: str = "a"
    on: bool = True
    frames: range = range(1, 3)
    place: tuple[float, float, float] = (0.0, 0.0, 0.0)
    names: list[str] = field(default_factory=list)
    maybe: int | None = None
    path: Path = Path("a")
    kind: Literal["a", "b"] = "a"


def messages(data: bytes) -> None:
    """What an instance or a compiler says."""
    stream = io.BytesIO(data)
    with suppress(wire.WireError, ValueError):
        while (frame := wire.receive(stream)) is not None:
            orders.from_head(frame[0])


def answers(data: bytes) -> None:
    """The head of a message, as JSON; whatever is built from it says the same again."""
    with suppress(ValueError, RecursionError):
        head = json.loads(data)
        if isinstance(head, dict):
            message = orders.from_head(head)
            assert orders.from_head(orders.to_head(message)) == message


def shards(data: bytes) -> None:
    """A tar stream; what is read and may be written is read again."""
    with suppress(TarStreamError):
        for sample in read_samples(io.BytesIO(data), max_bytes=1 << 20):
            with suppress(ValueError):
                record = sample_record(sample.key, sample.members)
                again = next(read_samples(io.BytesIO(record)))
                assert (again.key, again.members) == (sample.key, sample.members)


def manifests(data: bytes) -> None:
    """A manifest; one that is read is written back to an equal one."""
    with suppress(ManifestError):
        manifest = Manifest.from_json(data)
        assert Manifest.from_json(manifest.to_json()) == manifest


def arrays(data: bytes) -> None:
    """An ``.npy`` member."""
    with suppress(SampleError):
        decode_npy(data)


def samples(data: bytes) -> None:
    """A sample of members whose names and contents are foreign."""
    kind, _, content = data.partition(b"\n")
    name = kind.decode("latin-1")
    with suppress(SampleError):
        Decoder(output="numpy", max_pixels=1 << 16)(KEY, {name: content})
    with suppress(ValueError):
        content_digest(KEY, {name: content})


def passes(data: bytes) -> None:
    """A multilayer EXR file."""
    with suppress(ValueError):
        formats.read_exr(data)


def images(data: bytes) -> None:
    """An image file whose metadata are dropped."""
    for kind in ("png", "jpg", "webp"):
        with suppress(ValueError):
            formats.strip_metadata(data, kind)


def settings(data: bytes) -> None:
    """A job's fields, as text or as a configuration file has them; what is taken is taken again."""
    with suppress(tomllib.TOMLDecodeError, UnicodeDecodeError, JobError):
        given = tomllib.loads(data.decode())
        fields = resolve_fields(Fields, given)
        again = {name: json_value(value) for name, value in fields.items()}
        assert resolve_fields(Fields, again) == fields


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (messages, answers, shards, manifests, arrays, samples, passes, images, settings)
}
