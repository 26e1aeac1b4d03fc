"""Runs the API: one gunicorn process with request threads, under gunicorn's supervisor."""

import socket
import struct
from pathlib import Path
from types import FrameType

from flask_openapi3.openapi import OpenAPI
from gunicorn.app.base import BaseApplication
from gunicorn.workers.gthread import TConn, ThreadWorker

from api.app import create_app
from api.services import NAME
from shared.log import configure_logging
from shared.settings import Settings

#: A client that sends or takes no byte for this long is gone. A slow upload may take as long as it likes.
SILENCE_S = 60
#: How long requests under way may take when the process is asked to end.
GRACE_S = 30


def serve(settings: Settings) -> None:
    """Serve until SIGTERM; then finish the requests under way, for `GRACE_S` at most."""
    configure_logging(settings.log_level)
    _Server(settings).run()


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
        options = {
            "bind": f"{settings.api_host}:{settings.api_port}",
            # More processes would each hold connections and memory of their own; more replicas do the same better.
            "workers": 1,
            "threads": settings.api_threads,
            "worker_class": _Worker,
            "keepalive": 15,
            # Of the process' main thread, which no upload holds up.
            "timeout": 120,
            "graceful_timeout": GRACE_S,
            # The heartbeat is a file; on a disk it may block.
            "worker_tmp_dir": "/dev/shm" if Path("/dev/shm").is_dir() else None,
            "loglevel": "warning",
            "control_socket_disable": True,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> OpenAPI:
        return create_app(self._settings)
