"""Error answers of RFC 9457, and the errors that every operation can return."""

from http import HTTPStatus
from typing import Any
from uuid import UUID

from pydantic import BaseModel


class InvalidParameter(BaseModel):
    """An invalid parameter, and the reason."""

    name: str
    detail: str


class Problem(BaseModel):
    """An error of RFC 9457."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    #: Stable, for use by programs.
    code: str
    #: For `limit_exceeded`: the setting that is exceeded.
    limit: str | None = None
    #: The invalid parameters with their reasons, if known.
    errors: list[InvalidParameter] | None = None
    #: For `not_found` and `ambiguous_name`: the ids of possible matches.
    candidates: list[UUID] | None = None


#: The body of an error answer.
PROBLEM = {"content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}}
#: Errors that every route can return.
PROBLEMS: dict[str | int | HTTPStatus, type[BaseModel] | dict[Any, Any] | None] = {
    "422": {"description": "A parameter is not valid.", **PROBLEM},
    "default": {"description": "Any other error.", **PROBLEM},
}
