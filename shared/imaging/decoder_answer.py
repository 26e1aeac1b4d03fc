"""The answer of a decoder process: packed in the child, and checked completely by the parent.

A child has read hostile bytes with native code, so an attacker may control it. Nothing is pickled. Each length is
checked against its limit before the data is read, and each field against its type and range.
"""

import json
import struct
from collections.abc import Callable
from dataclasses import asdict

from pydantic import TypeAdapter

from shared.errors import CODES, CarinaError, DecoderProcessLost, PermanentError, PlainCode
from shared.imaging.rendition import Rendition

_HEAD = struct.Struct(">II")  # bytes of the JSON object, bytes of the PNG
_MAX_TEXT_BYTES = 256 * 1024
_MAX_DETAIL_CHARACTERS = 500
#: The first bytes of a PNG, up to width and height (PNG section 11.2.1).
_PNG_HEAD = struct.Struct(">16sII")
_PNG_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"

_RENDITION = TypeAdapter(Rendition)


class UnbelievableAnswer(Exception):
    """The answer has a form that an unmodified decoder process cannot produce."""


def pack_rendition(rendition: Rendition) -> bytes:
    """Pack an answer with a rendition."""
    fields = asdict(rendition) | {"facts": rendition.facts.model_dump(mode="json")}
    return _pack(fields, fields.pop("png"))


def pack_error(code: str, detail: str) -> bytes:
    """Pack an answer with an error of `shared.errors`."""
    return _pack({"code": code, "detail": detail})


def _pack(fields: dict[str, object], png: bytes = b"") -> bytes:
    text = json.dumps(fields).encode()
    return _HEAD.pack(len(text), len(png)) + text + png


def read_answer(read: Callable[[int], bytes], rendition_px: int, max_image_pixels: int) -> Rendition | CarinaError:
    """Read an answer with `read`, which returns exactly the requested number of bytes.

    Raises `UnbelievableAnswer`, and the errors of `read`.
    """
    text_bytes, png_bytes = _HEAD.unpack(read(_HEAD.size))
    # Incompressible pixels take slightly more than one byte each in a PNG.
    if text_bytes > _MAX_TEXT_BYTES or png_bytes > 2 * rendition_px**2 + _MAX_TEXT_BYTES:
        raise UnbelievableAnswer
    text, png = read(text_bytes), read(png_bytes)
    try:
        fields = json.loads(text)
        if "code" in fields:
            return _error_class(fields["code"])(str(fields["detail"])[:_MAX_DETAIL_CHARACTERS])
        rendition = _RENDITION.validate_python({**fields, "png": png}, strict=False)
    except (ValueError, TypeError, LookupError, RecursionError) as exc:
        raise UnbelievableAnswer from exc
    _check_sizes(rendition, rendition_px, max_image_pixels)
    return rendition


def _error_class(code: str) -> type[CarinaError]:
    found = CODES[code]
    if isinstance(found, PlainCode) or not issubclass(found, PermanentError | DecoderProcessLost):
        raise UnbelievableAnswer
    return found


def _check_sizes(rendition: Rendition, rendition_px: int, max_image_pixels: int) -> None:
    start, width_px, height_px = _PNG_HEAD.unpack(rendition.png[: _PNG_HEAD.size].ljust(_PNG_HEAD.size))
    if start != _PNG_START or (height_px, width_px) != (rendition.height_px, rendition.width_px):
        raise UnbelievableAnswer
    original_height_px, original_width_px = rendition.original_height_px, rendition.original_width_px
    if min(height_px, width_px, original_height_px, original_width_px) < 1 or max(height_px, width_px) > rendition_px:
        raise UnbelievableAnswer
    if original_height_px * original_width_px > max_image_pixels:
        raise UnbelievableAnswer
