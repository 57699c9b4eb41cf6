"""LiveDataset from real tees, with real workers, and from servers that do what no tee does."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import webdataset
from torch.utils.data import DataLoader

from loaders import (
    IndexedShards,
    LiveDataset,
    LiveError,
    Manifest,
    ShardDataset,
    ShardError,
    SkipWarning,
    collate,
    finish_recording,
    rebuild_shards,
)
from loaders.manifest import FILE_NAME
from loaders.tarstream import END, sample_record
from tests.live_tees import Compiler, beside, free_port
from tests.raw_servers import CHUNKED, Answer, answer, chunk, sending, serving, telling
from tests.synthetic import image_bytes, pixels_of, tiny_members

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "0123456789abcdef"
CLOSING = "200 OK\r\nConnection: close"
GOOD, NEXT = (Compiler(members=tiny_members).record(number) for number in range(2))

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


def live(address: str | list[str], **options: Any) -> LiveDataset:
    return LiveDataset(address, **{"timeout_s": 20, **options})


def keys_of(samples: Any) -> list[str]:
    return [sample["key"] for sample in samples]


def loaded(dataset: LiveDataset, workers: int, batch: int = 2, **options: Any) -> list[str]:
    """Return the keys that a DataLoader gives."""
    loader = DataLoader(dataset, batch_size=batch, num_workers=workers, collate_fn=collate, **options)
    return [key for given in loader for key in given["key"]]


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    due = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < due, "it did not come to pass"
        time.sleep(0.02)


# The samples


def equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Tell whether two samples are the same in names, types, values, and the memory layout of tensors."""

    def alike(left: Any, right: Any) -> bool:
        if isinstance(left, torch.Tensor):
            return left.dtype == right.dtype and left.stride() == right.stride() and torch.equal(left, right)
        return type(left) is type(right) and bool(left == right)

    return list(one) == list(other) and all(alike(one[name], other[name]) for name in one)


def test_shards_index_live_and_recording_give_the_same_tensors(tmp_path: Path) -> None:
    with Compiler(folder=tmp_path / "shards").listening() as compiler, beside(compiler.run):
        samples = list(live(compiler.address, record=tmp_path / "recording"))
    assert keys_of(samples) == compiler.keys
    assert {type(value) for value in samples[0].values()} == {str, torch.Tensor, dict, bytes}
    for folder in (tmp_path / "shards", tmp_path / "recording"):
        indexed = IndexedShards(folder)
        shards = {sample["key"]: sample for sample in ShardDataset(folder)}
        assert all(equal(sample, indexed[sample["key"]]) for sample in samples)
        assert all(equal(sample, shards[sample["key"]]) for sample in samples)


def test_every_option_of_decoding_is_the_shards(tmp_path: Path) -> None:
    options: dict[str, Any] = {"image_layout": "HWC", "output": "numpy", "members": ["image", "annotations"]}
    with Compiler(folder=tmp_path).listening() as compiler, beside(compiler.run):
        samples = list(live(compiler.address, transform=lambda sample: sample["image"].tobytes(), **options))
    assert samples == [sample["image"].tobytes() for sample in ShardDataset(tmp_path, shuffle=False, **options)]


@pytest.mark.parametrize("workers", [0, 1])
def test_each_sample_is_given_on_arrival(workers: int) -> None:
    with Compiler().listening() as compiler:
        dataset = live(compiler.address)
        given = iter(DataLoader(dataset, batch_size=None, num_workers=workers, prefetch_factor=2 if workers else None))
        due = threading.Timer(20, compiler.tee.abort)  # if it holds one back, this fails and does not hang
        due.start()
        with beside(compiler.offer_when_heard, 0):
            assert next(given)["key"] == compiler.key(0)
        for number in range(1, 5):
            compiler.offer(number)
            assert next(given)["key"] == compiler.key(number)
        with beside(compiler.tee.finish):
            assert not list(given)
        due.cancel()


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_workers_share_the_samples_and_datasets_get_all(workers: int) -> None:
    with Compiler(shards=10, members=tiny_members).listening() as compiler:
        with beside(compiler.run, listeners=max(1, workers) + 1):
            others: list[str] = []
            with beside(lambda: others.extend(keys_of(live(compiler.address)))):
                assert sorted(loaded(live(compiler.address), workers)) == compiler.keys
        assert others == compiler.keys


