"""Addresses as people write them, sockets take them and URLs hold them: IPv6 stands in brackets in URLs alone."""

import re
from ipaddress import IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

#: A path that a proxy may put a server under, without a slash at its end. Nothing in it needs quoting anywhere.
_PREFIX = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)*")
_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?")
#: What the AWS SDK takes; other programs take underscores, too.
_DNS_NAME = re.compile(r"(?=.{1,255}$)([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.(?!$)|\.?$))+", re.ASCII)
_DEFAULT_PORTS = {"http": 80, "https": 443}
#: Hosts that stand for every address of this machine, and one of these.
_LOOPBACK_OF = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def is_prefix(path: str) -> bool:
    """Whether a path may stand before all of ours: nothing, or `/a/b`."""
    return _PREFIX.fullmatch(path) is not None


def is_authority(text: str) -> bool:
    """Whether this is the `host` or `host:port` of a URL: a name, an IPv4 address or an IPv6 address in brackets."""
    host, bracket, port = text.partition("]") if text.startswith("[") else text.partition(":")
    if text.startswith("["):
        if not bracket or (port and not port.startswith(":")) or not _is_ipv6(host[1:]):
            return False
        bracket, port = port[:1], port[1:]
    elif not _NAME.fullmatch(host):
        return False
    return not bracket or (port.isascii() and port.isdecimal() and 0 < int(port) < 2**16)


def is_dns_host(host: str) -> bool:
    """Whether a URL's host, without brackets, is a name by the rules of DNS or an IP address."""
    return _DNS_NAME.fullmatch(host) is not None or _is_ipv6(host)


def check_public_url(text: str) -> str:
    """Return a URL that others may be told, without a slash at its end, or ""; raise `ValueError`, which says why."""
    if not text:
        return ""
    try:
        parts = urlsplit(text)
    except ValueError:
        parts = urlsplit("")
    authority, path = parts.netloc.lower(), parts.path.rstrip("/")
    is_plain = text.isascii() and text.isprintable() and not {"?", "#", "@", "\\", " "} & set(text)
    if parts.scheme not in _DEFAULT_PORTS or not is_plain or not is_authority(authority) or not is_prefix(path):
        raise ValueError(
            "It must be an absolute http(s) URL such as https://carina.example/path, "
            "without a query, a fragment or credentials."
        )
    return f"{parts.scheme}://{authority.removesuffix(f':{_DEFAULT_PORTS[parts.scheme]}')}{path}"


def bare_host(host: str) -> str:
    """Return a host as sockets take it: an IPv6 address without its brackets."""
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def join_host_port(host: str, port: int | str) -> str:
    """Return `host:port` as URLs and command lines have it."""
    host = bare_host(host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def reachable_host(host: str) -> str:
    """Return a host by which this machine reaches what listens on `host`."""
    host = bare_host(host)
    return _LOOPBACK_OF.get(host, host)


def plain_address(text: str) -> str | None:
    """Return an IP address without a port, an IPv4 address always as such; None where there is none."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


def origin_of(address: str) -> str:
    """Return what limits count as one client: an IPv4 address, or an IPv6 /64 network, which one machine may own."""
    ip = ip_address(address.partition("%")[0])
    return str(ip) if ip.version == 4 else str(ip_network((ip, 64), strict=False))


def _is_ipv6(text: str) -> bool:
    try:
        return isinstance(ip_address(text), IPv6Address) and "%" not in text
    except ValueError:
        return False
