"""The base of all models of requests: its limits apply to every field that sets none of its own.

The API's JSON reader applies the same limits to every body before a model validates it, so that a new field is bounded
even if its type sets no limit.
"""

import re
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

#: Maximum characters of a string whose field has no limit of its own, and of any string.
MAX_CHARACTERS, MAX_STRING_CHARACTERS = 1000, 4096
#: Maximum items of a list or an object.
MAX_ITEMS = 1000
#: Maximum values in a body, and maximum depth of nesting.
MAX_VALUES, MAX_DEPTH = 20_000, 16
#: Maximum characters of a cron expression and of the name of a time zone.
MAX_CRON_CHARACTERS, MAX_ZONE_CHARACTERS = 200, 100
#: The largest numbers of PostgreSQL's `integer` and `bigint`.
MAX_INT4, MAX_INT8 = 2**31 - 1, 2**63 - 1

#: Control characters, line separators, and halves of surrogate pairs.
_ODD = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

Int4 = Annotated[int, Field(ge=0, le=MAX_INT4)]


class Bounded(BaseModel):
    """Rejects unknown fields, long strings, and numbers that are not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, str_max_length=MAX_CHARACTERS)

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core_schema)
        for field in handler.resolve_ref_schema(schema).get("properties", {}).values():
            _describe_bounds(field)
        return schema


def without_odd(text: str) -> str:
    """Return text with replacement characters for odd ones (see `is_odd`), cut to `MAX_STRING_CHARACTERS`."""
    return _ODD.sub("\N{REPLACEMENT CHARACTER}", text[:MAX_STRING_CHARACTERS])


def is_odd(text: str) -> bool:
    """Whether text contains a control character, a line separator or a lone surrogate: invalid in names and lines."""
    return _ODD.search(text) is not None


def _describe_bounds(schema: dict[str, Any]) -> None:
    """Add `MAX_ITEMS` to the JSON schema of lists and objects without a limit."""
    if schema.get("type") == "array":
        schema.setdefault("maxItems", MAX_ITEMS)
    if schema.get("type") == "object":
        schema.setdefault("maxProperties", MAX_ITEMS)
    for key in ("items", "anyOf", "oneOf", "allOf", "prefixItems", "additionalProperties"):
        inner = schema.get(key, ())
        for each in inner if isinstance(inner, list) else [inner]:
            if isinstance(each, dict):
                _describe_bounds(each)
