"""10,000 malformed streams: a listener gives samples or an error of ours, runs nothing, writes in its place alone."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loaders import Decoder, LiveDataset, ShardError
from loaders._tee.client import Address, ConnectionLost, TeeConnection, TeeStatus
from loaders._tee.recording import Recorder
from loaders.content import content_digest
from loaders.tarstream import BLOCK, END, TarStreamError, sample_record
from tests.live_tees import Compiler
from tests.raw_servers import CHUNKED, answer, chunk, serving
from tests.synthetic import full_members, key_of, npy_bytes

MOST_BYTES = 1 << 20
SEEDS_IN_PROCESS = 9700
SEEDS_BY_SOCKET = 300


class Evil:
    """Tells when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.system, ("echo unpickled > unpickled",)


def _evil_npy() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([Evil()], object), allow_pickle=True)
    return file.getvalue()


STATUS = {**Compiler().describe(), "finished": False}
EVIL = [
    _evil_npy(),
    pickle.dumps(Evil()),
    npy_bytes(np.zeros(3)).replace(b"(3,)", b"(9,)"),
    npy_bytes(np.zeros((1, 4), np.float32)).replace(b"<f4", b"|O "),
    b"[" * 50_000,
    b'{"a": NaN, "b": 1e999}',
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\x7f\xff\xff\xff\x7f\xff\xff\xff\x08\x02\0\0\0",
    b"\x93NUMPY\x02\0\xff\xff\xff\xff",
    b"%!PS\n(unpickled) (w) file",
    b"",
]
NAMES = [
    b"../../evil.png",
    b"/tmp/evil.png",
    b"a/../../evil.png",
    b"000000-000000.pkl",
    b"000000-000000.pyd",
    b"..png",
    b".png",
    b"000000-000000.png\0/evil",
    b"CON.png",
    b"\xff\xfe.png",
    b"a" * 100,
    b"000000-000000",
]
NUMBERS = [
    b"77777777777\0",
    b"00000000000\0",
    b"-0000000001\0",
    b"\x80" + bytes(3) + b"\x7f" * 8,
    b"\xff" * 12,
    b" " * 12,
]


def _resealed(header: bytearray) -> bytes:
    """Return a tar header whose checksum is right again."""
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def change_header(tar: bytes, rng: random.Random) -> bytes:
    """Change a field of a header and seal it again: the checksum keeps nobody from lying."""
    starts = [at for at in range(0, len(tar), BLOCK) if tar[at + 257 : at + 262] == b"ustar"]
    at = rng.choice(starts)
    header = bytearray(tar[at : at + BLOCK])
    match rng.randrange(5):
        case 0:
            header[:100] = rng.choice(NAMES)[:100].ljust(100, b"\0")
        case 1:
            header[124:136] = rng.choice(NUMBERS)
        case 2:
            header[156:157] = rng.choice(b"0123456789gxLKSDV\0").to_bytes(1, "big")  # links, devices, long names
        case 3:
            header[345:500] = rng.choice([b"../..", b"/etc", b"a" * 155]).ljust(155, b"\0")
        case 4:
            header[rng.randrange(BLOCK)] = rng.randrange(256)
    return tar[:at] + _resealed(header) + tar[at + BLOCK :]


def change_bytes(tar: bytes, rng: random.Random) -> bytes:
    """Cut, double, drop, or overwrite pieces."""
    content = bytearray(tar)
    for _ in range(rng.randint(1, 4)):
        at, size = rng.randrange(len(content) + 1), rng.choice([1, 1, 8, BLOCK, 3 * BLOCK])
        match rng.randrange(4):
            case 0:
                content[at : at + size] = rng.randbytes(size)
            case 1:
                del content[at : at + size]
            case 2:
                content[at:at] = content[at : at + size]
            case 3:
                del content[at:]
    return bytes(content)


