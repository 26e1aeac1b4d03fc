"""Where a webhook may point, so that nobody reaches through us what only we can reach (SSRF).

The addresses that a name stands for are checked when a webhook is made, and again before each message, which then goes
to a checked address: a name that changes its answer in between gains nothing.
"""

import ipaddress
import socket

import httpx

from shared.errors import Place, RequestError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

MOST_URL_CHARACTERS = 2000
#: Where clouds tell a machine its secrets, as far as the address' range does not say that already.
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
    # The host as it is, for to show it as Unicode may fail.
    if url.scheme not in ("http", "https") or not url.raw_host or url.userinfo or len(text) > MOST_URL_CHARACTERS:
        raise InvalidWebhookUrl
    return url


def find_addresses(url: httpx.URL, *, allow_private: bool) -> list[Address]:
    """Resolve a URL's host, now; raise `WebhookHostUnknown`, or `WebhookAddressNotAllowed` if any address is."""
    try:
        found = socket.getaddrinfo(host_of(url), None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        raise WebhookHostUnknown from exc
    addresses = [ipaddress.ip_address(sockaddr[0]) for *_, sockaddr in found]
    if not all(is_allowed(address, allow_private=allow_private) for address in addresses):
        raise WebhookAddressNotAllowed
    return addresses


def host_of(url: httpx.URL) -> str:
    """The host in ASCII, as it is resolved and as a certificate names it."""
    return url.raw_host.decode().rstrip(".")


def is_allowed(address: Address, *, allow_private: bool) -> bool:
    """Whether messages may go to an address. Private ones may be allowed; a cloud's metadata never is."""
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
    """The IPv4 address that packets to this IPv6 address would end at, if they would."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else None)
