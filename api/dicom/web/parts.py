"""Answers as `multipart/related`, whose parts are read while they are sent."""

import secrets
from collections.abc import Iterator
from itertools import chain, islice
from typing import TypeVar

from flask import Response

from api.dicom.web.media_types import RELATED

Found = TypeVar("Found")


def related(content_type: str, parts: Iterator[tuple[str, Iterator[bytes]]]) -> Response:
    """Return an answer of parts, each with its media type and bytes. An error while sending breaks the answer off."""
    boundary = secrets.token_hex(16)

    def body() -> Iterator[bytes]:
        for part_type, chunks in parts:
            yield f"--{boundary}\r\nContent-Type: {part_type}\r\n\r\n".encode()
            yield from chunks
            yield b"\r\n"
        yield f"--{boundary}--\r\n".encode()

    return Response(
        primed(body(), 2),
        content_type=f'{RELATED}; type="{content_type}"; boundary={boundary}',
        direct_passthrough=True,
    )


def primed(found: Iterator[Found], count: int = 1) -> Iterator[Found]:
    """Read the first items in advance, so that errors in them are returned as error answers."""
    return chain(list(islice(found, count)), found)