def framed(tar: bytes, rng: random.Random) -> bytes:
    """Return the tar in HTTP chunks, now and then wrong ones."""
    parts, at = [CHUNKED], 0
    while at < len(tar):
        size = rng.choice([1, 100, BLOCK, 4000, 1 << 20])
        parts.append(chunk(tar[at : at + size]))
        at += size
    parts.append(chunk(b""))
    if rng.random() < 0.3:
        odd = [
            b"-1\r\n",
            b"zz\r\n",
            b"\r\n",
            b"7fffffffffffffffffff\r\n",
            b"0\r\n" + b"X: y\r\n" * 50,
            b"a" * 70_000,
            b"+8\r\n",
        ]
        parts.insert(rng.randrange(len(parts)), rng.choice([*odd, rng.randbytes(20)]))
    if rng.random() < 0.1:
        parts[0] = rng.choice(
            [b"", b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", b"ICY\r\n"]
        )
    return b"".join(parts)


MEMBERS = [full_members(number) for number in range(3)]


def malformed(seed: int) -> bytes:
    """Return what a hostile server might answer to the request for the stream."""
    rng = random.Random(seed)
    samples = [dict(rng.choice(MEMBERS)) for _ in range(rng.randint(1, 2))]
    if rng.random() < 0.4:
        sample = rng.choice(samples)
        sample[rng.choice([*sample, "evil.pkl"])] = rng.choice(EVIL)
    tar = b"".join(sample_record(key_of(0, number), sample) for number, sample in enumerate(samples)) + END
    changes: list[Callable[[bytes, random.Random], bytes]] = [change_header, change_bytes, lambda tar, _: tar]
    for change in rng.choices(changes, k=2):
        with suppress(IndexError):  # there is no header left
            tar = change(tar, rng)
    return framed(tar, rng)


class _Canned:
    """An HTTP connection that was answered already."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def request(self, *_: object, **__: object) -> None:
        pass

    def makefile(self, _: str) -> io.BufferedReader:
        return io.BufferedReader(io.BytesIO(self._content))

    def getresponse(self) -> HTTPResponse:
        response = HTTPResponse(self, method="GET")  # type: ignore[arg-type]
        response.begin()
        return response


def received(content: bytes, recorder: Recorder) -> Counter[str]:
    """Do with an answer what `LiveDataset` does, and return how it went."""
    connection = TeeConnection(Address.parse("http://127.0.0.1:1"), None, 1.0, lambda _: None)
    connection._http = _Canned(content)  # type: ignore[assignment]
    status = TeeStatus.parse(json.dumps(STATUS).encode(), "test")
    decode, outcome = Decoder(output="numpy"), Counter[str]()
    try:
        for sample in connection.samples(status, "a", None, MOST_BYTES):
            try:
                decode(sample.key, sample.members)
                recorder.add(status, sample, content_digest(sample.key, sample.members))
                outcome["samples"] += 1
            except ShardError:
                outcome["bad samples"] += 1
        outcome["ends"] += 1
    except (TarStreamError, ShardError, ConnectionLost) as error:
        outcome[type(error).__name__] += 1
    return outcome


@dataclass
class Watch:
    """What is run, unpickled, or written outside of `folder`."""

    folder: str
    seen: list[tuple[str, Any]] = field(default_factory=list)

    def note(self, event: str, args: tuple[Any, ...]) -> None:
        if event in ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "pickle.find_class"):
            self.seen.append((event, args))
        elif event in ("open", "os.rename", "os.remove", "os.mkdir", "os.symlink", "os.link", "os.truncate"):
            reads = event == "open" and not (args[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            paths = args[:1] if event in ("open", "os.remove", "os.mkdir") else args[:2]
            if not reads and not all(str(path).startswith(self.folder) for path in paths):
                self.seen.append((event, args))


_watches: list[Watch] = []
sys.addaudithook(lambda event, args: [watch.note(event, args) for watch in _watches])  # type: ignore[func-returns-value]


@contextmanager
def watched(folder: Path) -> Iterator[list[tuple[str, Any]]]:
    """Note what is run or unpickled meanwhile, and what is written outside of `folder`."""
    _watches.append(Watch(str(folder)))
    try:
        yield _watches[-1].seen
    finally:
        _watches.pop()


def test_the_watch_sees_what_it_shall_see(tmp_path: Path) -> None:
    with watched(tmp_path / "inside") as seen, suppress(OSError):
        (tmp_path / "inside").mkdir()
        (tmp_path / "inside" / "a").touch()
        assert not seen
        pickle.loads(pickle.dumps(Path))
        (tmp_path / "b").touch()
        (tmp_path / "inside" / "a").rename(tmp_path / "c")
    assert [event for event, _ in seen] == ["pickle.find_class", "open", "os.rename"]


def test_malformed_streams_in_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder, outcomes = tmp_path / "recording", Counter[str]()
    with Recorder(tmp_path / "warm") as recorder:  # imports are done before anything is watched
        received(malformed(0), recorder)
    with watched(folder) as seen, Recorder(folder) as recorder:
        for seed in range(SEEDS_IN_PROCESS):
            began = time.monotonic()
            outcomes += received(malformed(seed), recorder)
            assert not seen, f"seed {seed}"
            assert time.monotonic() - began < 5, f"seed {seed}"
    assert {path.name for path in tmp_path.iterdir()} <= {"recording", "warm"}
    # Each way was taken often: streams are neither all refused at their first byte nor all harmless.
    for way in ("samples", "bad samples", "ends", "TarStreamError", "StreamCut", "LiveError"):
        assert outcomes[way] > 100, outcomes


def test_malformed_streams_by_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sent: dict[str, bytes] = {}

    def respond(connection: Any, path: str) -> None:
        connection.sendall(sent["status" if path == "/status" else "stream"])
        if path != "/status":
            raise ConnectionResetError

    outcomes = Counter[str]()
    with serving(respond) as address:
        for seed in range(SEEDS_BY_SOCKET):
            rng = random.Random(seed)
            status = answer(json.dumps(STATUS).encode())
            sent["status"] = status if rng.random() < 0.9 else change_bytes(status, rng)
            sent["stream"] = malformed(100_000 + seed)
            dataset = LiveDataset(
                address, timeout_s=0.1, reconnect=False, record=tmp_path / "recording", max_bytes=MOST_BYTES
            )
            threads = threading.active_count()
            with watched(tmp_path / "recording") as seen:
                try:
                    for _ in dataset:
                        outcomes["samples"] += 1
                except ShardError as error:
                    outcomes[type(error).__name__] += 1
            assert not seen, f"seed {seed}"
            assert threading.active_count() <= threads + 5, "listeners end"
    assert {path.name for path in tmp_path.iterdir()} <= {"recording"}
    for way in ("samples", "ShardError", "LiveError"):
        assert outcomes[way] > 20, outcomes
