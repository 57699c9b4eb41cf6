"""Where the samples of a local shard lie, read from its headers alone."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from loaders.files import open_regular
from loaders.tarstream import MemberPlace, TarStreamError, UsualMembers, read_places

Span = tuple[str, int, int]
"""The key, first byte and byte behind of a sample."""


def sample_spans(path: str, max_bytes: int, usual: Collection[str] | None = None) -> Iterator[Span]:
    """Yield the span of each whole sample in a shard, in order; the one just before damage included.

    Args:
        path: the shard.
        max_bytes: largest record of one sample.
        usual: the member names that samples have, if not what the first one shows.

    Raises:
        TarStreamError: the shard is damaged or cut, or a sample's record is larger than `max_bytes`.
        OSError: the file cannot be read.
    """
    names, places = UsualMembers(usual), list[MemberPlace]()
    with open_regular(path) as file:
        try:
            for place in read_places(file, Path(path).stat().st_size):
                if places and place.key != places[0].key:
                    names.note([one.member for one in places])
                    yield _span(places, max_bytes)
                    places = []
                places.append(place)
        except (TarStreamError, OSError):
            if places and names.are([one.member for one in places]):
                yield _span(places, max_bytes)
            raise
        if places:
            yield _span(places, max_bytes)


def _span(places: list[MemberPlace], max_bytes: int) -> Span:
    key, start, end = places[0].key, places[0].offset, places[-1].end
    if end - start > max_bytes:
        raise TarStreamError(f"sample {key!r} is larger than {max_bytes} bytes (byte {start})")
    return key, start, end
