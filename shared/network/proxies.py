"""Selects the proxy for each request from the environment (`HTTPS_PROXY`, `NO_PROXY` and so on).

Requests to loopback never use a proxy, whatever `NO_PROXY` is: Carina's servers listen on 127.0.0.1 by default, where
no proxy can reach them.
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
    """Return the environment's proxy for a URL, or None."""
    parts = urlsplit(url)
    if is_loopback(url) or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    return proxy if proxy is None or "://" in proxy else f"http://{proxy}"


class Transport(httpx.BaseTransport):
    """Sends each request through the proxy for its URL, if there is one. Thread-safe.

    httpx itself prepares all proxies of the environment at once, and fails if it does not support one of them, even if
    no request needs it. Raises `ProxyUnusable`.
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
                    # The TLS context of the proxy itself is needed only for an `https:` proxy.
                    own = self._verify if proxy and proxy.startswith("https:") else None
                    named = httpx.Proxy(proxy, ssl_context=own) if proxy else None
                    self._by_proxy[proxy] = httpx.HTTPTransport(verify=self._verify, proxy=named)
                except (ValueError, ImportError, httpx.InvalidURL) as exc:
                    raise ProxyUnusable from exc
            return self._by_proxy[proxy]


def http_client(*, verify: ssl.SSLContext | None = None, **options: Any) -> httpx.Client:
    """Return a client that selects the proxy by URL; the options are those of `httpx.Client`."""
    return httpx.Client(transport=Transport(verify or make_context()), **options)
