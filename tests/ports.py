"""Ports of this machine for servers that tests start."""

import random

from deploy.stack.folder import is_free


def free_port() -> int:
    """Return a TCP port of loopback that nobody listens on.

    It lies below those that Linux gives to outgoing connections, one of which could take it before the server does.
    """
    return next(port for port in iter(lambda: random.randrange(20_000, 32_000), None) if is_free(port))
