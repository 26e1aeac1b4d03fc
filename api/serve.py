"""Runs the API: one gunicorn process with request threads, under gunicorn's supervisor."""

import logging
import resource
import socket
import struct
import threading
from http import HTTPStatus
from types import FrameType

from flask_openapi3.openapi import OpenAPI
from gunicorn import util
from gunicorn.app.base import BaseApplication
from gunicorn.workers.gthread import TConn, ThreadWorker

from api.app import create_app
from api.errors import problem_for
from api.services import NAME
from shared.addresses import join_host_port
from shared.log import configure_logging
from shared.settings import Settings

#: A client that sends or takes no byte for this long is gone. A slow upload may take as long as it likes.
SILENCE_S = 60
#: How long requests under way may take when the process is asked to end.
GRACE_S = 30
#: Connections beside those of requests: kept alive, or without a request yet.
IDLE_CONNECTIONS = 1000
#: Of a request's thread. Most of them wait for a slow client.
_STACK_BYTES = 1024**2


def serve(settings: Settings) -> None:
    """Serve until SIGTERM; then finish the requests under way, for `GRACE_S` at most."""
    configure_logging(settings.log_level)
    # Where more requests store at a time than the pool holds connections, the rest make their own: nothing to warn of.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    threading.stack_size(_STACK_BYTES)
    _allow_files(2 * (settings.api_threads + IDLE_CONNECTIONS))
    _Server(settings).run()


def _allow_files(count: int) -> None:
    """Raise the limit of open files, each connection being one or two, as far as the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _write_problem(connection: socket.socket, status: int, _: str, detail: str) -> None:
    """Answer a request that is no HTTP, or too long to be read, as every other error is answered."""
    body = problem_for(status, detail or HTTPStatus(status).phrase)
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nConnection: close\r\n"
        f"Content-Type: application/problem+json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    util.write_nonblock(connection, head.encode() + body)


util.write_error = _write_problem


class _Worker(ThreadWorker):  # type: ignore[misc]
    """Gunicorn's threaded worker, which sets no bound on a client's silence."""

    def enqueue_req(self, conn: TConn) -> None:
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            conn.sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", SILENCE_S, 0))
        super().enqueue_req(conn)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if app := getattr(self, "wsgi", None):  # none while it starts
            app.extensions[NAME].stopping.set()
        super().handle_exit(sig, frame)


class _Server(BaseApplication):  # type: ignore[misc]
    """Gunicorn, configured by our settings and by nothing else."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        super().__init__()

    def load_config(self) -> None:
        settings = self._settings
        host = settings.api_host
        options = {
            "bind": host if host.startswith("unix:") else join_host_port(host, settings.api_port),
            # More processes would each hold connections and memory of their own; more replicas do the same better.
            "workers": 1,
            "threads": settings.api_threads,
            "worker_connections": settings.api_threads + IDLE_CONNECTIONS,
            "worker_class": _Worker,
            # What proxies say is believed where `trusted_proxies` says so, and then by the application.
            "forwarded_allow_ips": "",
            # Which gunicorn believes of every peer on a Unix socket, whatever the line above says.
            "secure_scheme_headers": {},
            "forwarder_headers": "",
            "limit_request_line": 8190,
            "keepalive": 15,
            # Of the process' main thread, which no upload holds up.
            "timeout": 120,
            "graceful_timeout": GRACE_S,
            "loglevel": "warning",
            "control_socket_disable": True,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> OpenAPI:
        return create_app(self._settings)
