"""Ports of this machine for servers that tests start."""

import socket


def free_port() -> int:
    """Return a TCP port of loopback that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
