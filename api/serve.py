"""Runs the API: one gunicorn process with request threads, under gunicorn's supervisor."""

import errno
import logging
import resource
import socket
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError, Future
from http import HTTPStatus
from types import FrameType
from typing import TYPE_CHECKING, Any

from flask_openapi3.openapi import OpenAPI
from gunicorn import util
from gunicorn.app.base import BaseApplication
from gunicorn.workers.gthread import ThreadWorker

from api.app import create_app
from api.http.client_socket import BodyPending, ClientSocket
from api.http.connections import Connection, Connections, head_of
from api.http.errors import problem_for
from api.http.services import NAME
from shared.log import configure_logging
from shared.network.addresses import join_host_port
from shared.processes.heap import limit_heap
from shared.settings import Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

#: Maximum time for running requests after the process is asked to stop.
GRACE_S = 30
#: Maximum number of new connections that are accepted before existing ones are served.
_ACCEPTED_AT_ONCE = 64
#: Of a request thread. Most of them wait for a slow client.
_STACK_BYTES = 1024**2


def serve(settings: Settings) -> None:
    """Serve until SIGTERM; then finish the running requests, for at most `GRACE_S`."""
    configure_logging(settings.log_level)
    # If more requests store at once than the pool has connections, the others open their own: no need to warn.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    threading.stack_size(_STACK_BYTES)
    limit_heap()
    _Server(settings, _connections(settings)).run()


def _connections(settings: Settings) -> int:
    """Return the maximum number of connections: the setting, but at most half of the limit of open files.

    The other half is for the connections that requests open.
    """
    wanted = max(settings.api_connections, settings.api_threads + 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 2 * wanted if hard == resource.RLIM_INFINITY else min(2 * wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return min(wanted, most // 2)


def _write_problem(connection: ClientSocket, status: int, _: str, detail: str) -> None:
    """Answer a request that is invalid HTTP or too long with a problem document, like all other errors."""
    body = problem_for(status, detail or HTTPStatus(status).phrase)
    connection.sendall(head_of(status, len(body)) + body)


util.write_error = _write_problem
# Called after an answer that failed halfway; the event loop closes all connections, and waits for their clients.
util.close_graceful = lambda _: None


class _Worker(ThreadWorker):  # type: ignore[misc]
    """Gunicorn's threaded worker, whose event loop also handles all connections that do not need a thread."""

    def init_process(self) -> None:
        self.max_keepalived = self.worker_connections  # limit of gunicorn's own list, which stays empty
        super().init_process()

    def load_wsgi(self) -> None:
        super().load_wsgi()
        self.wsgi: WSGIApplication = _closing(self.app.wsgi(), lambda: self.nr_conns >= self.worker_connections)

    def run(self) -> None:
        settings: Settings = self.app.settings
        self._connections = Connections(
            self.poller,
            self.enqueue_req,
            self._count_closed,
            # Behind proxies, all clients share a few addresses; the proxy limits connections per client.
            per_address=None if settings.trusted_proxies else settings.connections_per_address,
        )
        super().run()

    def _count_closed(self) -> None:
        self.nr_conns -= 1

    def accept(self, listener: socket.socket) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                accepted, client = listener.accept()
            except OSError as exc:
                if exc.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._connections.make_room()
                elif exc.errno not in (errno.EAGAIN, errno.ECONNABORTED):
                    raise
                return
            if self.nr_conns + 1 >= self.worker_connections:
                self._connections.make_room()
            self.nr_conns += 1
            self._connections.add(Connection(self.cfg, ClientSocket(accepted), client, listener.getsockname()))
            if self.nr_conns >= self.worker_connections:
                return  # threads use the others; gunicorn accepts no more until a connection has ended

    def handle_request(self, req: Any, conn: Connection) -> bool:
        conn.sock.begin(req)
        try:
            return bool(super().handle_request(req, conn))
        finally:
            conn.sock.end()

    def _keepalive_after(self, conn: Connection, keepalive: bool) -> bool:
        return keepalive  # the thread does not read the rest of the body

    def finish_request(self, conn: Connection, fs: "Future[bool]") -> None:
        error = CancelledError() if fs.cancelled() else fs.exception()
        if isinstance(error, BodyPending):
            self._connections.await_body(conn)
        else:
            self._connections.finished(conn, is_kept=error is None and fs.result())

    def murder_keepalived(self, force: bool = False) -> None:
        self._connections.check_deadlines(force=force)

    def _cap_keepalive(self, deadline: float) -> None:
        self._connections.end_idle(deadline)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if app := self.app.callable:  # None while it starts
            app.extensions[NAME].stopping.set()
        super().handle_exit(sig, frame)


def _closing(app: "WSGIApplication", must_close: Callable[[], bool]) -> "WSGIApplication":
    """Announce the end of the connection in an answer if `must_close`, or if the body has not been read."""

    def call(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        client: ClientSocket = environ["gunicorn.socket"]

        def start(*arguments: Any) -> Any:
            if must_close() or not client.is_body_here:
                client.close_after_answer()
            return start_response(*arguments)

        return app(environ, start)

    return call


class _Server(BaseApplication):  # type: ignore[misc]
    """Gunicorn, configured only by Carina's settings."""

    def __init__(self, settings: Settings, connections: int) -> None:
        self.settings, self._worker_connections = settings, connections
        super().__init__()

    def load_config(self) -> None:
        settings = self.settings
        host = settings.api_host
        options = {
            "bind": host if host.startswith("unix:") else join_host_port(host, settings.api_port),
            # Each process would have its own connections and memory; more replicas scale better.
            "workers": 1,
            "threads": settings.api_threads,
            # One additional connection can wait while threads use all others.
            "worker_connections": self._worker_connections + 1,
            "worker_class": _Worker,
            # Headers of proxies are only trusted if `trusted_proxies` is set, and then by the application.
            "forwarded_allow_ips": "",
            # On a Unix socket, gunicorn trusts these headers from every peer, even with the setting above.
            "secure_scheme_headers": {},
            "forwarder_headers": "",
            "limit_request_line": 8190,
            "http_parser": "python",
            # Files are sent like other answers, so that the same limits apply.
            "sendfile": False,
            # For the process's main thread, which no upload blocks.
            "timeout": 120,
            "graceful_timeout": GRACE_S,
            "loglevel": "warning",
            "control_socket_disable": True,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> OpenAPI:
        return create_app(self.settings)
