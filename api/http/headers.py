"""Security headers of every answer: no caching, no guessing of media types, no embedding in other sites."""

from flask import Flask, Response

#: Defaults; a view may set other values, as the console's pages, pictures and static files do.
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def install(app: Flask) -> None:
    """Add the headers to all answers of `app`, including errors. Call it before anything that may answer."""
    app.after_request(_add)


def _add(response: Response) -> Response:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response
