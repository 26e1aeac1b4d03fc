"""A receiver of webhooks on loopback: a real HTTP server that remembers what it was sent."""

import base64
import hashlib
import hmac
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from shared.network.addresses import join_host_port


@dataclass(frozen=True)
class Message:
    """One request."""

    at: float
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def content(self) -> dict[str, Any]:
        return json.loads(self.body)


class Receiver:
    """Answers with `status`, or as `answer` writes; what it was sent is in `messages`."""

    def __init__(self, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self.status = 200
        self.answer: Callable[[BaseHTTPRequestHandler], object] | None = None
        self.messages: list[Message] = []
        self.under_way, self.max_under_way = 0, 0
        receiver, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                with lock:
                    receiver.messages.append(Message(time.monotonic(), self.path, headers, body))
                    receiver.under_way += 1
                    receiver.max_under_way = max(receiver.max_under_way, receiver.under_way)
                try:
                    if receiver.answer is not None:
                        receiver.answer(self)
                    else:
                        self.send_response(receiver.status)
                        self.end_headers()
                        self.wfile.write(b"thank you")
                except OSError:
                    pass  # the sender had no time for this answer
                finally:
                    with lock:
                        receiver.under_way -= 1

            def log_message(self, *_: object) -> None: ...

        class Server(ThreadingHTTPServer):
            #: Connections that wait to be accepted; a busy machine drops one beyond them.
            request_queue_size = 128
            address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

        self._server = Server((host, 0), Handler)
        self.port = self._server.server_port
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.url = f"http://{join_host_port(host, self.port)}/hook"

    @contextmanager
    def serving(self) -> Iterator["Receiver"]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()

    @property
    def ids(self) -> list[str]:
        return [message.id for message in self.messages]


def verify(secret: str, headers: dict[str, str], body: bytes) -> bool:
    """Whether a message is from Carina, and new: what the README tells receivers to do."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    is_new = abs(time.time() - int(headers["webhook-timestamp"])) < 300
    return is_new and hmac.compare_digest(expected, headers["webhook-signature"])
