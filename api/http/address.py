"""The API's address as clients use it: `CARINA_PUBLIC_URL`, or else the address in the request and its trusted proxies.

URLs are made from the request, whose scheme, host and prefix (WSGI's `SCRIPT_NAME`) are corrected here before Flask
reads them. A proxy that strips a prefix from the path sends the prefix in `X-Forwarded-Prefix`.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from flask import Flask, request
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.wrappers import Response

from api.http.errors import problem_for
from shared.network.addresses import is_authority, is_prefix, plain_address
from shared.settings import Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

_SCHEMES = {"http": "80", "https": "443"}


def install(app: Flask, settings: Settings) -> None:
    """Correct the address of every request of `app`."""
    inner = _Address(app.wsgi_app, settings.public_url)
    if (proxies := settings.trusted_proxies) == 0:
        app.wsgi_app = inner  # type: ignore[method-assign]
        return
    # Each proxy appends to the list of addresses; scheme, host, port and prefix are those of the nearest proxy.
    app.wsgi_app = ProxyFix(inner, x_for=proxies, x_proto=1, x_host=1, x_port=1, x_prefix=1)  # type: ignore[method-assign]


def absolute(path: str) -> str:
    """Return the absolute URL of a path, as clients use it. All absolute URLs are made here."""
    return request.root_url.rstrip("/") + path


class _Address:
    """WSGI middleware that corrects the address of a request, or refuses an invalid one."""

    def __init__(self, app: "WSGIApplication", public_url: str) -> None:
        self._app = app
        self._public = urlsplit(public_url) if public_url else None

    def __call__(self, environ: dict[str, Any], start_response: "StartResponse") -> Iterable[bytes]:
        environ["REMOTE_ADDR"] = _remote_address(environ)
        host: str | None
        if self._public is not None:
            scheme, host, prefix = self._public.scheme, self._public.netloc, self._public.path
        else:
            scheme, host = environ["wsgi.url_scheme"].lower(), environ.get("HTTP_HOST")
            prefix = environ.get("SCRIPT_NAME", "").strip().rstrip("/")
            if complaint := _complaint(scheme, host, prefix):
                return Response(problem_for(400, complaint), 400, content_type="application/problem+json")(
                    environ, start_response
                )
        if host is not None:
            environ["HTTP_HOST"] = host
            # For HTTP/1.0, which has no Host header, and for code that reads only these two.
            environ["SERVER_NAME"], environ["SERVER_PORT"] = _split(host, _SCHEMES[scheme])
        environ["wsgi.url_scheme"], environ["SCRIPT_NAME"] = scheme, prefix
        return self._app(environ, start_response)


def _complaint(scheme: str, host: str | None, prefix: str) -> str | None:
    if scheme not in _SCHEMES:
        return "X-Forwarded-Proto must be http or https."
    if host is not None and not is_authority(host):
        return "The host in Host, or in X-Forwarded-Host and X-Forwarded-Port, is not valid."
    if not is_prefix(prefix):
        return "X-Forwarded-Prefix must be a path such as /carina, with only letters, digits and . _ ~ - in it."
    return None


def _split(host: str, default_port: str) -> tuple[str, str]:
    name, colon, port = host.rpartition(":")
    return (name, port) if colon and not host.endswith("]") else (host, default_port)


def _remote_address(environ: dict[str, Any]) -> str:
    """Return the client's address without a port, and an IPv4 address of a dual-stack socket as IPv4."""
    peer = environ.get("werkzeug.proxy_fix.orig", {}).get("REMOTE_ADDR") or ""
    return plain_address(environ.get("REMOTE_ADDR") or "") or plain_address(peer) or ""
