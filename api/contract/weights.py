"""Requests and answers about weights."""

from typing import Any

from pydantic import BaseModel, Field

from shared.bounded import Bounded

_BINARY = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
#: The body of a request.
BYTES: dict[str, Any] = {"required": True, "content": _BINARY}
#: An answer.
WEIGHTS: dict[str, Any] = {"description": "The weights, as a safetensors file.", "content": _BINARY}


class WeightsPath(Bounded):
    """Identifies weights."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the file, in hexadecimal digits.")


class WeightsAnswer(BaseModel):
    """Weights in the object store."""

    sha256: str
    byte_count: int
