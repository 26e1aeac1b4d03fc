"""A group: machines that train together. One of them leads: it takes tasks, and the others join its trainings."""

import fcntl
import os
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from shared.settings import Settings

#: Linux's request for the IPv4 address of an interface.
_SIOCGIFADDR = 0x8915
#: The variables that name the network interface for Gloo and for NCCL.
INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


@dataclass(frozen=True)
class Group:
    """The group of this machine, and its place in it."""

    name: str
    #: Where the leader listens during a training, as `host:port`.
    rendezvous: str
    #: This machine's number; 0 leads.
    node_rank: int
    #: The least and the greatest number of machines of a training.
    least: int
    most: int
    #: Where the other machines reach this one.
    address: str

    @classmethod
    def from_settings(cls, settings: Settings) -> Self | None:
        """Return the group of this machine; None if it trains alone."""
        least, most = settings.node_counts
        if most == 1:
            return None
        return cls(
            name=settings.trainer_group or settings.trainer_rendezvous,
            rendezvous=settings.trainer_rendezvous,
            node_rank=settings.trainer_node_rank,
            least=least,
            most=most,
            address=settings.trainer_address or find_address(settings.trainer_rendezvous.rpartition(":")[0]),
        )

    @property
    def is_leader(self) -> bool:
        """Whether this machine takes tasks."""
        return self.node_rank == 0

    def environ(self) -> Mapping[str, str]:
        """Return the environment of the ranks here: they communicate through the interface of this machine's address.

        Without these variables Gloo uses the address of the host's name, which Debian sets to 127.0.1.1.
        """
        interface = find_interface(self.address)
        return {name: interface for name in INTERFACES if interface and name not in os.environ}


def find_address(host: str) -> str:
    """Return the address of this machine on the way to a host; for a name of this machine, the address of that name.

    A name of loopback that is not written as such, like Debian's 127.0.1.1 for the host's own name, is of no use to
    other machines: the address of the default route is returned instead.
    """
    found = _address_towards(host)
    if found.startswith("127.") and host != "localhost" and not host.startswith("127."):
        return _address_towards("192.0.2.1")  # of a network for documentation: nothing is sent
    return found


def find_interface(address: str) -> str:
    """Return the name of the network interface with this address, or an empty string."""
    try:
        wanted = socket.gethostbyname(address)
    except OSError:
        return ""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(asking, _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:  # it has no IPv4 address
                continue
            if socket.inet_ntoa(answer[20:24]) == wanted:
                return name
    return ""


def _address_towards(host: str) -> str:
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.connect((host, 9))
            return str(asking.getsockname()[0])
    except OSError:
        return "127.0.0.1"
