"""The live tee over real sockets: stock clients read it, groups share it, nobody who connects can harm it."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import webdataset
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from compiler.errors import UsageError
from compiler.live.tee import Policy, Tee, TeeOptions
from loaders.tarstream import END, read_samples, sample_record

ROOT = Path(__file__).resolve().parents[2]
MB = 1 << 20
TOKEN = "0123456789abcdef"


def record(number: int, size: int = 1000) -> bytes:
    return sample_record(f"{number:06d}", {"bin": number.to_bytes(4, "big") * (size // 4)})


def offer(tee: Tee, *numbers: int, size: int = 1000) -> None:
    for number in numbers:
        assert tee.offer(f"{number:06d}", record(number, size))


def address_of(tee: Tee) -> tuple[str, int]:
    parts = urlsplit(tee.address)
    assert parts.hostname
    assert parts.port
    return parts.hostname, parts.port


def get(tee: Tee, path: str = "/status", method: str = "GET", **headers: str) -> tuple[int, bytes]:
    """Return the status and the body of an answer that ends."""
    connection = http.client.HTTPConnection(*address_of(tee), timeout=20)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    due = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < due, "it did not come to pass"
        time.sleep(0.01)


class Listener(threading.Thread):
    """Reads the tee's samples; their numbers in `numbers`, how it ended in `error` (None: cleanly)."""

    def __init__(self, tee: Tee, query: str = "") -> None:
        super().__init__(daemon=True)
        self.numbers: list[int] = []
        self.error: Exception | None = None
        self._connection = http.client.HTTPConnection(*address_of(tee), timeout=20)
        self._connection.request("GET", "/" + query)
        self._response = self._connection.getresponse()  # it is a member of its group from here on
        assert self._response.status == 200
        self.start()

    def run(self) -> None:
        try:
            for sample in read_samples(self._response, whole=["bin"]):
                number = int(sample.key)
                assert sample_record(sample.key, sample.members) == record(number, len(sample.members["bin"]))
                self.numbers.append(number)
            assert self._response.read() == b""  # a cut after the end mark is a cut
        except Exception as error:
            self.error = error
        finally:
            self._connection.close()

    def ended(self) -> list[int]:
        """Return what it got once it has come to a clean end."""
        self.join(20)
        assert not self.is_alive()
        assert self.error is None
        return self.numbers


def until_more(listener: Listener, count: int, seconds: float = 20.0) -> None:
    """Wait until a listener has got more samples than `count`."""
    until(lambda: len(listener.numbers) > count, seconds)


