"""A request's JSON body, read strictly and within bounds before any model looks at it.

Python's reader takes more than JSON is (NaN, keys that come twice, halves of surrogate pairs), and no model can tell
any more. What is wrong with a body is the request's fault, whichever route it is for.
"""

import json
import math
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeVar

import flask

from shared.bounded import (
    MAX_DEPTH,
    MAX_INT8,
    MAX_ITEMS,
    MAX_STRING_CHARACTERS,
    MAX_VALUES,
    is_odd,
)
from shared.errors import InvalidRequest, RequestError, UnsupportedMediaType

#: More digits than any accepted number has.
_MAX_DIGITS = 40


View = TypeVar("View", bound=Callable[..., object])


def body_is_optional(view: View) -> View:
    """Allow requests without a body; the view gets an empty object."""
    view.body_is_optional = True  # type: ignore[attr-defined]
    return view


class MalformedJson(RequestError):
    """The body is not a JSON object in UTF-8."""

    code = "malformed_json"


class Request(flask.Request):
    """A request whose JSON is parsed by `read_json`."""

    def get_json(self, force: bool = False, silent: bool = False, cache: bool = True) -> Any:
        """Return the body's object, also where `silent`.

        Raises `UnsupportedMediaType`, `MalformedJson` and `InvalidRequest`.
        """
        if not (force or self.is_json):
            if not self.mimetype and not self.content_length:
                if getattr(flask.current_app.view_functions[self.endpoint or ""], "body_is_optional", False):
                    return {}
                raise InvalidRequest("Send a JSON object as the body.")
            raise UnsupportedMediaType("Send JSON with `Content-Type: application/json`.")
        return read_json(self.get_data())


def read_json(data: bytes) -> dict[str, Any]:
    """Parse a JSON object and check its limits; raise `MalformedJson` or `InvalidRequest`."""
    try:
        found = json.loads(
            data.decode("utf-8-sig"),
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
            parse_int=_integer,
            parse_float=_float,
        )
    except UnicodeDecodeError as exc:
        raise MalformedJson from exc
    except json.JSONDecodeError as exc:
        raise MalformedJson(f"The body is not JSON: {exc.msg} at line {exc.lineno}, column {exc.colno}.") from exc
    except RecursionError as exc:
        raise _too_deep() from exc
    if not isinstance(found, dict):
        raise MalformedJson("The body is JSON, but not an object.")
    _check(found)
    return found


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise MalformedJson("An object in the body has the same key twice.")
    return found


def _refuse_constant(_: str) -> NoReturn:
    raise MalformedJson("JSON has no NaN and no Infinity.")


def _integer(text: str) -> int:
    if len(text) > _MAX_DIGITS or abs(number := int(text)) > MAX_INT8:
        raise InvalidRequest(f"A number in the body is out of range: integers are at most {MAX_INT8}.")
    return number


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise InvalidRequest("A number in the body is out of range.")
    return number


def _check(found: dict[str, Any]) -> None:
    """Raise `InvalidRequest` for long or multi-line strings, too many values, or too deep nesting."""
    level: list[Any] = [found]
    count = 0
    for _ in range(MAX_DEPTH):
        level = [inner for value in level for inner in _inside(value)]
        count += len(level)
        if count > MAX_VALUES:
            raise InvalidRequest(f"The body has more than {MAX_VALUES} values.")
        if not level:
            return
    raise _too_deep()


def _inside(value: Any) -> Iterator[Any]:
    """Yield the items of a list or an object, including keys; check a string."""
    if isinstance(value, str):
        if len(value) > MAX_STRING_CHARACTERS:
            raise InvalidRequest(f"A string in the body has more than {MAX_STRING_CHARACTERS} characters.")
        if is_odd(value):
            raise InvalidRequest(
                "A string in the body contains a control character, a line break or half a surrogate pair."
            )
    elif isinstance(value, dict | list):
        if len(value) > MAX_ITEMS:
            raise InvalidRequest(f"A list or object in the body has more than {MAX_ITEMS} items.")
        yield from value
        if isinstance(value, dict):
            yield from value.values()


def _too_deep() -> InvalidRequest:
    return InvalidRequest(f"The body is nested deeper than {MAX_DEPTH} levels.")
