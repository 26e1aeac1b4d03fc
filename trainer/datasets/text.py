"""Reads the text of an annotation file as spreadsheets, Kaggle and other tools save it."""

import codecs
import gzip
import io
import zipfile
import zlib

from trainer.datasets.annotations import MalformedAnnotations

#: Maximum size of an unpacked file; the largest real tables have a hundredth of it.
MAX_BYTES = 2**30

_GZIP, _ZIP = b"\x1f\x8b", b"PK\x03\x04"
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_EXPECTED = "Save it as text in UTF-8, plain or compressed with gzip."


def read_text(data: bytes) -> str:
    """Unpack gzip, or a ZIP archive of one file, and decode UTF-8 or UTF-16. Raises `MalformedAnnotations`."""
    plain = _unpack(data)
    for mark, encoding in _MARKS:
        if plain.startswith(mark):
            return _decode(plain[len(mark) :], encoding)
    # UTF-16 without a byte order mark: every other byte of its first characters is 0.
    if plain[1:4:2] == b"\0\0":
        return _decode(plain, "utf-16-le")
    if plain[0:3:2] == b"\0\0":
        return _decode(plain, "utf-16-be")
    return _decode(plain, "utf-8")


def _unpack(data: bytes) -> bytes:
    try:
        if data.startswith(_GZIP):
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
                return _bounded(file.read(MAX_BYTES + 1))
        if data.startswith(_ZIP):
            return _unzip(data)
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError, NotImplementedError) as exc:
        raise MalformedAnnotations(f"The annotation file is compressed and cannot be unpacked. {_EXPECTED}") from exc
    return _bounded(data)


def _unzip(data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if "[Content_Types].xml" in archive.namelist():
            raise MalformedAnnotations("The annotation file is a workbook of a spreadsheet program. Save it as CSV.")
        files = [member for member in archive.infolist() if not member.is_dir() and "__MACOSX" not in member.filename]
        if len(files) != 1:
            raise MalformedAnnotations(
                f"The annotation file is a ZIP archive of {len(files)} files. Unpack it and name the one to read."
            )
        with archive.open(files[0]) as file:
            return _bounded(file.read(MAX_BYTES + 1))


def _bounded(data: bytes) -> bytes:
    if len(data) > MAX_BYTES:
        raise MalformedAnnotations(f"The annotation file has more than {MAX_BYTES:,} bytes. Split it.")
    return data


def _decode(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as exc:
        line = data[: exc.start].count(b"\n") + 1
        raise MalformedAnnotations(f"Line {line}: the annotation file is not text in UTF-8. {_EXPECTED}") from exc
