"""Text that has no place in a path or a query is refused before any route sees it: control characters, line breaks."""

from flask import Flask, request
from werkzeug.routing import IntegerConverter

from shared.bounded import MOST_ITEMS, is_odd
from shared.errors import InvalidRequest


class _Number(IntegerConverter):
    """A number of a path, of no more digits than `int` reads."""

    regex = r"\d{1,40}"


def install(app: Flask) -> None:
    """Have every request looked at; call it before any route is registered, and after the key is known."""
    app.url_map.converters["int"] = _Number
    app.before_request(_refuse)


def _refuse() -> None:
    """Raise `InvalidRequest` for a path or a query with such text, or with more parameters than a route takes."""
    if request.endpoint is None:
        return  # there is no such route; the answer is 404 or 405
    if is_odd(request.path):
        raise InvalidRequest("The path has a control character or a line break.")
    count = 0
    for name, value in request.args.items(multi=True):
        count += 1
        if is_odd(name) or is_odd(value):
            raise InvalidRequest("A parameter of the query has a control character or a line break.")
    if count > MOST_ITEMS:
        raise InvalidRequest(f"The query has more than {MOST_ITEMS} parameters.")
