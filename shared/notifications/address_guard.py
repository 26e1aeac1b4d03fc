"""Checks the addresses of webhooks, so that nobody can use them to reach servers in our network (SSRF).

The addresses of a name are checked when a webhook is made, and again before each message, which is sent to a checked
address. A name that changes its addresses in between gains nothing.
"""

import ipaddress
import socket

import httpx

from shared.errors import Place, RequestError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

MAX_URL_CHARACTERS = 2000
#: The metadata services of clouds, which hold secrets, where the address' range does not tell.
_METADATA = {
    ipaddress.ip_address(text) for text in ("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254")
}
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class InvalidWebhookUrl(RequestError):
    """The URL of a webhook must start with `http://` or `https://`, have a host and contain no credentials."""

    code = "invalid_webhook_url"
    status = 422


class WebhookHostUnknown(RequestError):
    """The host name of the webhook's URL cannot be resolved."""

    code = "webhook_host_unknown"
    places = Place.REQUEST | Place.DELIVERY
    status = 422


class WebhookAddressNotAllowed(RequestError):
    """The address of the webhook's host is not allowed, for example because it is private."""

    code = "webhook_address_not_allowed"
    places = Place.REQUEST | Place.DELIVERY
    status = 422


def read_url(text: str) -> httpx.URL:
    """Parse a webhook's URL; raise `InvalidWebhookUrl`."""
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, UnicodeError) as exc:
        raise InvalidWebhookUrl from exc
    # The raw host, because decoding it to Unicode may fail.
    if url.scheme not in ("http", "https") or not url.raw_host or url.userinfo or len(text) > MAX_URL_CHARACTERS:
        raise InvalidWebhookUrl
    return url


def find_addresses(url: httpx.URL, *, allow_private: bool) -> list[Address]:
    """Resolve a URL's host; raise `WebhookHostUnknown`, or `WebhookAddressNotAllowed` if any address is forbidden."""
    try:
        found = socket.getaddrinfo(host_of(url), None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        raise WebhookHostUnknown from exc
    addresses = [ipaddress.ip_address(sockaddr[0]) for *_, sockaddr in found]
    if not all(is_allowed(address, allow_private=allow_private) for address in addresses):
        raise WebhookAddressNotAllowed
    return addresses


def check_destination(text: str, *, allow_private: bool) -> None:
    """Check the URL of a new webhook; raises the errors of `read_url` and `find_addresses`."""
    find_addresses(read_url(text), allow_private=allow_private)


def host_of(url: httpx.URL) -> str:
    """The host in ASCII, as for DNS and certificates."""
    return url.raw_host.decode().rstrip(".")


def is_allowed(address: Address, *, allow_private: bool) -> bool:
    """Whether messages may be sent to an address. Private ones can be allowed; a cloud's metadata service never is."""
    inner = _embedded(address)
    if inner is not None:
        return is_allowed(inner, allow_private=allow_private)
    if address in _METADATA or address.is_multicast or address.is_unspecified or address.is_link_local:
        return False
    if allow_private:
        return True
    site_local = isinstance(address, ipaddress.IPv6Address) and address.is_site_local
    return address.is_global and not address.is_reserved and not site_local


def _embedded(address: Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address to which packets to this IPv6 address are translated, if any."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else None)