@contextmanager
def curl_to(path: Path, tee: Tee, query: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """Run curl into a file, listening when this is entered."""
    before = tee.status()["connections"]
    with subprocess.Popen(["curl", "-sN", "-o", str(path), tee.address + query]) as process:
        try:
            assert tee.wait_for(before + 1, timeout=20)
            yield process
        finally:
            process.kill()


@contextmanager
def ask(tee: Tee, request: bytes = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n") -> Iterator[socket.socket]:
    """Open a connection, send as given, read nothing."""
    with socket.create_connection(address_of(tee), timeout=20) as connection:
        connection.sendall(request)
        yield connection


def tee_with(policy: Policy = "block", queue_mb: float = 8, **more: object) -> Tee:
    return Tee(TeeOptions(port=0, policy=policy, queue_bytes=int(queue_mb * MB), **more))  # type: ignore[arg-type]


@pytest.mark.parametrize("query", ["", "?group=train"])
def test_webdataset_reads_it_as_it_comes(query: str) -> None:
    with tee_with() as tee:
        got: list[dict[str, Any]] = []
        dataset = webdataset.WebDataset(tee.address + query, shardshuffle=False)
        reader = threading.Thread(target=lambda: got.extend(dataset), daemon=True)
        reader.start()
        assert tee.wait_for(1, timeout=20)
        offer(tee, *range(50))
        assert tee.finish()
        reader.join(20)
    assert [sample["__key__"] for sample in got] == [f"{number:06d}" for number in range(50)]
    assert [sample_record(sample["__key__"], {"bin": sample["bin"]}) for sample in got] == list(map(record, range(50)))


def test_curl_and_tar_read_the_very_bytes_of_a_shard(tmp_path: Path) -> None:
    with tee_with() as tee, curl_to(tmp_path / "live.tar", tee) as curl:
        offer(tee, *range(20))
        assert tee.finish()
        assert curl.wait(20) == 0
    assert (tmp_path / "live.tar").read_bytes() == b"".join(map(record, range(20))) + END
    listing = subprocess.run(["tar", "tf", tmp_path / "live.tar"], capture_output=True, text=True, check=True)
    assert listing.stdout.split() == [f"{number:06d}.bin" for number in range(20)]


def test_a_sample_arrives_before_the_next_is_offered() -> None:
    with tee_with() as tee:
        listener = Listener(tee)
        for number in range(20):
            offer(tee, number)
            until_more(listener, number)


def test_three_listeners_that_come_and_go_get_every_sample_once() -> None:
    # Each asks for a few samples, reads its answer to the end, and is away for a while; one group is never away.
    with tee_with(queue_mb=0.1) as tee:
        whole = Listener(tee, "?group=whole")
        shares: list[list[int]] = []

        def come_and_go(samples: int) -> None:
            while share := Listener(tee, f"?group=shared&samples={samples}").ended():
                assert len(share) <= samples
                shares.append(share)
                time.sleep(0.001 * samples)

        listeners = [threading.Thread(target=come_and_go, args=(samples,), daemon=True) for samples in (1, 7, 20)]
        for thread in listeners:
            thread.start()
        assert tee.wait_for(2, timeout=20)
        offer(tee, *range(600), size=5000)
        assert tee.finish()
        for thread in listeners:
            thread.join(20)
        assert whole.ended() == list(range(600))
    assert sorted(number for share in shares for number in share) == list(range(600))
    assert all(share == sorted(share) for share in shares)


def test_what_a_dying_connection_was_not_sent_whole_goes_to_another_of_its_group() -> None:
    with tee_with(queue_mb=64) as tee, ask(tee, b"GET /?group=a HTTP/1.1\r\nHost: localhost\r\n\r\n") as dying:
        assert tee.wait_for(1, timeout=20)
        offer(tee, 7, size=32 * MB)  # more than the kernel's buffers hold
        until(lambda: tee.status()["groups"][0]["queued_samples"] == 0)
        listener = Listener(tee, "?group=a")
        dying.close()
        assert tee.finish()
        assert listener.ended() == [7]
        assert tee.status()["samples_sent"] == 1


@pytest.mark.parametrize("policy", ["drop", "block"])
def test_a_stopped_listener_costs_what_the_policy_says(policy: Policy, tmp_path: Path) -> None:
    # 150 MB past a queue of 8 MB; with `drop` beside a listener that keeps up, which must not notice.
    count, size = 150, MB
    with tee_with(policy) as tee, curl_to(tmp_path / "live.tar", tee, "?group=stopped") as curl, ExitStack() as traced:
        curl.send_signal(signal.SIGSTOP)
        beside = Listener(tee) if policy == "drop" else None
        slowest = [0.0]
        tracemalloc.start()
        traced.callback(tracemalloc.stop)

        def write() -> None:
            for number in range(count):
                began = time.monotonic()
                offer(tee, number, size=size)
                slowest[0] = max(slowest[0], time.monotonic() - began)
                if beside:
                    until_more(beside, number)

        writer = threading.Thread(target=write, daemon=True)
        writer.start()
        writer.join(1.5 if policy == "block" else 20)
        assert writer.is_alive() == (policy == "block")  # it waits, or has long been done
        _, peak = tracemalloc.get_traced_memory()
        curl.send_signal(signal.SIGCONT)
        writer.join(20)
        assert tee.finish()
        assert curl.wait(20) == 0
        stopped = tee.status()
    assert peak < 8 * MB + 8 * size  # its queue, and the samples on their way
    if beside:
        assert beside.ended() == list(range(count))
        assert slowest[0] < 1
    with (tmp_path / "live.tar").open("rb") as file:
        got = [int(sample.key) for sample in read_samples(file)]
    assert got == sorted(set(got))
    assert len(got) + stopped["samples_dropped"] == count
    assert bool(stopped["samples_dropped"]) == (policy == "drop")
    assert got[-1] == count - 1


def test_an_abort_can_be_told_from_an_end(tmp_path: Path) -> None:
    with tee_with() as tee, curl_to(tmp_path / "live.tar", tee) as curl:
        listener = Listener(tee)
        offer(tee, 0)
        until(lambda: listener.numbers == [0])
        tee.abort()
        assert curl.wait(20) == 18  # "partial file"
        listener.join(20)
        assert isinstance(listener.error, http.client.IncompleteRead)
        with pytest.raises(ConnectionRefusedError):
            get(tee)
        assert not tee.offer("000001", record(1))
        assert "tee" not in {thread.name for thread in threading.enumerate()}


def test_what_counts_as_sent_can_be_read_whatever_comes() -> None:
    with tee_with(queue_mb=64) as tee, ask(tee) as connection:
        assert tee.wait_for(1, timeout=20)
        while not tee.status()["groups"][0]["queued_samples"]:  # until the kernel takes no more
            offer(tee, *range(100), size=20_000)
            time.sleep(0.05)
        tee.abort()
        with connection.makefile("rb") as answer:
            content = answer.read()
        sent = tee.status()["samples_sent"]
    assert content.count(b"ustar") - sent in (0, 1)  # one may have begun


def test_leaving_by_an_error_aborts() -> None:
    with suppress(ZeroDivisionError), tee_with() as tee:
        listener = Listener(tee)
        raise ZeroDivisionError
    listener.join(20)
    assert isinstance(listener.error, http.client.IncompleteRead)


@pytest.mark.parametrize("killed", [False, True])
def test_the_process_ends_and_its_listeners_notice_whatever_becomes_of_it(killed: bool, tmp_path: Path) -> None:
    program = (
        "import sys\nfrom compiler.live.tee import Tee, TeeOptions\n"
        "tee = Tee(TeeOptions(port=0)).__enter__()\nprint(tee.address, flush=True)\nsys.stdin.readline()\n"
    )
    command = [sys.executable, "-c", program]
    with ExitStack() as stack:
        process = stack.enter_context(subprocess.Popen(command, stdin=-1, stdout=-1, cwd=ROOT))
        stack.callback(process.kill)
        assert process.stdout
        address = process.stdout.readline().decode().strip()
        download = ["curl", "-sN", "-D", "-", "-o", str(tmp_path / "live.tar"), address]
        curl = stack.enter_context(subprocess.Popen(download, stdout=-1))
        stack.callback(curl.kill)
        assert curl.stdout
        assert curl.stdout.readline().split()[1] == b"200"
        if killed:
            process.kill()
        else:
            process.communicate(b"\n", timeout=20)
        assert curl.wait(20) == 18
        assert process.wait(20) == (-signal.SIGKILL if killed else 0)


def test_who_comes_after_the_end_gets_the_empty_tar() -> None:
    with tee_with() as tee:
        offer(tee, 0)
        assert tee.finish()
        assert get(tee, "/") == (200, END)
        assert get(tee, "/?group=a") == (200, END)
        assert not tee.offer("000001", record(1))


def test_the_status_says_how_it_stands() -> None:
    with Tee(TeeOptions(port=0), lambda: {"plan_digest": "abc"}) as tee:
        listener = Listener(tee, "?group=train")
        offer(tee, 0, 1)
        until(lambda: tee.status()["samples_sent"] == 2)
        status, body = get(tee)
        assert status == 200
        assert json.loads(body) == tee.status()
        shown = tee.status()
        assert (shown["plan_digest"], shown["last_key"], shown["samples_offered"]) == ("abc", "000001", 2)
        assert [(group["group"], group["connections"]) for group in shown["groups"]] == [("train", 1)]
        tee.finish()
        listener.ended()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/other", 404),
        ("POST", "/", 405),
        ("HEAD", "/", 405),
        ("PUT", "/status", 405),
        ("GET", "/?group=", 400),
        ("GET", "/?group=%2e%2e%2fx", 400),
        ("GET", "/?samples=0", 400),
        ("GET", "/?samples=1e9", 400),
    ],
)
def test_other_requests_are_refused(method: str, path: str, status: int) -> None:
    with tee_with() as tee:
        assert get(tee, path, method)[0] == status
        assert tee.status()["groups"] == []


