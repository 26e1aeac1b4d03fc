"""What a request sends and what it accepts, PS3.18 section 8.7: media types whose parameters are media types, too.

Senders leave out the quotes around `type=application/dicom`, which strict parsers then cut short.
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

#: Whatever the answer's transfer syntax is.
ANY = "*"

#: What each route may answer besides, for its description.

_ELEMENT = re.compile(r'(?:[^,"]|"(?:\\.|[^"\\])*")+')
_MOST_ELEMENTS = 100
_PLUS = re.compile(r"(application/\w+) (?=json|xml)", re.IGNORECASE)


class NotAcceptable(RequestError):
    """The route cannot return any of the media types and transfer syntaxes of the header `Accept`."""

    code = "not_acceptable"
    status = 406

    @classmethod
    def of(cls, offered: Iterable[str]) -> Self:
        """Return the error that lists what can be given."""
        return cls(f"The answer cannot be given as the request accepts it. It can be given as: {', '.join(offered)}.")


@dataclass(frozen=True)
class MediaType:
    """One media type with what DICOM says of it."""

    name: str
    #: Of the parts of a multipart; None where it is not said.
    part: str | None = None
    transfer_syntax: str | None = None
    boundary: str | None = None
    quality: float = 1.0

    @property
    def content(self) -> str:
        """The media type of the thing itself, whether it is a part or the whole."""
        return (self.part or ANY) if self.name == RELATED else self.name

    @property
    def is_related(self) -> bool:
        """Whether a multipart/related is what is wanted."""
        return self.name in (RELATED, "*/*")

    def takes_syntax(self, transfer_syntax: str) -> bool:
        """Whether a thing in this transfer syntax is acceptable."""
        return self.transfer_syntax in (None, ANY, transfer_syntax)

    def takes(self, content: str) -> bool:
        """Whether a thing of this media type is acceptable."""
        return self.content in (ANY, "*/*", content, f"{content.partition('/')[0]}/*")


def parse_media_type(text: str) -> MediaType:
    """Read one media type; what makes no sense in it is left out."""
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
    """Return what the request accepts, the most wanted first: by its `accept` parameter, then by its header.

    As PS3.18 section 8.7.8.1 has it: where nothing of the parameter can be given, the header counts.
    """
    # A browser's address line turns `+` into a space.
    asked = ",".join(_PLUS.sub(r"\1+", text) for text in request.args.getlist("accept"))
    header = request.headers.get("Accept")
    if not asked.strip():
        return parse_accept(header)
    return parse_accept(asked) + (parse_accept(header) if header else [])


def parse_accept(text: str | None) -> list[MediaType]:
    """Read an `Accept` header, the most wanted first; without one anything is acceptable."""
    elements = [element.strip() for element in _ELEMENT.findall(text or "*/*")[:_MOST_ELEMENTS]]
    wanted = [parse_media_type(element) for element in elements if element]
    return sorted((each for each in wanted if each.quality > 0), key=lambda each: -each.quality)


def choose(accept: Sequence[MediaType], offered: Sequence[str]) -> str:
    """Return the offered media type that is wanted most, the first of equals; raise `NotAcceptable`."""
    for wanted in accept:
        for content in offered:
            if wanted.name != RELATED and wanted.takes(content):
                return content
    raise NotAcceptable.of(offered)