def test_ranks_share_a_group_that_is_named() -> None:
    with pytest.raises(ValueError, match="rank 0 of 2: name the group"):
        live("http://127.0.0.1:1", rank=0, world_size=2)
    with Compiler(members=tiny_members).listening() as compiler, beside(compiler.run, listeners=2):
        ranks = [live(compiler.address, group="train", rank=rank, world_size=2) for rank in range(2)]
        others: list[str] = []
        with beside(lambda: others.extend(keys_of(ranks[1]))):
            mine = keys_of(ranks[0])
    assert sorted(mine + others) == compiler.keys
    assert [len(rank.stream_length(7)) for rank in ranks] == [4, 3]


def test_several_compilers_are_listened_to_at_once() -> None:
    with ExitStack() as stack:
        compilers = [stack.enter_context(Compiler(seed=seed, members=tiny_members).listening()) for seed in range(3)]
        given: list[str] = []
        addresses = [compiler.address for compiler in compilers]
        with beside(lambda: given.extend(loaded(live(addresses), workers=2))):
            for number in range(20):  # each is given before the next compiler goes on
                for compiler in compilers:
                    if not number:
                        assert compiler.tee.wait_for(2, timeout=20)
                    compiler.offer(number)
            for compiler in compilers:
                assert compiler.tee.finish()
    assert Counter(given) == Counter(compilers[0].keys * 3)


# Lengths


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_stream_length_is_exact_and_the_next_loop_goes_on(workers: int) -> None:
    with Compiler(shards=20, members=tiny_members).listening() as compiler:
        dataset = live(compiler.address).stream_length(32)
        assert len(dataset) == 32
        with beside(compiler.offer_when_heard, *compiler.numbers[:96]):
            loops = [loaded(dataset, workers, batch=3) for _ in range(3)]
        assert [len(loop) for loop in loops] == [32, 32, 32]
        assert sorted(key for loop in loops for key in loop) == compiler.keys[:96], "none is lost between loops"
        if workers:
            assert len(loaded(dataset.stream_length(0), workers)) == 0


def test_stream_length_counts_what_is_given_over_all_addresses() -> None:
    # Half of the samples are left out by the transform, and the length is still exact.
    def even(sample: dict[str, Any]) -> dict[str, Any] | None:
        return None if sample["annotations"]["frame"] % 2 else sample

    with ExitStack() as stack:
        compilers = [
            stack.enter_context(Compiler(shards=40, seed=seed, members=tiny_members).listening()) for seed in range(2)
        ]
        for compiler in compilers:
            stack.enter_context(beside(compiler.compile_when_heard, listeners=2))
        dataset = live([compiler.address for compiler in compilers], transform=even)
        assert len(loaded(dataset.stream_length(61), workers=2)) == 61
        assert len(keys_of(live(compilers[0].address, transform=even, group="a").stream_length(0))) == 0


def test_a_dataset_that_ends_early_says_so() -> None:
    with (
        Compiler(members=tiny_members).listening() as compiler,
        beside(compiler.run),
        pytest.warns(UserWarning, match="ended 5 samples before the stream_length"),
    ):
        assert len(list(live(compiler.address).stream_length(25))) == 20
    with pytest.raises(TypeError, match="no length"):
        len(live(compiler.address))


# Coming and going


def test_it_waits_for_a_compiler_that_comes_later() -> None:
    port = free_port()

    def come() -> None:
        time.sleep(0.5)
        with compiler.listening(port=port):
            compiler.run()

    compiler = Compiler(members=tiny_members)
    with beside(come):
        assert keys_of(live(f"http://127.0.0.1:{port}")) == compiler.keys


