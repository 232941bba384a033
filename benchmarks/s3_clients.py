"""
What boto3 and obstore cost for the bytes of objects: processor and wall time of puts and gets.

    .venv/bin/python benchmarks/s3_clients.py [--seconds 3] [--data DIR]

Two servers answer: SeaweedFS, and a sink that only reads requests and answers from memory, so
that what is left is the client. Processor seconds are those of this process alone, with two
threads, and the medians of rounds in which the clients take turns.
"""

from __future__ import annotations

import argparse
import socketserver
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import boto3
import obstore
from botocore.config import Config
from obstore.store import S3Store

from kryonix_backup.testing.s3_servers import Credentials, start_seaweedfs

if TYPE_CHECKING:
    from obstore.store import S3Config

BUCKET = "bench-clients"
MIB = 1 << 20
THREADS = 2
SIZES = {"4 KiB": 4096, "16 MiB": 16 * MIB}
ROUNDS = 3


class Client(NamedTuple):
    """One way to move an object; `put` makes a new one."""

    name: str
    put: Callable[[str, bytes], object]
    get: Callable[[str], bytes]


def boto3_client(name: str, endpoint: str, keys: Credentials, **config: Any) -> Client:
    """boto3's put_object and get_object."""
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=keys.access_key_id,
        aws_secret_access_key=keys.secret_access_key,
        config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}, **config),
    )

    def put(key: str, body: bytes) -> object:
        return client.put_object(Bucket=BUCKET, Key=key, Body=body, IfNoneMatch="*")

    def get(key: str) -> bytes:
        return client.get_object(Bucket=BUCKET, Key=key)["Body"].read()

    return Client(name, put, get)


def obstore_client(name: str, endpoint: str, keys: Credentials, **config: Any) -> Client:
    """obstore's put and get."""
    store = S3Store(
        BUCKET,
        config=cast(
            "S3Config",
            {
                "endpoint": endpoint,
                "region": "us-east-1",
                "access_key_id": keys.access_key_id,
                "secret_access_key": keys.secret_access_key,
                **config,
            },
        ),
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )

    def put(key: str, body: bytes) -> object:
        return obstore.put(store, key, body, mode="create", use_multipart=False)

    def get(key: str) -> bytes:
        return obstore.get(store, key).bytes().to_bytes()

    return Client(name, put, get)


def clients(endpoint: str, keys: Credentials) -> list[Client]:
    """Every rival, each with some checksum of what it uploads."""
    unsigned = {"unsigned_payload": True}
    return [
        boto3_client("boto3, signed body and CRC-32", endpoint, keys),
        boto3_client(
            "boto3, signed body only", endpoint, keys, request_checksum_calculation="when_required"
        ),
        obstore_client("obstore, signed body", endpoint, keys),
        obstore_client("obstore, SHA-256", endpoint, keys, checksum_algorithm="sha256", **unsigned),
        obstore_client(
            "obstore, CRC-64/NVME", endpoint, keys, checksum_algorithm="crc64nvme", **unsigned
        ),
        obstore_client("obstore, no checksum", endpoint, keys, **unsigned),
    ]


