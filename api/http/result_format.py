"""A format in which results are exported: of findings, and of the detections of an evaluation."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

Writer = TypeVar("Writer", bound=Callable[..., Iterator[str]])


@dataclass(frozen=True)
class Format(Generic[Writer]):
    """A format of results, with the function that writes it."""

    media_type: str
    #: Raises a `RequestError` only before the first piece.
    write: Writer
    #: The beginning of an answer, for the description of the API; of JSON the schema says it.
    example: str | None = None