@pytest.mark.parametrize("workers", [0, 1])
def test_a_compiler_that_does_not_come_is_an_error_that_says_what_to_start(workers: int) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    said = rf"no compiler at {address} in 0\.3 s \(Connection refused\); start one there: compile-dataset .*{address}"
    with pytest.raises(LiveError, match=said):
        loaded(live(address, timeout_s=0.3), workers)


def test_an_abort_is_an_error() -> None:
    for options, said in (({"reconnect": False}, "was cut before"), ({"timeout_s": 0.5}, "did not resume in 0.5 s")):
        with Compiler().listening() as compiler:
            given = iter(live(compiler.address, **options))
            with beside(compiler.offer_when_heard, 0):
                next(given)
            compiler.tee.abort()
            with pytest.raises(LiveError, match=said):
                next(given)


def test_it_goes_on_when_the_compiler_comes_back() -> None:
    compiler, port = Compiler(members=tiny_members), free_port()
    with compiler.listening(port=port):
        given = iter(live(compiler.address))
        with beside(compiler.offer_when_heard, 0, 1):
            assert keys_of([next(given), next(given)]) == compiler.keys[:2]

    def come_back() -> None:
        time.sleep(0.5)
        with compiler.listening(port=port):
            compiler.run()

    with beside(come_back):
        assert keys_of(given) == compiler.keys


def test_a_port_that_changed_hands_is_an_error_that_names_both() -> None:
    port = free_port()
    first, second = Compiler(seed=1), Compiler(seed=2)

    def keep_offering() -> None:
        for _ in range(20):
            second.offer(0)
            time.sleep(0.05)

    digests = first.manifest.plan_digest[:16], second.manifest.plan_digest[:16]
    dataset = live(f"http://127.0.0.1:{port}").stream_length(1)
    with first.listening(port=port), beside(first.offer_when_heard, 0, 1):
        assert loaded(dataset, workers=1) == [first.key(0)]
    with second.listening(port=port), beside(keep_offering):
        with pytest.raises(LiveError, match=rf"serves plan {digests[1]}\.\.\., not {digests[0]}\.\.\. as before"):
            list(dataset)  # no worker of the first loop is there to remember
        with pytest.raises(LiveError, match="as requested"):
            list(live(f"http://127.0.0.1:{port}", plan_digest=first.manifest.plan_digest).stream_length(1))


def test_a_worker_that_comes_after_the_end_finds_nothing_and_no_error() -> None:
    # The second worker starts when the tee is gone; what the first one saw tells it that the dataset has ended.
    with Compiler(members=tiny_members).listening() as compiler:
        dataset = live(compiler.address, timeout_s=0.5)
        gone = threading.Event()

        def compile_and_go() -> None:
            compiler.run()
            compiler.tee.abort()
            gone.set()

        with beside(compile_and_go):
            given = loaded(dataset, workers=2, batch=20, worker_init_fn=_second_is_late)
        assert gone.wait(0)
        assert sorted(given) == compiler.keys
    with pytest.raises(LiveError, match="its dataset ended in an earlier epoch"):
        list(dataset)


def _second_is_late(worker: int) -> None:
    time.sleep(1.5 * worker)


def test_workers_that_are_not_asked_do_not_hold_up_the_end() -> None:
    # A DataLoader waits for the first worker, which comes late. The second one, which it does not ask, has all samples
    # on their way to it; the last is too large for the kernel and stays in the tee's hand until it is read.
    def members(number: int) -> dict[str, bytes]:
        return {"bin": bytes(24 << 20), "json": b'{"frame": %d}' % number}

    with Compiler(shards=1, per_shard=6, members=members).listening(grace_s=10) as compiler:
        dataset = live(compiler.address, members=["annotations"])
        began = time.monotonic()
        with beside(compiler.run):
            given = loaded(dataset, workers=2, batch=1, worker_init_fn=_first_is_late)
        assert sorted(given) == compiler.keys  # the first worker receives some if the machine is busy
        assert time.monotonic() - began < 15


