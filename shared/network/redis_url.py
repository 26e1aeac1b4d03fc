"""Parses `CARINA_REDIS_URL`.

    redis://[user:password@]host[:port][/database]           one server; rediss:// for TLS
    sentinel://[user:password@]host[:port][,host[:port]...]/database?master=NAME
                                                             a master found by Sentinels; sentinels:// for TLS

The password of the Sentinels is `&sentinel_password=...`, their user `&sentinel_user=...`. With TLS the certificate is
verified, unless the URL contains `ssl_cert_reqs=none`.
"""

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote

from shared.errors import RedisClusterUnsupported
from shared.network.addresses import join_host_port

#: The default port of each scheme.
_PORTS = {"redis": 6379, "rediss": 6379, "sentinel": 26379, "sentinels": 26379}
#: `urlsplit` rejects a URL with several IPv6 addresses.
_URL = re.compile(r"(?P<scheme>[a-z+]+)://(?P<netloc>[^/?#]*)(/(?P<path>[^?#]*))?(\?(?P<query>.*))?")
_CERTIFICATE = {"required": True, "CERT_REQUIRED": True, "none": False, "CERT_NONE": False}
_HOST = re.compile(r"(?P<host>\[[0-9a-fA-F:.%]+\]|[^\[\]:]+)(:(?P<port>\d+))?")


@dataclass(frozen=True)
class RedisAddress:
    """The address of Redis, and its credentials."""

    #: Host and port of the server, or of each Sentinel.
    hosts: tuple[tuple[str, int], ...]
    tls: bool
    database: int = 0
    username: str | None = None
    password: str | None = None
    #: The name of the master; empty if `hosts` is the server itself.
    master: str = ""
    sentinel_username: str | None = None
    sentinel_password: str | None = None
    #: Whether the server's certificate is verified.
    verify: bool = True

    def __str__(self) -> str:
        """The hosts and ports, without secrets."""
        return ",".join(join_host_port(host, port) for host, port in self.hosts)


def parse_url(url: str) -> RedisAddress:
    """Parse `CARINA_REDIS_URL`; raise `ValueError`, whose message contains no secret part of the URL."""
    parts = _URL.fullmatch(url.strip())
    scheme = parts["scheme"] if parts else ""
    if parts is None or scheme not in _PORTS:
        if "cluster" in scheme:
            raise ValueError(RedisClusterUnsupported().detail)
        raise ValueError(f"the URL must start with {', '.join(f'{each}://' for each in _PORTS)}.")
    by_sentinel = scheme.startswith("sentinel")
    user_info, _, addresses = parts["netloc"].rpartition("@")
    user, _, password = user_info.partition(":")
    hosts = []
    for address in addresses.split(","):
        found = _HOST.fullmatch(address.strip())
        port = int(found["port"] or _PORTS[scheme]) if found else 0
        if found is None or not 0 < port < 65536 or not _is_host(found["host"]):
            raise ValueError("the URL must name a host as `host` or `host:port`, or several with commas between.")
        hosts.append((found["host"].strip("[]"), port))
    if len(hosts) > 1 and not by_sentinel:
        raise ValueError("the URL names several hosts, which only sentinel:// and sentinels:// may.")
    database = (parts["path"] or "").strip("/") or "0"
    if not database.isdecimal():
        raise ValueError("the URL's path must be the number of a database, as `/0`.")
    options = dict(parse_qsl(parts["query"] or "", keep_blank_values=True))
    tls = scheme in ("rediss", "sentinels")
    known = {"master", "sentinel_user", "sentinel_password"} if by_sentinel else set()
    known |= {"ssl_cert_reqs"} if tls else set()
    if unknown := sorted(options.keys() - known):
        raise ValueError(f"the URL has the parameter `{unknown[0]}`, which is not known.")
    if by_sentinel and not options.get("master"):
        raise ValueError("a URL of Sentinels must name the master: `?master=NAME`.")
    certificate = options.get("ssl_cert_reqs", "required")
    if certificate not in _CERTIFICATE:
        raise ValueError("the URL's `ssl_cert_reqs` must be `required` or `none`.")
    return RedisAddress(
        hosts=tuple(hosts),
        tls=tls,
        database=int(database),
        username=unquote(user) or None,
        password=unquote(password) or None,
        master=options.get("master", ""),
        sentinel_username=options.get("sentinel_user") or None,
        sentinel_password=options.get("sentinel_password") or None,
        verify=_CERTIFICATE[certificate],
    )


def _is_host(host: str) -> bool:
    """Whether a host can be resolved: each label has 1–63 characters. A name may end with a dot."""
    return all(0 < len(label) < 64 for label in host.removesuffix(".").split("."))
