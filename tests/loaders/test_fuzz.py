"""Parsers of foreign bytes, given damaged ones, raise nothing but the errors that they name; see also tests/fuzz."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.seeds import SEEDS
from tests.fuzz.targets import TARGETS


@st.composite
def damaged(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """Return valid bytes with a few of them changed, cut out, doubled or replaced."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 6))):
        start = draw(st.integers(0, max(0, len(data) - 1)))
        end = start + draw(st.integers(0, 64))
        with_what = draw(
            st.sampled_from([b"", bytes(data[start:end]) * 2, b"\xff" * (end - start), bytes(end - start)])
            | st.binary(max_size=16)
        )
        data[start:end] = with_what
    return bytes(data)


@pytest.mark.parametrize("name", TARGETS)
def test_valid_bytes_are_read(name: str) -> None:
    for seed in SEEDS[name]:
        TARGETS[name](seed)


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_bytes_raise_nothing_unforeseen(name: str) -> None:
    @settings(max_examples=300)
    @given(damaged(SEEDS[name]) | st.binary(max_size=300))
    def holds(data: bytes) -> None:
        TARGETS[name](data)

    holds()
