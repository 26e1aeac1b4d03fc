"""Parses and formats hosts, ports and addresses. IPv6 addresses have brackets in URLs, but not in sockets."""

import re
from ipaddress import IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

#: A path prefix that a proxy may add, without a trailing slash. Its characters never need quoting.
_PREFIX = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)*")
_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?")
#: Host names that the AWS SDK accepts. Other programs also accept underscores.
_DNS_NAME = re.compile(r"(?=.{1,255}$)([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.(?!$)|\.?$))+", re.ASCII)
_DEFAULT_PORTS = {"http": 80, "https": 443}
#: The loopback address for each wildcard address.
_LOOPBACK_OF = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def is_prefix(path: str) -> bool:
    """Whether a path is a valid prefix of all our paths: empty, or such as `/a/b`."""
    return _PREFIX.fullmatch(path) is not None


def is_authority(text: str) -> bool:
    """Whether a text is `host` or `host:port`; the host is a name, an IPv4 address or an IPv6 address in brackets."""
    host, bracket, port = text.partition("]") if text.startswith("[") else text.partition(":")
    if text.startswith("["):
        if not bracket or (port and not port.startswith(":")) or not _is_ipv6(host[1:]):
            return False
        bracket, port = port[:1], port[1:]
    elif not _NAME.fullmatch(host):
        return False
    return not bracket or (port.isascii() and port.isdecimal() and 0 < int(port) < 2**16)


def is_dns_host(host: str) -> bool:
    """Whether a host, without brackets, is a valid DNS name or an IP address."""
    return _DNS_NAME.fullmatch(host) is not None or _is_ipv6(host)


def check_public_url(text: str) -> str:
    """Return a public URL without a trailing slash, or ""; raise `ValueError` with the reason if it is invalid."""
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
    """Return a host for sockets: an IPv6 address without brackets."""
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def join_host_port(host: str, port: int | str) -> str:
    """Return `host:port` for URLs and command lines: an IPv6 address in brackets."""
    host = bare_host(host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def reachable_host(host: str) -> str:
    """Return the host under which this machine reaches a server that listens on `host`."""
    host = bare_host(host)
    return _LOOPBACK_OF.get(host, host)


def plain_address(text: str) -> str | None:
    """Return the IP address in a text without its port; None if there is none. Unmaps IPv4-mapped IPv6 addresses."""
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
    """Return the network that limits treat as one client: an IPv4 address, or the /64 of an IPv6 address."""
    ip = ip_address(address.partition("%")[0])
    return str(ip) if ip.version == 4 else str(ip_network((ip, 64), strict=False))


def _is_ipv6(text: str) -> bool:
    try:
        return isinstance(ip_address(text), IPv6Address) and "%" not in text
    except ValueError:
        return False
