"""Machines on one network: network namespaces behind a bridge, from which this machine's servers can be reached."""

import os
import random
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from urllib.parse import urlsplit

#: Why network namespaces cannot be made here; empty if they can.
WHY_NOT = ""
if os.geteuid() != 0:
    WHY_NOT = "only root makes network namespaces"
else:
    try:
        subprocess.run(["ip", "netns", "list"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        WHY_NOT = "this machine has no `ip netns`"


class Network:
    """A network with one namespace for each machine."""

    def __init__(self, number: int, servers: dict[str, str]) -> None:
        self._name = f"cn{number}"
        self._subnet = f"10.{200 + number // 250}.{number % 250}"
        self._servers = servers
        self.machines: list[str] = []

    def address(self, index: int) -> str:
        """The address of a machine."""
        return f"{self._subnet}.{10 + index}"

    def environ(self, index: int) -> dict[str, str]:
        """The variables of a process on a machine; `forked.NETWORK` names its namespace."""
        return self._servers | {"NETWORK_NAMESPACE": self.machines[index]}

    def add(self, stack: ExitStack, count: int) -> None:
        """Make the bridge, and the machines with their cables."""
        bridge = f"{self._name}br"
        ip("link", "add", bridge, "type", "bridge")
        stack.callback(ip, "link", "del", bridge)
        ip("addr", "add", f"{self._subnet}.1/24", "dev", bridge)
        ip("link", "set", bridge, "up")
        for index in range(count):
            name, cable = f"{self._name}m{index}", f"{self._name}v{index}"
            ip("netns", "add", name)
            stack.callback(ip, "netns", "del", name)
            self.machines.append(name)
            ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", cable, "master", bridge, "up")
            ip("-n", name, "addr", "add", f"{self.address(index)}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")
        for variable in ("CARINA_DATABASE_URL", "CARINA_S3_ENDPOINT_URL"):
            port = urlsplit(self._servers[variable]).port
            assert port is not None
            here = f"{self._subnet}.1"
            self._servers[variable] = self._servers[variable].replace("127.0.0.1", here).replace("localhost", here)
            stack.enter_context(forwarding((here, port), ("127.0.0.1", port)))


@contextmanager
def network(environ: dict[str, str], count: int) -> Iterator[Network]:
    """Make `count` machines; `environ` names servers on this machine's loopback."""
    with ExitStack() as stack:
        made = Network(random.randrange(1, 10_000), dict(environ))
        made.add(stack, count)
        yield made


@contextmanager
def forwarding(from_: tuple[str, int], to: tuple[str, int]) -> Iterator[None]:
    """Forward TCP connections."""
    with socket.create_server(from_) as server:
        threading.Thread(target=_accept, args=(server, to), daemon=True).start()
        try:
            yield
        finally:
            server.shutdown(socket.SHUT_RDWR)


def ip(*words: str) -> None:
    """Run `ip`."""
    subprocess.run(["ip", *words], check=True, capture_output=True)


def _accept(server: socket.socket, to: tuple[str, int]) -> None:
    while True:
        try:
            client, _ = server.accept()
        except OSError:
            return
        threading.Thread(target=_forward, args=(client, to), daemon=True).start()


def _forward(client: socket.socket, to: tuple[str, int]) -> None:
    with client, suppress(OSError), socket.create_connection(to) as upstream:
        back = threading.Thread(target=_copy, args=(upstream, client), daemon=True)
        back.start()
        _copy(client, upstream)
        back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while content := source.recv(65536):
            target.sendall(content)
    for each in (source, target):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