def _first_is_late(worker: int) -> None:
    time.sleep(1.5 * (1 - worker))


def test_persistent_and_spawned_workers() -> None:
    with Compiler(members=tiny_members).listening() as compiler:
        dataset = live(compiler.address).stream_length(5)
        loader = DataLoader(
            dataset, None, num_workers=1, persistent_workers=True, multiprocessing_context="spawn", timeout=60
        )
        with beside(compiler.offer_when_heard, *compiler.numbers):
            given = [keys_of(loader)]
        dataset.stream_length(9)
        given.append(keys_of(loader))
    assert given == [compiler.keys[:5], compiler.keys[5:14]]


def test_workers_do_not_outlive_a_training_that_is_killed() -> None:
    program = (
        "import sys, loaders\nfrom torch.utils.data import DataLoader\n"
        "dataset = loaders.LiveDataset(sys.argv[1])\n"
        "for _ in DataLoader(dataset, num_workers=2): pass\n"
    )
    with Compiler().listening() as compiler:
        with subprocess.Popen([sys.executable, "-c", program, compiler.address], cwd=ROOT) as training:
            assert compiler.tee.wait_for(2, timeout=60)
            training.kill()
        until(lambda: compiler.tee.status()["connections"] == 0)


def test_leaving_a_loop_leaves_no_thread_and_no_connection() -> None:
    with Compiler(members=tiny_members).listening() as compiler:
        given: Any = iter(live(compiler.address))
        with beside(compiler.compile_when_heard):
            next(given)
        given.close()
        until(lambda: compiler.tee.status()["connections"] == 0)
        assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("live ")]


# Who may be listened to


def test_a_token_is_shown() -> None:
    with Compiler(members=tiny_members).listening(token=TOKEN) as compiler:
        for token in (None, TOKEN[:-1] + "x"):
            with pytest.raises(LiveError, match="requires a token"):
                list(live(compiler.address, token=token))
        with beside(compiler.run):
            assert keys_of(live(compiler.address, token=TOKEN)) == compiler.keys