class Sink(socketserver.StreamRequestHandler):
    """Answers a PUT with 200 and a GET of ``…/SIZE-…`` with that many bytes."""

    rbufsize = 1 << 18

    def handle(self) -> None:
        self.connection.setsockopt(6, 1, 1)  # no delay
        while line := self.rfile.readline():
            self._answer(line.decode())

    def _answer(self, line: str) -> None:
        verb, path, _ = line.split(" ", 2)
        length = 0
        while (header := self.rfile.readline()) not in (b"\r\n", b""):
            name, _, value = header.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
            if name.lower() == b"expect":
                self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while length:
            length -= len(self.rfile.read(min(length, MIB)))
        body = PATTERN[: int(path.rsplit("/", 1)[1].split("-")[0])] if verb == "GET" else b""
        head = (
            'HTTP/1.1 200 OK\r\nETag: "0"\r\nLast-Modified: Mon, 23 Nov 2026 00:00:00 GMT\r\n'
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        self.wfile.write(head.encode())
        self.wfile.write(body)


PATTERN = bytes(range(256)) * (16 * MIB // 256)


def serve_sink() -> None:
    """Be the sink: print the port, and answer until standard input ends."""
    socketserver.ThreadingTCPServer.daemon_threads = True
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Sink) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(server.server_address[1], flush=True)
        sys.stdin.read()
        server.shutdown()


@contextmanager
def sink() -> Iterator[str]:
    """The sink in a process of its own, so that its work is not counted as the client's."""
    with subprocess.Popen(
        [sys.executable, __file__, "--sink"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        process.terminate()


class Figure(NamedTuple):
    """Per operation: processor and wall milliseconds."""

    cpu: float
    wall: float


def measure(work: Callable[[int], object], seconds: float) -> Figure:
    """Call ``work`` from two threads for that long."""
    deadline = time.perf_counter() + seconds
    calls = [0] * THREADS

    def run(thread: int) -> None:
        while time.perf_counter() < deadline:
            work(thread)
            calls[thread] += 1

    cpu, wall = time.process_time(), time.perf_counter()
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(run, range(THREADS)))
    done = sum(calls)
    return Figure(
        (time.process_time() - cpu) * 1000 / done, (time.perf_counter() - wall) * 1000 / done
    )


Figures = dict[tuple[str, str, str], list[Figure]]


def compare(title: str, rivals: list[Client], seconds: float) -> None:
    """Print a line for each client and size: ms of processor and wall for a put and a get."""
    figures: Figures = {}
    for _ in range(ROUNDS):
        for label, size in SIZES.items():
            for client in rivals:
                for verb, figure in measure_client(client, PATTERN[:size], seconds / 4):
                    figures.setdefault((label, client.name, verb), []).append(figure)
    print(f"\n{title}: ms of processor / ms of wall for one object, {THREADS} threads")
    print("| size | client | put | get |\n| --- | --- | --- | --- |")
    for label in SIZES:
        for client in rivals:
            cells = [cell(figures[label, client.name, verb]) for verb in ("put", "get")]
            print(f"| {label} | {client.name} | {' | '.join(cells)} |")


def measure_client(client: Client, body: bytes, seconds: float) -> Iterator[tuple[str, Figure]]:
    """What a put and a get of that body cost."""
    kept = new_key(body)
    client.put(kept, body)
    yield "put", measure(lambda _: client.put(new_key(body), body), seconds)
    yield "get", measure(lambda _: client.get(kept), seconds)


def new_key(body: bytes) -> str:
    """A key that the sink knows the size from."""
    return f"{len(body)}-{next(serial)}"


def cell(rounds: list[Figure]) -> str:
    """The medians of processor and wall time."""
    cpu, wall = (statistics.median(column) for column in zip(*rounds, strict=True))
    return f"{cpu:.2f} / {wall:.2f}"


serial = iter(range(1 << 40))


def import_cost() -> None:
    """Print what it costs to import each client, in processor seconds."""
    print("\n| import and first client | processor s |\n| --- | --- |")
    for name, code in {
        "boto3": "import boto3; boto3.client('s3', region_name='us-east-1')",
        "obstore": "import obstore; from obstore.store import S3Store; S3Store('b', region='x')",
    }.items():
        program = f"import time; t = time.process_time(); {code}; print(time.process_time() - t)"
        runs = [
            float(
                subprocess.run(
                    [sys.executable, "-c", program], capture_output=True, check=True
                ).stdout
            )
            for _ in range(5)
        ]
        print(f"| {name} | {statistics.median(runs):.2f} |")


def main() -> None:
    """Measure both servers and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="for a client, size and round")
    parser.add_argument("--data", type=Path, help="where SeaweedFS keeps its state")
    parser.add_argument("--sink", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.sink:
        serve_sink()
        return
    import_cost()
    keys = Credentials.new("sink")
    with sink() as endpoint:
        compare("Sink", clients(endpoint, keys), arguments.seconds)
    with (
        tempfile.TemporaryDirectory(dir=arguments.data) as directory,
        start_seaweedfs(Path(directory), [BUCKET]) as server,
    ):
        rivals = clients(server.endpoint, server.buckets[BUCKET])
        compare("SeaweedFS", rivals, arguments.seconds)


if __name__ == "__main__":
    main()
