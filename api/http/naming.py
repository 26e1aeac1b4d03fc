"""An id in a path that names nothing: which one was meant.

A path takes whole ids only. The beginning of one is answered as an id that there is not, too, but with the ids that
begin like it, which is how the command line finds the id that it then asks for.
"""

import contextlib
from collections.abc import Sequence
from uuid import UUID

from flask import Flask, g, request
from werkzeug.routing import UUIDConverter

from api.http.services import services
from shared.database.lookup import KINDS, find_meant
from shared.errors import CarinaError, NotFound
from shared.suggestions import LEAST_DIGITS, AmbiguousName, digits_of, no_such


class _Id(UUIDConverter):
    """An id, or the beginning of one, which is left as text."""

    regex = rf"[0-9A-Fa-f][0-9A-Fa-f-]{{{LEAST_DIGITS - 1},35}}"

    def to_python(self, value: str) -> UUID | str:  # type: ignore[override]
        try:
            return super().to_python(value) if len(value) == 36 else value
        except ValueError:
            return value

    def to_url(self, value: UUID | str) -> str:
        return str(value)


def install(app: Flask) -> None:
    """Take beginnings of ids in paths; call it before any route is registered, and after the key is known."""
    app.url_map.converters["uuid"] = _Id
    app.before_request(_refuse_beginnings)


def explain(error: NotFound) -> NotFound:
    """Return an error about an id of the path with the ids that may have been meant."""
    for name, value in (request.view_args or {}).items():
        kind = name.removesuffix("_id")
        if isinstance(value, UUID) and kind in KINDS and "identity" in g and not error.candidates:
            # Where the database does not answer, there is no suggestion.
            with contextlib.suppress(CarinaError):
                if ids := _meant(kind, str(value)):
                    return no_such(kind, str(value), ids)
    return error


def _refuse_beginnings() -> None:
    for name, value in (request.view_args or {}).items():
        kind = name.removesuffix("_id")
        if isinstance(value, str) and kind in KINDS and name != kind:
            ids = _meant(kind, value)
            if len(ids) > 1:
                raise AmbiguousName(kind, value, ids)
            raise no_such(kind, value, ids)


def _meant(kind: str, text: str) -> Sequence[UUID]:
    with services().database.begin() as session:
        return find_meant(session, KINDS[kind], digits_of(text))
