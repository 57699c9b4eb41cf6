"""Throughput of the live tee and its cost for the compiler, compared with a bare socket in the same run.

    python benchmarks/tee.py [--megabytes 1024] [--sample-kb 300] [--rounds 3]

Each listener is a separate process that discards what it reads. The policy is ``block``, so every byte arrives.
CPU is that of the sending process, over all its threads, for each MB (10^6 bytes) offered, not sent.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import socket
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from compiler.live.tee import Tee, TeeOptions
from loaders.tarstream import sample_record

_REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"

_DISTINCT = 100
"""Different samples, so that they do not all stay in the processor's cache."""


@dataclass(frozen=True)
class Measured:
    """One way of sending, measured once."""

    seconds: float
    cpu_seconds: float


def listen(port: int) -> None:
    """Be one listener: ask, then read until the connection ends."""
    buffer = bytearray(1 << 20)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(_REQUEST)
        while connection.recv_into(buffer):
            pass


@contextmanager
def listeners(port: int, count: int) -> Iterator[None]:
    """Start this many listeners; at the end, wait until each has read everything."""
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=listen, args=(port,)) for _ in range(count)]
    for process in processes:
        process.start()
    yield
    for process in processes:
        process.join()


def through_socket(records: Sequence[bytes], count: int) -> Measured:
    """Send everything to each listener with `sendall`, in one thread each."""

    def send(connection: socket.socket) -> None:
        with connection:
            for record in records:
                connection.sendall(record)

    with socket.create_server(("127.0.0.1", 0)) as server:
        with listeners(server.getsockname()[1], count), ThreadPoolExecutor(count) as pool:
            connections = [server.accept()[0] for _ in range(count)]
            for connection in connections:
                connection.recv(len(_REQUEST))
            began, cpu = time.perf_counter(), time.process_time()
            list(pool.map(send, connections))
        return Measured(time.perf_counter() - began, time.process_time() - cpu)


def through_tee(records: Sequence[bytes], count: int) -> Measured:
    """Offer everything to a tee with this many listeners, each in its own group."""
    with Tee(TeeOptions(port=0, policy="block")) as tee:
        port = int(tee.address.rpartition(":")[2])
        with listeners(port, count):
            tee.wait_for(count)
            began, cpu = time.perf_counter(), time.process_time()
            for number, record in enumerate(records):
                tee.offer(f"{number:06d}", record)
            if not tee.finish():
                raise SystemExit("not all of it arrived")
        return Measured(time.perf_counter() - began, time.process_time() - cpu)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--sample-kb", type=int, default=300, help="about a PNG of 640x480 with its keypoints")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    contents = [os.urandom(given.sample_kb * 1000) for _ in range(_DISTINCT)]
    some = [sample_record("000000-000000", {"png": content}) for content in contents]
    records = some * (given.megabytes * 1_000_000 // sum(map(len, some)))
    megabytes = sum(map(len, records)) / 1e6
    ways: dict[str, Callable[[Sequence[bytes], int], Measured]] = {"sendall": through_socket, "tee": through_tee}
    print(f"{megabytes:.0f} MB in samples of {given.sample_kb} kB, median of {given.rounds} rounds")
    print(f"{'':8} {'listeners':>9} {'MB/s to each':>13} {'MB/s in all':>12} {'CPU ms/MB':>10}")
    for count in (1, 3):
        for name, way in ways.items():
            rounds = [way(records, count) for _ in range(given.rounds)]
            rate = megabytes / statistics.median(one.seconds for one in rounds)
            cost = 1e3 * statistics.median(one.cpu_seconds for one in rounds) / megabytes
            print(f"{name:8} {count:9} {rate:13.0f} {rate * count:12.0f} {cost:10.2f}")


if __name__ == "__main__":
    main()
