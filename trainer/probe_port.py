"""A port on which a machine of a group answers, so that `carina doctor` can test the connection before a training.

The ranks of a training listen on ports that the system chooses; this port is chosen in the same way. The leader also
answers at the rendezvous while no training uses it.
"""

import socket
import threading
from contextlib import suppress
from typing import Self

import structlog

log = structlog.get_logger()

TIMEOUT_S = 5.0
_BANNER = b"carina trainer\n"


class ProbePort:
    """A listening socket and the thread that answers there."""

    def __init__(self, port: int = 0) -> None:
        """Listen on all addresses of this machine; with port 0, the system chooses a port. Raises OSError."""
        self._socket = socket.create_server(("", port))
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, name="probe port", daemon=True).start()

    @classmethod
    def try_open(cls, port: int) -> Self | None:
        """Listen on a port; return None if another process uses it."""
        try:
            return cls(port)
        except OSError as error:
            log.warning("port_taken", port=port, detail=error.strerror)
            return None

    def close(self) -> None:
        """Stop listening."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            with client, suppress(OSError):
                client.settimeout(TIMEOUT_S)
                client.sendall(_BANNER)


def try_to_connect(address: str, port: int) -> str:
    """Connect to a port; return why that is not possible, or an empty string."""
    try:
        with socket.create_connection((address, port), TIMEOUT_S):
            return ""
    except OSError as error:
        return error.strerror or str(error)
