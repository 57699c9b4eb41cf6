"""Internal, shared with the compiler: where each sample is and what a view holds, the part of a plan that readers need.

A plan is JSON that may come from anywhere. It is parsed into types once, field by field.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from loaders.format import IMAGES, SampleKey, is_dataset_name, shard_name

MOST_SAMPLES_PER_SHARD = 1_000_000

_SHOWN = 60
"""Characters of a value that are shown."""

T = TypeVar("T")

_KINDS = {bool: "true or false", int: "a whole number", str: "a text", dict: "an object", list: "a list"}


class Fields:
    """A JSON object that is read field by field; errors name the place of what is missing or of another type.

    Args:
        value: what should be an object.
        where: its place, such as ``plan.job``.

    Raises:
        ValueError: it is not an object.
    """

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise ValueError(f"{where} is {shown(value)}, not an object")
        self._value, self.where = value, where

    def get(self, name: str, kind: type[T], default: T | None = None) -> T:
        """Return a field of exactly this type. Raises ValueError if it is not, or if it and the default are missing."""
        if name not in self._value:
            if default is not None:
                return default
            raise ValueError(f"{self.where} has no {name}")
        return _typed(self._value[name], kind, f"{self.where}.{name}")

    def fields(self, name: str) -> Fields:
        """Return an object in this one. Raises ValueError if it is not an object."""
        return Fields(self.get(name, dict), f"{self.where}.{name}")

    def items(self, name: str, kind: type[T], default: list[T] | None = None) -> tuple[T, ...]:
        """Return a list's items, all of this type. Raises ValueError if one is not."""
        items: list[Any] = self.get(name, list, default)
        return tuple(_typed(item, kind, f"{self.where}.{name}[{at}]") for at, item in enumerate(items))

    def values(self, name: str, kind: type[T], default: dict[str, T] | None = None) -> dict[str, T]:
        """Return an object whose values are all of this type. Raises ValueError if one is not."""
        values: dict[str, Any] = self.get(name, dict, default)
        return {key: _typed(value, kind, f"{self.where}.{name}[{shown(key)}]") for key, value in values.items()}


def _typed(value: Any, kind: type[T], where: str) -> T:
    if type(value) is not kind:
        raise ValueError(f"{where} is {shown(value)}, not {_KINDS.get(kind, kind.__name__)}")
    return value


def shown(value: object) -> str:
    """Return a short form of a value for messages."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


class PlannedSample(NamedTuple):
    """One sample of a plan."""

    key: str
    episode: int
    frame: int


@dataclass(frozen=True)
class ShardLayout:
    """How samples are numbered, and what a view holds.

    Raises:
        ValueError: a value is invalid; one line.
    """

    name: str
    """The dataset's name, with which its shards' file names begin."""
    seed: int
    samples_per_shard: int
    frames: tuple[int, ...]
    """The frames that an episode keeps, in order."""
    cameras: tuple[str, ...]
    """If empty, members have no prefix."""
    passes: tuple[str, ...]
    """The passes that each view holds besides the image."""
    image: str
    """One of `loaders.format.IMAGES`."""
    width: int
    """Of the image, in pixels."""
    height: int

    def __post_init__(self) -> None:
        if not is_dataset_name(self.name):
            raise ValueError(f"plan.job.name is {shown(self.name)}, which no dataset can be called")
        if self.seed < 0:
            raise ValueError(f"plan.seed is {self.seed}, not a whole number from 0")
        if not 1 <= self.samples_per_shard <= MOST_SAMPLES_PER_SHARD:
            given = f"plan.samples_per_shard is {self.samples_per_shard}"
            raise ValueError(f"{given}, not a whole number from 1 to {MOST_SAMPLES_PER_SHARD}")
        if not self.frames:
            raise ValueError("plan.job.frames is empty")
        if self.image not in IMAGES:
            raise ValueError(f"plan.render.image is {shown(self.image)}, not one of {', '.join(IMAGES)}")
        if min(self.width, self.height) < 1:
            raise ValueError(f"plan.render: the size is {self.width}x{self.height}")

    @classmethod
    def parse(cls, plan: object) -> ShardLayout:
        """Read a manifest's or a tee's plan.

        Raises:
            ValueError: it is not valid; one line that names the place.
        """
        given = Fields(plan, "plan")
        job, render = given.fields("job"), given.fields("render")
        return cls(
            name=job.get("name", str),
            seed=given.get("seed", int),
            samples_per_shard=given.get("samples_per_shard", int),
            frames=job.items("frames", int),
            cameras=job.items("cameras", str),
            passes=job.items("passes", str),
            image=render.get("image", str),
            width=render.get("width", int),
            height=render.get("height", int),
        )

    @property
    def episodes_per_shard(self) -> int:
        """Episodes in a shard; the last may be cut short."""
        return -(-self.samples_per_shard // len(self.frames))

    def shard_name(self, number: int) -> str:
        """Return the file name of a shard."""
        return shard_name(self.name, number)

    def episode(self, number: int) -> list[PlannedSample]:
        """Return the samples of one episode, in order. Episodes are numbered throughout the dataset."""
        shard, at = divmod(number, self.episodes_per_shard)
        start = at * len(self.frames)
        frames = self.frames[: self.samples_per_shard - start]
        keys = (str(SampleKey(shard, start + offset)) for offset in range(len(frames)))
        return [PlannedSample(key, number, frame) for key, frame in zip(keys, frames, strict=True)]

    def samples(self, shard: int, skipped: Collection[str] = ()) -> list[PlannedSample]:
        """Return the samples of a shard, in order, without the skipped ones."""
        first = shard * self.episodes_per_shard
        planned = (sample for at in range(self.episodes_per_shard) for sample in self.episode(first + at))
        return [sample for sample in planned if sample.key not in skipped]
