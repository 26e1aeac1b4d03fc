"""Refuses control characters and line breaks in paths and queries before a route is called."""

from flask import Flask, request
from werkzeug.routing import IntegerConverter

from shared.bounded import MAX_ITEMS, is_odd
from shared.errors import InvalidRequest


class _Number(IntegerConverter):
    """A number in a path, with at most as many digits as `int` accepts."""

    regex = r"\d{1,40}"


def install(app: Flask) -> None:
    """Check every request. Call it before any route is registered; requests are checked after their key."""
    app.url_map.converters["int"] = _Number
    app.before_request(_refuse)


def _refuse() -> None:
    """Raise `InvalidRequest` for such text, or for too many parameters."""
    if request.endpoint is None:
        return  # no such route: the answer is 404 or 405
    if is_odd(request.path):
        raise InvalidRequest("The path contains a control character or a line break.")
    count = 0
    for name, value in request.args.items(multi=True):
        count += 1
        if is_odd(name) or is_odd(value):
            raise InvalidRequest("A query parameter contains a control character or a line break.")
    if count > MAX_ITEMS:
        raise InvalidRequest(f"The query has more than {MAX_ITEMS} parameters.")
