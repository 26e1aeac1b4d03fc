"""A reverse proxy on loopback in front of a real server: forwards requests as they are, and can interfere."""

import http.client
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.waiting import DEADLINE_S

_CHUNK_BYTES = 64 * 1024
#: Headers of one connection, not of the request.
_OF_THE_CONNECTION = ("connection", "expect", "transfer-encoding")


@dataclass(frozen=True)
class Request:
    """One request."""

    method: str
    path: str
    headers: Mapping[str, str]
    query: Mapping[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, method: str, target: str, headers: Mapping[str, str]) -> "Request":
        parts = urlsplit(target)
        named = {name.lower(): value for name, value in headers.items()}
        return cls(method, parts.path, named, parse_qs(parts.query, keep_blank_values=True))


@dataclass(frozen=True)
class Answer:
    """An answer of the proxy's own."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Spoil:
    """What is wrong with an answer's body."""

    #: The connection ends after so much of the body.
    part: float = 1.0
    #: Between two chunks.
    pause_s: float = 0.0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Server"

    def handle_any(self) -> None:
        request = Request.of(self.command, self.path, dict(self.headers))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.proxy.requests.append(request)
        answer = self.server.proxy.judge(request)
        if answer is None:
            self.forward(body, self.server.proxy.spoil(request))
            return
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def forward(self, body: bytes, spoil: Spoil) -> None:
        upstream = http.client.HTTPConnection("127.0.0.1", self.server.proxy.upstream_port, timeout=DEADLINE_S)
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in _OF_THE_CONNECTION:
                    upstream.putheader(name, value)
            upstream.endheaders(body)
            answer = upstream.getresponse()
            self.send_response_only(answer.status, answer.reason)
            for name, value in answer.getheaders():
                if name.lower() not in _OF_THE_CONNECTION:
                    self.send_header(name, value)
            if answer.length is None:
                self.send_header("Connection", "close")  # which is then the end of the body
            self.end_headers()
            left = None if spoil.part == 1 else int((answer.length or 0) * spoil.part)
            while chunk := answer.read(_CHUNK_BYTES):
                self.wfile.write(chunk[:left])
                if left is not None and (left := left - len(chunk)) <= 0:
                    self.close_connection = True
                    return
                time.sleep(spoil.pause_s)
        finally:
            upstream.close()

    def log_message(self, *_: object) -> None: ...


for _method in ("GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"):
    setattr(_Handler, f"do_{_method}", _Handler.handle_any)


class _Server(ThreadingHTTPServer):
    #: Connections that wait to be accepted; a busy machine drops one beyond them.
    request_queue_size = 128

    def __init__(self, proxy: "Proxy", tls: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.proxy, self._tls = proxy, tls

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        # The handshake is made in the connection's own thread; a client that refuses the certificate says so itself.
        if self._tls is not None:
            try:
                request = self._tls.wrap_socket(request, server_side=True)
            except OSError:
                with suppress(OSError):
                    request.close()
                return
        super().process_request_thread(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None: ...  # a client or the server went away


class Proxy:
    """Forwards to a port of 127.0.0.1.

    `judge` may answer a request in the server's place, or raise an `OSError` to end the connection; `spoil` may harm an
    answer's body.
    """

    def __init__(self, upstream_port: int, tls: ssl.SSLContext | None = None) -> None:
        self.upstream_port = upstream_port
        self.judge: Callable[[Request], Answer | None] = lambda _: None
        self.spoil: Callable[[Request], Spoil] = lambda _: Spoil()
        self.requests: list[Request] = []
        self._server = _Server(self, tls)
        self.port = self._server.server_port
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"

    @contextmanager
    def serving(self) -> Iterator["Proxy"]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.socket.close()