def test_a_client_that_cannot_tell_an_abort_is_refused() -> None:
    with tee_with() as tee, ask(tee, b"GET / HTTP/1.0\r\n\r\n") as connection:
        assert connection.recv(1000).split()[1] == b"505"


@pytest.mark.parametrize("headers", [{"Sec_Fetch_Site": "cross-site"}, {"Host": "rebound.example:5555"}, {"Host": "["}])
def test_a_page_in_the_users_browser_is_no_listener(headers: dict[str, str]) -> None:
    with tee_with() as tee:
        assert get(tee, "/", **headers)[0] in (400, 403)
        assert get(tee, "/status", Host="localhost:80")[0] == 200


def test_a_token_lets_in_who_shows_it() -> None:
    with tee_with(token=TOKEN) as tee:
        for path in ("/", "/status", f"/status?token={TOKEN}x", "/status?token=", "/other"):
            assert get(tee, path)[0] == 401
        assert get(tee, Authorization=f"Bearer {TOKEN[:-1]}")[0] == 401
        assert get(tee, Authorization=f"Basic {TOKEN}")[0] == 401
        assert get(tee, Authorization=f"Bearer {TOKEN}")[0] == 200
        assert get(tee, f"/status?token={TOKEN}")[0] == 200
        got: list[dict[str, Any]] = []
        dataset = webdataset.WebDataset(f"{tee.address}?token={TOKEN}", shardshuffle=False)
        reader = threading.Thread(target=lambda: got.extend(dataset), daemon=True)
        reader.start()
        assert tee.wait_for(1, timeout=20)
        offer(tee, 0)
        assert tee.finish()
        reader.join(20)
        assert [sample["__key__"] for sample in got] == ["000000"]


