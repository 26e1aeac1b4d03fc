"""Which proxy a request goes through: the environment's (`HTTPS_PROXY`, `NO_PROXY` and so on), but none to loopback.

Carina's own servers listen on 127.0.0.1 by default, and no proxy can reach that address of this machine. A user behind
a proxy need not know that: no request to loopback takes a proxy, whatever `NO_PROXY` says.
"""

import ssl
import threading
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from shared.errors import ProxyUnusable
from shared.network.tls import make_context
from shared.network.urls import is_loopback


def proxy_of(url: str) -> str | None:
    """The proxy that the environment names for a URL."""
    parts = urlsplit(url)
    if is_loopback(url) or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    return proxy if proxy is None or "://" in proxy else f"http://{proxy}"


class Transport(httpx.BaseTransport):
    """Sends each request through the proxy for its URL, if there is one. Safe to share between threads.

    httpx itself prepares every proxy of the environment at once, and fails for one that it cannot use even where no
    request needs it. Raises `ProxyUnusable`.
    """

    def __init__(self, verify: ssl.SSLContext) -> None:
        self._verify = verify
        self._by_proxy: dict[str | None, httpx.HTTPTransport] = {}
        self._lock = threading.Lock()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request."""
        return self._through(proxy_of(str(request.url))).handle_request(request)

    def close(self) -> None:
        """Close every connection."""
        for transport in self._by_proxy.values():
            transport.close()

    def _through(self, proxy: str | None) -> httpx.HTTPTransport:
        with self._lock:
            if proxy not in self._by_proxy:
                try:
                    # Its own certificate counts only where the proxy itself is reached over TLS.
                    own = self._verify if proxy and proxy.startswith("https:") else None
                    named = httpx.Proxy(proxy, ssl_context=own) if proxy else None
                    self._by_proxy[proxy] = httpx.HTTPTransport(verify=self._verify, proxy=named)
                except (ValueError, ImportError, httpx.InvalidURL) as exc:
                    raise ProxyUnusable from exc
            return self._by_proxy[proxy]


def http_client(*, verify: ssl.SSLContext | None = None, **options: Any) -> httpx.Client:
    """A client whose requests go through the proxy of their URL; the options are `httpx.Client`'s."""
    return httpx.Client(transport=Transport(verify or make_context()), **options)
