"""A proxy before an S3 server that breaks single requests, as networks and servers do."""

from __future__ import annotations

import http.client
import socket
import socketserver
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit


@dataclass(frozen=True)
class CutRequest:
    """The connection ends after so many bytes of the request's body; the server gets these."""

    after: int


@dataclass(frozen=True)
class CutAnswer:
    """The request is served, and the connection ends after so many bytes of the answer's body."""

    after: int


@dataclass(frozen=True)
class AnswerLost:
    """The request is served, and the connection ends without an answer."""


@dataclass(frozen=True)
class Answer:
    """The proxy answers by itself; the server never hears of the request."""

    status: int
    code: str = ""
    content: str = ""


@dataclass(frozen=True)
class Silence:
    """The request is read and never answered."""

    seconds: float


@dataclass(frozen=True)
class Corrupted:
    """One byte of the request's body is changed on its way."""

    offset: int


Fault = CutRequest | CutAnswer | AnswerLost | Answer | Silence | Corrupted | None


class S3Proxy:
    """
    Passes requests on to ``upstream``, a URL, but for scripted faults: one for each request.

    ``drop_headers`` are kept from the server. ``requests`` holds verb and path of all that came.
    """

    def __init__(self, upstream: str, *, drop_headers: Iterable[str] = ()) -> None:
        self.requests: list[tuple[str, str]] = []
        self.faults: deque[Fault] = deque()
        self.upstream = urlsplit(upstream).netloc
        self.dropped = {name.lower() for name in drop_headers}
        self.lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Request)
        self._server.proxy = self
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}
        )
        self._thread.start()

    def script(self, *faults: Fault) -> None:
        """What befalls the next requests, in order; ``None`` lets one pass."""
        with self.lock:
            assert not self.faults, f"faults that did not fire: {list(self.faults)}"
            self.requests.clear()
            self.faults.extend(faults)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        assert error is not None or not any(self.faults), f"did not fire: {list(self.faults)}"


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    proxy: S3Proxy

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is what these tests are about."""


class _Request(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        while self._one():
            pass

    def _one(self) -> bool:
        """Serve one request; whether the connection goes on."""
        line = self.rfile.readline().decode()
        if not line:
            return False
        verb, path, _ = line.split(" ", 2)
        headers = http.client.parse_headers(self.rfile)
        if headers.get("expect", "").lower() == "100-continue":
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = self.rfile.read(int(headers.get("content-length", "0")))
        proxy = self.server.proxy
        with proxy.lock:
            proxy.requests.append((verb, path))
            fault = proxy.faults.popleft() if proxy.faults else None
        if isinstance(fault, Answer):
            self._answer(fault)
            return False
        if isinstance(fault, Silence):
            time.sleep(fault.seconds)
            return False
        if isinstance(fault, Corrupted):
            changed = bytearray(body)
            changed[fault.offset] ^= 1
            body = bytes(changed)
        cut = fault.after if isinstance(fault, CutRequest) else None
        return self._pass_on(verb, path, headers, body[:cut], fault)

    def _answer(self, fault: Answer) -> None:
        body = fault.content
        if fault.code:
            body = f"<Error><Code>{fault.code}</Code></Error>"
        self.wfile.write(
            f"HTTP/1.1 {fault.status} Scripted\r\nContent-Length: {len(body)}\r\n"
            f"Connection: close\r\n\r\n{body}".encode()
        )

    def _pass_on(
        self, verb: str, path: str, headers: http.client.HTTPMessage, body: bytes, fault: Fault
    ) -> bool:
        upstream = http.client.HTTPConnection(self.server.proxy.upstream, timeout=30)
        try:
            upstream.putrequest(verb, path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                if name.lower() not in {"connection", "expect"} | self.server.proxy.dropped:
                    upstream.putheader(name, value)
            upstream.endheaders()
            upstream.send(body)
            if isinstance(fault, CutRequest):
                assert upstream.sock is not None
                upstream.sock.shutdown(socket.SHUT_RDWR)
                return False
            answer = upstream.getresponse()
            content = answer.read()
        finally:
            upstream.close()
        if isinstance(fault, AnswerLost):
            return False
        cut = fault.after if isinstance(fault, CutAnswer) else None
        self._send(verb, answer, content, cut)
        return cut is None

    def _send(
        self, verb: str, answer: http.client.HTTPResponse, content: bytes, cut: int | None
    ) -> None:
        length = answer.getheader("content-length") if verb == "HEAD" else str(len(content))
        kept = [
            f"{name}: {value}\r\n"
            for name, value in answer.getheaders()
            if name.lower() not in {"content-length", "transfer-encoding", "connection"}
        ]
        head = f"HTTP/1.1 {answer.status} {answer.reason}\r\n{''.join(kept)}"
        head += f"Content-Length: {length or 0}\r\n\r\n"
        self.wfile.write(head.encode("latin-1") + content[:cut])