def test_other_machines_are_not_let_in_without_a_token() -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org"):
        with pytest.raises(UsageError, match="other machines"):
            TeeOptions(host=host)
    with pytest.raises(UsageError, match="16 or more"):
        TeeOptions(host="0.0.0.0", token="short")
    with tee_with(host="0.0.0.0", token=TOKEN) as tee:
        assert get(tee, Host="elsewhere.example")[0] == 401
        assert get(tee, Host="elsewhere.example", Authorization=f"Bearer {TOKEN}")[0] == 200


def test_a_port_that_is_taken_is_an_error_and_nobody_elses_samples() -> None:
    with tee_with() as tee, pytest.raises(UsageError, match="the port is taken") as caught:
        Tee(TeeOptions(port=address_of(tee)[1])).__enter__()
    assert "another port" in caught.value.hint
    with pytest.raises(UsageError, match=r"no\.such\.host\.invalid"):
        Tee(TeeOptions(host="no.such.host.invalid", token=TOKEN)).__enter__()


def test_a_port_can_be_used_again_at_once() -> None:
    with tee_with() as tee:
        listener = Listener(tee)
        offer(tee, 0)
        tee.finish()
    listener.ended()
    with Tee(TeeOptions(port=address_of(tee)[1])):
        pass


def test_idle_and_slow_connections_neither_hurt_nor_stay() -> None:
    with tee_with(request_timeout_s=1.0) as tee, ExitStack() as stack:
        listener = Listener(tee)
        idle = [stack.enter_context(ask(tee, b"")) for _ in range(100)]
        loris = [stack.enter_context(ask(tee, b"GET / HTTP/1.1\r\nX: ")) for _ in range(20)]
        for number in range(15):  # more than the time that they have
            for connection in loris:
                with suppress(OSError):
                    connection.send(b"x")
            offer(tee, number)
            until_more(listener, number, 1.0)
            time.sleep(0.1)
        for connection in (*idle, *loris):
            with suppress(ConnectionResetError):
                assert connection.recv(1) == b""
        assert tee.finish()
        assert listener.ended() == list(range(15))


def test_the_number_of_connections_is_bounded() -> None:
    with tee_with(max_connections=10) as tee, ExitStack() as stack:
        listener = Listener(tee)
        for _ in range(9):
            stack.enter_context(ask(tee))
        assert tee.wait_for(10, timeout=20)
        with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
            get(tee)
        stack.close()  # those who go make room
        until(lambda: tee.status()["connections"] == 1)
        assert get(tee)[0] == 200
        offer(tee, 0)
        assert tee.finish()
        assert listener.ended() == [0]


PARTS = [
    b"GET / HTTP/1.1\r\n",
    b"GET /status HTTP/1.1\r\n",
    b"POST /?group=a HTTP/1.1\r\n",
    b"GET /?group=%00&samples=-1 HTTP/1.1\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"Host: localhost\r\n",
    b"Host: \xff\r\n",
    b"Content-Length: 99999999999999999999\r\n",
    b"Content-Length: -1\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Expect: 100-continue\r\n",
    b"Upgrade: websocket\r\nConnection: Upgrade\r\n",
    b"Authorization: Bearer \xff\r\n",
    b"X: " + b"a" * 10_000 + b"\r\n",
    b"X: y\r\n" * 500,
    b"\r\n",
    b"fffffffffffffffff\r\n",
    b"\0",
]
"""Requests come apart into these; most ways to put them together again are wrong."""

MALFORMED = st.one_of(
    st.binary(max_size=300),
    st.lists(st.one_of(st.sampled_from(PARTS), st.binary(max_size=8)), max_size=10).map(b"".join),
)


def test_malformed_requests_do_no_harm() -> None:
    with tee_with(request_timeout_s=2.0) as tee:
        listener = Listener(tee, "?group=good")

        @settings(max_examples=400, suppress_health_check=list(HealthCheck))
        @given(content=MALFORMED)
        @example(content=b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000)
        @example(content=b"GET /" + b"a" * MB)
        def throw(content: bytes) -> None:
            with suppress(ConnectionError), ask(tee, content) as connection:
                with suppress(OSError):  # it has been cut
                    connection.shutdown(socket.SHUT_WR)
                connection.recv(65536)  # what it answers, or nothing
            number = len(listener.numbers)
            offer(tee, number)
            until_more(listener, number, 2.0)

        throw()
        assert get(tee)[0] == 200
        until(lambda: tee.status()["connections"] == 1)
        assert tee.finish()
        assert listener.ended() == list(range(tee.status()["samples_offered"]))
