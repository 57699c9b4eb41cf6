"""What goes between compiler and instance: every message arrives as it was sent, and garbage is told apart."""

from __future__ import annotations

import io
import json
import struct
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blender_jobs import orders, wire
from blender_jobs.orders import Described, EpisodeOrder, JobSource, Render, RenderSettings, SampleOrder

_TEXT = st.text(max_size=20)
_NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
_JSON = st.recursive(
    st.none() | st.booleans() | _NUMBERS | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=5,
)
_RENDER_SETTINGS = st.builds(
    RenderSettings,
    engine=st.sampled_from(list(orders.ENGINE_SAMPLES)),
    samples=st.sampled_from(orders.WORKBENCH_SAMPLES[1:]),  # these fit all engines
    width=st.integers(4, 8192),
    height=st.integers(4, 8192),
    image=st.sampled_from(list(orders.IMAGE_QUALITY)),
    quality=st.integers(1, 100),
)


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Return a strategy for values of an annotated type as the messages use them."""
    if kind is RenderSettings:
        return _RENDER_SETTINGS
    if get_origin(kind) is list:
        return st.lists(values(get_args(kind)[0]), max_size=3)
    if get_origin(kind) is dict:
        return st.dictionaries(_TEXT, values(get_args(kind)[1]), max_size=3)
    if hasattr(kind, "__dataclass_fields__"):
        return st.builds(kind, **{name: values(hint) for name, hint in get_type_hints(kind).items()})
    return {str: _TEXT, int: st.integers(), bool: st.booleans(), Any: _JSON}[kind]


MESSAGES = st.sampled_from(list(orders.MESSAGES.values())).flatmap(values)


@given(st.lists(st.tuples(MESSAGES, st.lists(st.binary(), max_size=3)), max_size=3))
def test_messages_arrive_as_they_were_sent(sent: list[tuple[Any, list[bytes]]]) -> None:
    stream = io.BytesIO()
    for message, payload in sent:
        wire.send(stream, orders.to_head(message), payload)
    stream.seek(0)
    for message, payload in sent:
        frame = wire.receive(stream)
        assert frame is not None
        assert orders.from_head(frame[0]) == message
        assert frame[1] == b"".join(payload)
    assert wire.receive(stream) is None


def test_a_message_is_not_held_back(tmp_path: Path) -> None:
    path = tmp_path / "channel"
    with path.open("wb") as channel:
        wire.send(channel, {"type": "Done", "samples": 3})
        with path.open("rb") as other_side:
            assert wire.receive(other_side) == ({"type": "Done", "samples": 3}, b"")


def frame(head: bytes, payload: bytes = b"", head_size: int = -1, payload_size: int = -1) -> bytes:
    """Return a frame, perhaps one that claims other lengths than it has."""
    claims = (head_size if head_size >= 0 else len(head), payload_size if payload_size >= 0 else len(payload))
    return b"BSH1" + struct.pack(">IQ", *claims) + head + payload


@given(st.binary() | st.binary().map(frame) | _JSON.map(lambda value: frame(json.dumps(value).encode())))
def test_whatever_is_received_is_a_message_or_an_error(content: bytes) -> None:
    stream = io.BytesIO(content)
    try:
        while (received := wire.receive(stream)) is not None:
            orders.from_head(received[0])
    except (wire.WireError, ValueError):
        pass


def test_every_cut_of_a_frame_is_an_error() -> None:
    content = frame(b'{"type": "Done", "samples": 3}', b"payload")
    for size in range(1, len(content)):
        with pytest.raises(wire.WireError, match="ends within a frame"):
            wire.receive(io.BytesIO(content[:size]))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"Blender 4.5.15 LTS", "not a frame"),
        (frame(b"{}", head_size=wire.MAX_HEAD + 1), "not a frame"),
        (frame(b"{}", payload_size=wire.MAX_PAYLOAD + 1), "not a frame"),
        (frame(b"[]"), "not a JSON object"),
        (frame(b"{'type'}"), "not JSON"),
        (frame(b"\xff\xff"), "not JSON"),
        (frame(b"[" * 100_000), "not JSON"),
    ],
)
def test_what_is_no_frame_is_refused_with_the_reason(content: bytes, reason: str) -> None:
    with pytest.raises(wire.WireError, match=reason):
        wire.receive(io.BytesIO(content))


def test_what_json_cannot_say_is_not_sent() -> None:
    stream = io.BytesIO()
    with pytest.raises(ValueError, match="not JSON compliant"):
        wire.send(stream, {"value": float("nan")})
    assert stream.getvalue() == b""


@given(st.lists(st.sampled_from([wire.SYNC[:1], wire.SYNC[:5], wire.SYNC[:-2], b"banner\n"])).map(b"".join))
def test_the_first_message_is_found_behind_any_noise(noise: bytes) -> None:
    stream = io.BytesIO(noise + wire.SYNC + b"frame")
    wire.skip_to_sync(stream)
    assert stream.read() == b"frame"


@pytest.mark.parametrize(
    ("noise", "said"),
    [
        (b"", "ended before its first message"),
        (wire.SYNC[:-1], "ended before its first message"),
        (b"\0" * wire.MAX_NOISE + wire.SYNC, "no message within the first mebibyte"),
    ],
    ids=["nothing", "cut", "noise"],
)
def test_an_instance_that_never_begins_is_an_error(noise: bytes, said: str) -> None:
    with pytest.raises(wire.WireError, match=said):
        wire.skip_to_sync(io.BytesIO(noise))


RENDER = orders.to_head(
    Render(
        JobSource("job.py"),
        Described("Job", "", "0" * 64, {"count": 3}, {"count": 3}, [1], False, {}),
        7,
        RenderSettings("cycles", 16, 64, 48, "png", 100),
        2,
        [EpisodeOrder(5, [SampleOrder("000001-000000", 1)])],
    )
)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"type": "Eval"}, "unknown message 'Eval'"),
        ({"type": ["Render"]}, "unknown message"),
        ({"seed": True}, "Render.seed is bool"),
        ({"seed": 7.0}, "Render.seed is float"),
        ({"more": 1}, "Render has unknown fields"),
        ({"job": "job.py"}, "Render.job is not an object"),
        ({"job": {}}, "Render.job: .*'path'"),
        ({"episodes": {}}, "Render.episodes is dict"),
        ({"episodes": [{"episode": 5, "samples": [{"key": 1, "frame": 1}]}]}, r"episodes\[0\].samples\[0\].key is int"),
        ({"render": {**RENDER["render"], "engine": "povray"}}, "engine 'povray' is not one of cycles"),
    ],
)
def test_a_message_that_is_not_as_declared_names_the_place(change: dict[str, Any], where: str) -> None:
    assert isinstance(orders.from_head(RENDER), Render)
    with pytest.raises(ValueError, match=where):
        orders.from_head({**RENDER, **change})


@pytest.mark.parametrize("missing", [entry.name for entry in fields(Render) if entry.default is MISSING])
def test_a_message_lacks_no_field(missing: str) -> None:
    with pytest.raises(ValueError, match=f"Render: .*'{missing}'"):
        orders.from_head({name: value for name, value in RENDER.items() if name != missing})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"samples": 0}, "cycles takes 1 or more"),
        ({"engine": "workbench", "samples": 7}, "workbench takes"),
        ({"width": 3}, "3x48 is too small"),
        ({"height": 65537}, "64x65537 is too large for png"),
        ({"image": "exr"}, "'exr' is not one of png"),
        ({"quality": 0}, "quality 0"),
        ({"quality": 101}, "quality 101"),
        ({"device": "tpu"}, "device 'tpu' is not one of cpu"),
        ({"engine": "workbench", "samples": 8, "denoise": True}, "are Cycles': workbench"),
    ],
)
def test_render_settings_out_of_range_say_what_fits(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        RenderSettings(**{**RENDER["render"], **change})


def test_workbench_may_go_without_anti_aliasing() -> None:
    assert RenderSettings("workbench", 0, 64, 48, "png", 100).samples == 0
