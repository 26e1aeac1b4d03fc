"""Where clients reach this API: as `CARINA_PUBLIC_URL` names it, else as the request and trusted proxies say.

Everything that makes a URL asks the request, whose scheme, host and prefix (WSGI's `SCRIPT_NAME`) are set right here,
before Flask sees it. A proxy strips its prefix from the path, and says it in `X-Forwarded-Prefix`.
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
    """Have every request of `app` know its address as clients do."""
    inner = _Address(app.wsgi_app, settings.public_url)
    if (proxies := settings.trusted_proxies) == 0:
        app.wsgi_app = inner  # type: ignore[method-assign]
        return
    # Each proxy adds to the list of addresses; scheme, host, port and prefix are what the nearest one says.
    app.wsgi_app = ProxyFix(inner, x_for=proxies, x_proto=1, x_host=1, x_port=1, x_prefix=1)  # type: ignore[method-assign]


def absolute(path: str) -> str:
    """Return the URL of a path of ours, as clients reach it; the one place that makes absolute URLs."""
    return request.root_url.rstrip("/") + path


class _Address:
    """WSGI middleware that sets the address of a request, or refuses an address that is not valid in a URL."""

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
            # Also for HTTP/1.0, which knows no Host, and for what looks at these two alone.
            environ["SERVER_NAME"], environ["SERVER_PORT"] = _split(host, _SCHEMES[scheme])
        environ["wsgi.url_scheme"], environ["SCRIPT_NAME"] = scheme, prefix
        return self._app(environ, start_response)


def _complaint(scheme: str, host: str | None, prefix: str) -> str | None:
    if scheme not in _SCHEMES:
        return "X-Forwarded-Proto must be http or https."
    if host is not None and not is_authority(host):
        return "The host that the request names, in Host or in X-Forwarded-Host and -Port, is not a host."
    if not is_prefix(prefix):
        return "X-Forwarded-Prefix must be a path such as /carina, of letters, digits and . _ ~ - alone."
    return None


def _split(host: str, default_port: str) -> tuple[str, str]:
    name, colon, port = host.rpartition(":")
    return (name, port) if colon and not host.endswith("]") else (host, default_port)


def _remote_address(environ: dict[str, Any]) -> str:
    """The client's address; a proxy may add its port, and a dual-stack socket writes IPv4 addresses as IPv6."""
    peer = environ.get("werkzeug.proxy_fix.orig", {}).get("REMOTE_ADDR") or ""
    return plain_address(environ.get("REMOTE_ADDR") or "") or plain_address(peer) or ""
