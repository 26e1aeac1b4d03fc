"""The base of all models of requests: its limits apply to every field that sets none of its own.

The API's JSON reader applies the same limits to every body before a model validates it, so that a new field is bounded
even if its type sets no limit.
"""

import re
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

#: Of a string, where its field states nothing else, and of any string at all.
MOST_CHARACTERS, LONGEST_STRING = 1000, 4096
#: Of a list or an object.
MOST_ITEMS = 1000
#: Values in a body, all together, and how deep they may be nested.
MOST_VALUES, MOST_DEPTH = 20_000, 16
#: Characters of a cron expression, and of a time zone's name.
MOST_CRON, MOST_ZONE = 200, 100
#: The largest numbers of PostgreSQL's `integer` and `bigint`.
MOST_INT4, MOST_INT8 = 2**31 - 1, 2**63 - 1

#: Control characters, line separators, and halves of surrogate pairs.
_ODD = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

Int4 = Annotated[int, Field(ge=0, le=MOST_INT4)]


class Bounded(BaseModel):
    """Takes no unknown fields, no long strings, no long lists, and no numbers that are not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, str_max_length=MOST_CHARACTERS)

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core_schema)
        for field in handler.resolve_ref_schema(schema).get("properties", {}).values():
            _describe_bounds(field)
        return schema


def without_odd(text: str) -> str:
    """Return text with a replacement character for each that `is_odd` finds, and no more than a string may have."""
    return _ODD.sub("\N{REPLACEMENT CHARACTER}", text[:LONGEST_STRING])


def is_odd(text: str) -> bool:
    """Whether text holds a character that belongs into no name and no value of one line."""
    return _ODD.search(text) is not None


def _describe_bounds(schema: dict[str, Any]) -> None:
    """Say the limits of `MOST_ITEMS` in the description too."""
    if schema.get("type") == "array":
        schema.setdefault("maxItems", MOST_ITEMS)
    if schema.get("type") == "object":
        schema.setdefault("maxProperties", MOST_ITEMS)
    for key in ("items", "anyOf", "oneOf", "allOf", "prefixItems", "additionalProperties"):
        inner = schema.get(key, ())
        for each in inner if isinstance(inner, list) else [inner]:
            if isinstance(each, dict):
                _describe_bounds(each)