@pytest.mark.skipif(shutil.which("openssl") is None, reason="a certificate is made with openssl")
def test_https(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command: list[Any] = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-keyout", key]
    subprocess.run([*command, "-out", certificate, *subject], check=True, capture_output=True)
    with Compiler(members=tiny_members).listening(token=TOKEN) as compiler:
        port = int(compiler.address.rsplit(":", 1)[1].strip("/"))
        with _tls_before(port, certificate, key) as address:
            with pytest.raises(LiveError, match="certificate verify failed"):
                list(live(address, token=TOKEN, timeout_s=0.2))
            monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
            with beside(compiler.run):
                assert keys_of(live(address, token=TOKEN, timeout_s=0.5)) == compiler.keys


@contextmanager
def _tls_before(port: int, certificate: Path, key: Path) -> Iterator[str]:
    """Relay TLS connections to a port, the server's side with a pause that is longer than the listener's patience."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    def pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while content := source.recv(65536):
                target.sendall(content)
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)

    def relay(plain: socket.socket) -> None:
        address = ("127.0.0.1", port)
        with (
            suppress(OSError),
            context.wrap_socket(plain, server_side=True) as near,
            socket.create_connection(address) as far,
        ):
            back = threading.Thread(target=pump, args=(far, near), daemon=True)
            back.start()
            pump(near, far)
            back.join(20)

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(target=relay, args=(listener.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"https://localhost:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    "respond",
    [
        sending(answer(b"not found", "404 Not Found")),
        sending(answer(b"", "302 Found\r\nLocation: http://127.0.0.1:1/status")),
        sending(answer(b"<html>")),
        sending(answer(b'{"finished": false}')),
        sending(answer(b'{"plan": {"a": NaN}, "schema": {}, "name": "", "plan_digest": ""}')),
        sending(answer(b"[" * 100_000)),
        sending(answer(b"1" * 100_000)),
        sending(CHUNKED + chunk(b" " * (1 << 20)) * 9 + chunk(b"")),
    ],
    ids=["404", "redirect", "page", "other", "nan", "deep", "long", "endless"],
)
def test_what_is_no_tee_is_an_error_at_once(respond: Answer) -> None:
    with serving(respond) as address, pytest.raises(LiveError, match=f"{address} is not a live tee of compile-dataset"):
        list(live(address))


@pytest.mark.parametrize(
    "change",
    [
        {"plan": {"seed": 9}},
        {"plan_digest": 7},
        {"schema": {"members": {}}},
        {"schema": {"members": {"../png": {}}}},
        {"schema": {"members": {f"m{number}": {} for number in range(1000)}}},
        {"shards_wanted": -1},
        {"shards_wanted": True},
        {"name": None},
        {"finished": "no"},
    ],
    ids=str,
)
def test_a_status_is_checked(change: dict[str, Any]) -> None:
    status = {**Compiler().describe(), **change}
    with serving(telling(status, sending())) as address, pytest.raises(LiveError, match="is not a live tee"):
        list(live(address))


def test_the_samples_come_from_the_server_that_told_its_plan() -> None:
    # It closes the connection after that: a new one might lead elsewhere.
    status = answer(json.dumps({**Compiler(members=tiny_members).describe(), "finished": False}).encode(), CLOSING)
    stream = sending(CHUNKED, chunk(GOOD), chunk(END), chunk(b""))

    def respond(connection: socket.socket, path: str) -> None:
        (sending(status) if path == "/status" else stream)(connection, path)

    with serving(respond) as address, pytest.raises(LiveError, match="did not resume"):
        list(live(address, timeout_s=0.3))


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:5555", "is not the address"),
        ("ftp://127.0.0.1", "is not the address"),
        ("file:///etc/passwd", "is not the address"),
        ("http://127.0.0.1:99999", "is not the address"),
        ("http://127.0.0.1:5555/\r\nX: y", "is not the address"),
        ("http://[::1", "is not the address"),
        ("http://127.0.0.1:5555/?group=a", "pass the group as group="),
        ("http://me@127.0.0.1:5555/", "is more than an address"),
    ],
)
def test_wrong_addresses(address: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        LiveDataset(address)


def test_wrong_options() -> None:
    wrong: list[Any] = [{"group": "a b"}, {"group": ""}, {"token": "a\r\nb"}, {"timeout_s": 0}, {"on_error": "hide"}]
    for options in wrong:
        with pytest.raises(ValueError, match=r"group|token|timeout_s|on_error"):
            LiveDataset("http://127.0.0.1:1", **options)
    with pytest.raises(ValueError, match="cannot have -1 samples"):
        LiveDataset("http://127.0.0.1:1").stream_length(-1)


# Faults


def streaming(*parts: bytes, compiler: Compiler | None = None) -> Answer:
    """Return a tee whose stream is these pieces and then closes."""
    return telling((compiler or Compiler(members=tiny_members)).describe(), sending(CHUNKED, *parts))


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ([chunk(GOOD)], "was cut"),
        ([chunk(GOOD), b"400\r\nabc"], "was cut"),
        ([chunk(GOOD), chunk(END)], "was cut"),
        ([chunk(GOOD), b"zz\r\n"], "was cut"),
        ([chunk(GOOD), chunk(b"")], "no end mark"),
        ([chunk(GOOD), chunk(NEXT[:700]), chunk(b"")], "cut short in"),
        ([chunk(GOOD), chunk(END + b"more"), chunk(b"")], "continues after its end mark"),
        ([chunk(GOOD), chunk(b"x" * 512)], "not a tar header"),
        ([chunk(GOOD), chunk(sample_record("b", {"pkl": b"cos\nsystem\n."}))], r"'b\.pkl' is not one of"),
        ([chunk(GOOD), b"-1\r\n" + b"x" * 4096], "not a tar header|was cut"),
    ],
)
def test_a_broken_stream_is_an_error_that_names_the_address(parts: list[bytes], said: str) -> None:
    with serving(streaming(*parts)) as address:
        given = iter(live(address, reconnect=False))
        assert next(given)["key"] == "000000-000000"
        with pytest.raises(ShardError, match=f"(?s){address}.*({said})"):
            list(given)


@pytest.mark.parametrize("key", ["../../evil", "a/b", "/etc/cron", "a\x01b", "a b"])
def test_names_that_are_paths_are_refused(key: str, tmp_path: Path) -> None:
    record = bytearray(GOOD)
    name = f"{key}.json".encode()
    record[:100] = name.ljust(100, b"\0")
    record[148:156] = b"%06o\0 " % (sum(record[:148]) + 8 * 32 + sum(record[156:512]))
    (tmp_path / "a" / "b").mkdir(parents=True)
    with serving(streaming(chunk(bytes(record)))) as address, pytest.raises(ShardError, match=r"name|key"):
        list(live(address, record=tmp_path / "a" / "b" / "recording", reconnect=False))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_sizes_are_bounded_before_anything_is_allocated() -> None:
    header = sample_record("a", {"json": b""})[:512]
    huge = bytearray(header)
    huge[124:136] = b"\x80" + bytes(3) + (1 << 62).to_bytes(8, "big")  # the GNU way to say more than 8 GiB
    huge[148:156] = b"%06o\0 " % (sum(huge[:148]) + 8 * 32 + sum(huge[156:512]))
    for parts, options in (
        ([chunk(bytes(huge))], {}),
        ([chunk(sample_record("a", {"json": bytes(4096)}))], {"max_bytes": 4000}),
        ([b"-1\r\n", bytes(32 << 20)], {}),  # http.client alone would keep all that comes
        ([b"7fffffffffffffff\r\n"], {}),
        ([b"a" * 100_000], {}),
    ):
        tracemalloc.start()
        with serving(streaming(*parts)) as address, pytest.raises(ShardError):
            list(live(address, reconnect=False, **options))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 40 << 20, parts[0][:20]  # 32 of them are the server's own


@pytest.mark.parametrize(
    "head", [[b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 1000], [b"HTTP/1.1 100 Continue\r\n\r\n" * 1000], [b"\0" * 100_000]]
)
def test_a_head_that_does_not_end_is_given_up(head: list[bytes]) -> None:
    with serving(telling(Compiler().describe(), sending(*head))) as address, pytest.raises(LiveError):
        list(live(address, timeout_s=0.3))


def test_a_head_that_drips_is_given_up() -> None:
    def drip(connection: socket.socket, path: str) -> None:
        for _ in range(200):
            connection.sendall(b"H")
            time.sleep(0.05)

    began = time.monotonic()
    with serving(drip) as address, pytest.raises(LiveError, match=r"no answer in 1 s"):
        list(live(address, timeout_s=1))
    assert time.monotonic() - began < 1.8


def test_a_stream_that_stalls_is_given_up_unless_the_tee_answers() -> None:
    stall, silent = threading.Event(), threading.Event()

    def hold(connection: socket.socket, _: str) -> None:
        connection.sendall(CHUNKED + chunk(GOOD) + b"400\r\nhalf of a")
        stall.wait(20)

    tell = telling(Compiler(members=tiny_members).describe(), hold)

    def respond(connection: socket.socket, path: str) -> None:
        if silent.is_set():
            stall.wait(20)
        tell(connection, path)

    with serving(respond) as address:
        given = iter(live(address, timeout_s=0.4, reconnect=False))
        assert next(given)["key"] == "000000-000000"
        threading.Timer(1.5, silent.set).start()  # until then it answers, and is borne with
        began = time.monotonic()
        with pytest.raises(LiveError, match=r"silent for . s, and a status request failed: no answer"):
            next(given)
        assert 1.5 < time.monotonic() - began < 10
        stall.set()


def test_a_tee_may_be_silent_for_longer_than_the_timeout() -> None:
    def render() -> None:
        assert compiler.tee.wait_for(1, timeout=20)
        time.sleep(1.2)
        compiler.offer(0)

    with Compiler().listening() as compiler, beside(render):
        assert next(iter(live(compiler.address, timeout_s=0.3)))["key"] == compiler.key(0)


@pytest.mark.filterwarnings("ignore:skipped:loaders.SkipWarning")  # they are raised in workers
def test_damage_is_skipped_counted_and_reported() -> None:
    def members(number: int) -> dict[str, bytes]:
        return {"png": b"no image" if number % 10 == 3 else image_bytes(pixels_of(number))}

    damaged = pytest.raises(ShardError, match=r"http://127\.0\.0\.1:\d+: .*3\.png: not")
    with Compiler(members=members).listening() as compiler, beside(compiler.compile_when_heard), damaged:
        list(live(compiler.address))
    with Compiler(members=members).listening() as compiler, beside(compiler.run, listeners=2):
        dataset = live(compiler.address, on_error="skip")
        assert len(loaded(dataset, workers=2)) == 18
    assert dataset.skipped == 2


def test_a_broken_stream_is_skipped_and_listened_to_again() -> None:
    rounds = iter(range(100))
    compiler = Compiler(members=tiny_members)

    def stream(connection: socket.socket, _: str) -> None:
        number = next(rounds)
        rest = [chunk(b"garbage" * 100)] if number < 5 else [chunk(END), chunk(b"")]
        connection.sendall(CHUNKED + chunk(compiler.record(number)))
        time.sleep(0.0 if number else 0.6)  # a stream that worked for long may fail, too
        sending(*rest)(connection, "")

    with serving(telling(compiler.describe(), stream)) as address:
        dataset = live(address, on_error="skip", timeout_s=0.3)
        with pytest.warns(SkipWarning, match="not a tar header"):
            assert keys_of(dataset) == compiler.keys[:6]
    assert dataset.skipped == 5


# Recording


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset's
def test_workers_record_what_they_get_into_shards_of_their_own(tmp_path: Path) -> None:
    folder = tmp_path / "recording"
    compiler = Compiler(folder=tmp_path / "shards", shards=6)
    with compiler.listening(), beside(compiler.run, listeners=3):
        assert sorted(loaded(live(compiler.address, record=folder), workers=3, batch=1)) == compiler.keys
    manifest = Manifest.load(folder)
    assert manifest.plan_digest == compiler.manifest.plan_digest
    assert manifest.samples == 30
    assert len(manifest.shards) == 3
    assert {path.name for path in folder.iterdir()} == {
        FILE_NAME,
        ".recording.lock",
        *(s.name for s in manifest.shards),
    }
    assert sorted(keys_of(ShardDataset(folder, verify=True))) == compiler.keys
    paths = [str(folder / shard.name) for shard in manifest.shards]
    plain = list(webdataset.WebDataset(paths, shardshuffle=False))
    assert sorted(sample["__key__"] for sample in plain) == compiler.keys

    rebuilt = rebuild_shards(folder, tmp_path / "rebuilt")
    assert rebuilt.shards == compiler.manifest.shards, "names, bytes, and digests of file and content"
    for shard in rebuilt.shards:
        assert (tmp_path / "rebuilt" / shard.name).read_bytes() == (tmp_path / "shards" / shard.name).read_bytes()


def test_a_recording_is_gone_on_with_and_counts_a_sample_once(tmp_path: Path) -> None:
    folder = tmp_path / "recording"
    for shards in ([0, 1], [1, 2]):
        with Compiler().listening() as compiler, beside(compiler.run, *shards):
            assert len(list(live(compiler.address, record=folder))) == 10
    assert Manifest.load(folder).samples == 20
    rebuilt = rebuild_shards(folder, tmp_path / "rebuilt")
    assert [shard.number for shard in rebuilt.shards] == [0, 1, 2]
    with pytest.raises(ShardError, match="is not empty"):
        rebuild_shards(folder, tmp_path / "rebuilt")


def test_a_shard_that_lacks_a_sample_is_not_rebuilt(tmp_path: Path) -> None:
    with Compiler().listening() as compiler:
        dataset = live(compiler.address, record=tmp_path / "recording").stream_length(7)
        with beside(compiler.compile_when_heard):
            list(dataset)
    with pytest.warns(SkipWarning, match="left out shard 1: 2 of 5 samples"):
        rebuilt = rebuild_shards(tmp_path / "recording", tmp_path / "rebuilt")
    assert (tmp_path / "rebuilt" / rebuilt.shards[0].name).read_bytes() == compiler.shard_bytes(0)


def test_what_a_killed_recorder_had_received_is_not_lost(tmp_path: Path) -> None:
    program = (
        "import sys, loaders\n"
        "for sample in loaders.LiveDataset(sys.argv[1], record=sys.argv[2]): print(sample['key'], flush=True)\n"
    )
    command = [sys.executable, "-c", program]
    with (
        Compiler().listening() as compiler,
        subprocess.Popen([*command, compiler.address, tmp_path / "a"], cwd=ROOT, stdout=-1) as recorder,
    ):
        assert compiler.tee.wait_for(1, timeout=60)
        compiler.offer(*range(8))
        assert recorder.stdout
        for number in range(8):
            assert recorder.stdout.readline().decode().strip() == compiler.key(number)
        recorder.kill()
    part = next((tmp_path / "a").glob("*.part"))
    with part.open("ab") as file:
        file.write(compiler.record(8)[:1000])  # and half of one more
    assert finish_recording(tmp_path / "a").samples == 8
    assert sorted(keys_of(ShardDataset(tmp_path / "a", verify=True))) == compiler.keys[:8]
    assert not list((tmp_path / "a").glob("*.part*"))


def test_a_loop_that_is_left_commits_what_it_received(tmp_path: Path) -> None:
    with Compiler().listening() as compiler:
        given: Any = iter(live(compiler.address, record=tmp_path))
        with beside(compiler.compile_when_heard):
            taken = [next(given)["key"] for _ in range(5)]
        given.close()
    assert keys_of(ShardDataset(tmp_path, shuffle=False)) == taken


def test_it_records_nowhere_else(tmp_path: Path) -> None:
    compiler = Compiler(folder=tmp_path / "shards")
    compiler.commit(0)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    for folder, said in (
        ("shards", "not a recording"),
        ("mine", "holds other files"),
        ("mine/notes.txt", "not a directory"),
    ):
        with pytest.raises(ShardError, match=said):
            live("http://127.0.0.1:1", record=tmp_path / folder)
    other = pytest.raises(ShardError, match="record each dataset into its own directory")
    outcomes: list[Any] = [nullcontext(), other]
    for seed, outcome in enumerate(outcomes):
        with Compiler(seed=seed).listening() as compiler, beside(compiler.compile_when_heard), outcome:
            list(live(compiler.address, record=tmp_path / "recording").stream_length(3))


def test_a_full_disk_is_an_error_also_when_skipping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    with Compiler().listening() as compiler, beside(compiler.compile_when_heard):
        monkeypatch.setattr("loaders._tee.recording.os.fsync", full)
        with pytest.raises(ShardError, match=r"cannot record in .*: No space left on device"):
            list(live(compiler.address, record=tmp_path / "recording", on_error="skip").stream_length(3))
