"""Ids in paths: suggestions for unknown ids, and lookup by the beginning of an id.

A path accepts complete ids only. The beginning of an id is answered with an error that lists the ids that begin with
it; the command line uses this to find the complete id.
"""

import contextlib
from collections.abc import Sequence
from uuid import UUID

from flask import Flask, g, request
from werkzeug.routing import UUIDConverter

from api.http.services import services
from shared.database.lookup import KINDS, find_meant
from shared.errors import CarinaError, NotFound
from shared.suggestions import MIN_DIGITS, AmbiguousName, digits_of, no_such


class _Id(UUIDConverter):
    """A complete id as a UUID, or the beginning of an id as text."""

    regex = rf"[0-9A-Fa-f][0-9A-Fa-f-]{{{MIN_DIGITS - 1},35}}"

    def to_python(self, value: str) -> UUID | str:  # type: ignore[override]
        try:
            return super().to_python(value) if len(value) == 36 else value
        except ValueError:
            return value

    def to_url(self, value: UUID | str) -> str:
        return str(value)


def install(app: Flask) -> None:
    """Accept beginnings of ids in paths. Call it before any route is registered; ids are looked up after the key."""
    app.url_map.converters["uuid"] = _Id
    app.before_request(_refuse_beginnings)


def explain(error: NotFound) -> NotFound:
    """Return the error, with suggestions if it is about an id of the path."""
    for name, value in (request.view_args or {}).items():
        kind = name.removesuffix("_id")
        if isinstance(value, UUID) and kind in KINDS and "identity" in g and not error.candidates:
            # Without the database there are no suggestions.
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
