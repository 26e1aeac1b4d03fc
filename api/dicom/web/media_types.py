"""Media types of requests and of `Accept` headers, PS3.18 section 8.7; their parameters can be media types, too.

Clients often omit the quotes around `type=application/dicom`, which strict parsers then truncate.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from email.message import Message
from typing import Self

from flask import request

from shared.errors import RequestError

DICOM = "application/dicom"
DICOM_JSON = "application/dicom+json"
RELATED = "multipart/related"
OCTETS = "application/octet-stream"

#: Any transfer syntax.
ANY = "*"

#: One element of an `Accept` header, with commas in quoted strings.
_ELEMENT = re.compile(r'(?:[^,"]|"(?:\\.|[^"\\])*")+')
_MAX_ELEMENTS = 100
_PLUS = re.compile(r"(application/\w+) (?=json|xml)", re.IGNORECASE)


class NotAcceptable(RequestError):
    """The route cannot return any of the media types and transfer syntaxes of the header `Accept`."""

    code = "not_acceptable"
    status = 406

    @classmethod
    def of(cls, offered: Iterable[str]) -> Self:
        """Return the error with the media types that are available."""
        return cls(f"The answer cannot be given as the request accepts it. It can be given as: {', '.join(offered)}.")


@dataclass(frozen=True)
class MediaType:
    """A media type with its DICOM parameters."""

    name: str
    #: Media type of the parts of a multipart type; None if not given.
    part: str | None = None
    transfer_syntax: str | None = None
    boundary: str | None = None
    quality: float = 1.0

    @property
    def content(self) -> str:
        """Return the media type of the content itself, as a part or as the complete body."""
        return (self.part or ANY) if self.name == RELATED else self.name

    @property
    def is_related(self) -> bool:
        """Return whether multipart/related is acceptable."""
        return self.name in (RELATED, "*/*")

    def takes_syntax(self, transfer_syntax: str) -> bool:
        """Return whether content in this transfer syntax is acceptable."""
        return self.transfer_syntax in (None, ANY, transfer_syntax)

    def takes(self, content: str) -> bool:
        """Return whether content of this media type is acceptable."""
        return self.content in (ANY, "*/*", content, f"{content.partition('/')[0]}/*")


def parse_media_type(text: str) -> MediaType:
    """Parse one media type; invalid parameters are ignored."""
    message = Message()
    message["Content-Type"] = re.sub(r"[^\x20-\x7e]", " ", text)
    named = {name.lower(): value for name, value in message.get_params([])[1:] if isinstance(value, str)}
    try:
        quality = min(1.0, max(0.0, float(named.get("q", "1"))))
    except ValueError:
        quality = 1.0
    return MediaType(
        name=message.get_params([("", "")])[0][0].lower(),
        part=(named.get("type") or "").lower() or None,
        transfer_syntax=named.get("transfer-syntax"),
        boundary=named.get("boundary"),
        quality=quality,
    )


def accepted() -> list[MediaType]:
    """Return the media types that the request accepts, by preference: first its `accept` parameter, then its header.

    As in PS3.18 section 8.7.8.1, the header applies if no type of the parameter is available.
    """
    # Browsers decode `+` in a URL as a space.
    asked = ",".join(_PLUS.sub(r"\1+", text) for text in request.args.getlist("accept"))
    header = request.headers.get("Accept")
    if not asked.strip():
        return parse_accept(header)
    return parse_accept(asked) + (parse_accept(header) if header else [])


def parse_accept(text: str | None) -> list[MediaType]:
    """Parse an `Accept` header, by preference. Without a header, any type is acceptable."""
    elements = [element.strip() for element in _ELEMENT.findall(text or "*/*")[:_MAX_ELEMENTS]]
    wanted = [parse_media_type(element) for element in elements if element]
    return sorted((each for each in wanted if each.quality > 0), key=lambda each: -each.quality)


def choose(accept: Sequence[MediaType], offered: Sequence[str]) -> str:
    """Return the preferred media type among the offered ones; in a tie, the first. Raises `NotAcceptable`."""
    for wanted in accept:
        for content in offered:
            if wanted.name != RELATED and wanted.takes(content):
                return content
    raise NotAcceptable.of(offered)
