"""Checks `http://` and `https://` URLs of settings, and recognises URLs of this machine itself."""

from ipaddress import IPv6Address, ip_address
from urllib.parse import urlsplit


def check_http_url(url: str) -> str:
    """Return the URL; raise `ValueError` with a message unless it is an HTTP(S) URL with a host and no query."""
    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and not parts.query
        (parts.hostname or "").encode("idna")
    except ValueError:  # an invalid port, an incomplete IPv6 address, or a host with an empty or overlong label
        whole = False
    if not whole or any(character.isspace() or character == "\\" for character in url):
        raise ValueError("Give a URL such as https://carina.example.org.")
    return url


def is_loopback(url: str) -> bool:
    """Whether a URL points to this machine itself: 127.0.0.0/8, ::1 or localhost."""
    try:
        host = (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:  # an incomplete IPv6 address
        return False
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback
