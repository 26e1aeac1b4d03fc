"""The headers of every answer: no cache keeps it, no browser guesses its type, and no other site shows it."""

from flask import Flask, Response

#: What an answer says unless its view says otherwise: pages and pictures of the console, and files that never change.
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def install(app: Flask) -> None:
    """Add the headers to the answers of `app`, errors included; call it before everything that answers."""
    app.after_request(_add)


def _add(response: Response) -> Response:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response
