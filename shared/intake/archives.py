"""Zip, tar and tar.gz files, unpacked as a stream: yields the bytes of one entry after the other.

The path of an entry is neither used nor shown, only its place in the archive. The figures that an archive states are
not trusted. Sizes are summed up as they are stated, and no entry yields more than it states, so that a bomb is
recognised before it is unpacked. Reading to the next entry is limited, so that a header cannot fill the memory.
"""

import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from gzip import GzipFile
from typing import IO, cast

from shared.errors import PermanentError, Place

#: How much of a file `sniff_archive` wants to see.
SNIFFED_BYTES = 512

_CHUNK_BYTES = 256 * 1024
#: Of a zip's directory: 100,000 entries with names of 600 bytes.
_MOST_DIRECTORY_BYTES = 64 * 1024**2
#: Of what stands between two entries of a tar: long names and the like.
_MOST_HEADER_BYTES = 256 * 1024
#: Of what comes after the end of a tar: its padding.
_MOST_TRAILING_BYTES = 1024**2
_DIRECTORY_ENTRY, _ENCRYPTED = b"PK\x01\x02", 0x1


class ArchiveError(PermanentError, shares_code=True):
    """The archive cannot be unpacked."""

    places = Place.FILE


class MalformedArchive(ArchiveError):
    """The archive is damaged or incomplete. Entries before the damage were processed."""

    code = "malformed_archive"


class ArchiveTooLarge(ArchiveError):
    """The archive unpacks to more bytes than `CARINA_MAX_ARCHIVE_BYTES`."""

    code = "archive_too_large"


class ArchiveTooManyEntries(ArchiveError):
    """The archive has more entries than `CARINA_MAX_ARCHIVE_ENTRIES`."""

    code = "archive_too_many_entries"


class ArchiveRatio(ArchiveError):
    """The archive unpacks to more than `CARINA_MAX_ARCHIVE_RATIO` times its size."""

    code = "archive_ratio"


class NestedArchive(PermanentError):
    """The archive entry is an archive itself. Nested archives are not unpacked."""

    code = "nested_archive"


class EncryptedEntry(PermanentError):
    """The archive entry is encrypted."""

    code = "encrypted_entry"


class UnsupportedCompression(PermanentError):
    """The archive entry uses an unsupported compression method. Use `stored` or `deflated`."""

    code = "unsupported_compression"


class DamagedEntry(PermanentError):
    """The archive entry is damaged."""

    code = "damaged_entry"


class ArchiveKind(StrEnum):
    """What `unpack` takes."""

    ZIP = "zip"
    TAR = "tar"
    GZIP = "gzip"  # of a tar


@dataclass(frozen=True)
class Limits:
    """What an archive may unpack to."""

    entries: int
    unpacked_bytes: int
    ratio: float


@dataclass(frozen=True)
class Entry:
    """A regular file in an archive."""

    #: Its place among all that the archive holds, from 0.
    number: int
    #: As the archive says; `chunks` yield no more.
    byte_count: int
    #: Its bytes, to be read before the next entry is asked for, or not at all. They raise `NestedArchive`,
    #: `EncryptedEntry`, `UnsupportedCompression` and `DamagedEntry`, after which the next entry is still fine, and
    #: `ArchiveError`.
    chunks: Iterator[bytes]


def sniff_archive(prefix: bytes) -> ArchiveKind | None:
    """The kind of archive that a file's first bytes show, if any."""
    if prefix[128:132] == b"DICM":  # a preamble may hold another format's magic number
        return None
    if prefix.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return ArchiveKind.ZIP
    if prefix.startswith(b"\x1f\x8b\x08"):
        return ArchiveKind.GZIP
    return ArchiveKind.TAR if prefix[257:262] == b"ustar" else None


def unpack(file: IO[bytes], kind: ArchiveKind, byte_count: int, limits: Limits) -> Iterator[Entry]:
    """Yield an archive's regular files; links, devices and folders are left out, but count.

    `file` holds `byte_count` bytes, and has to be seekable for a zip. Raises `ArchiveError` for what is damaged or
    beyond the limits, after the entries that come before that, and what `file` raises.
    """
    tally = _Tally(byte_count, limits)
    if kind is ArchiveKind.ZIP:
        return _unpack_zip(file, byte_count, tally)
    unzipped = cast("IO[bytes]", GzipFile(fileobj=file, mode="rb")) if kind is ArchiveKind.GZIP else file
    return _unpack_tar(unzipped, tally)


class _Tally:
    """Counts what is about to be unpacked."""

    def __init__(self, byte_count: int, limits: Limits) -> None:
        self._byte_count, self._limits = byte_count, limits
        self._entries = self._unpacked_bytes = 0

    def add(self, byte_count: int) -> None:
        self._entries += 1
        self._unpacked_bytes += byte_count
        if byte_count < 0:
            raise MalformedArchive
        if self._entries > self._limits.entries:
            raise ArchiveTooManyEntries
        if self._unpacked_bytes > self._limits.unpacked_bytes:
            raise ArchiveTooLarge
        if self._unpacked_bytes > self._byte_count * self._limits.ratio:
            raise ArchiveRatio

    def check_directory(self, data: bytes) -> None:
        if data.count(_DIRECTORY_ENTRY) > self._limits.entries:
            raise ArchiveTooManyEntries


# --- zip -------------------------------------------------------------------------------------------------------------


class _ZipSource:
    """A file whose reads are bounded: what a zip says about its directory's size is not believed."""

    def __init__(self, file: IO[bytes], check: Callable[[bytes], None]) -> None:
        self._file, self._check = file, check
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, count: int = -1) -> bytes:
        if count > _MOST_DIRECTORY_BYTES:
            raise MalformedArchive("The archive's directory is too large.")
        data = self._file.read(count)
        self._check(data)
        return data

    def opened(self) -> None:
        """From now on entries are read, which may hold anything."""
        self._check = lambda _: None


def _unpack_zip(file: IO[bytes], byte_count: int, tally: _Tally) -> Iterator[Entry]:
    with _damage_told():
        source = _ZipSource(file, tally.check_directory)
        archive = zipfile.ZipFile(cast("IO[bytes]", source))
        source.opened()
        _refuse_overlaps(archive, byte_count)
    for number, info in enumerate(archive.infolist()):
        tally.add(info.file_size)
        mode = stat.S_IFMT(info.external_attr >> 16)
        if not info.filename.endswith("/") and mode in (0, stat.S_IFREG):  # its own check fails on an empty name
            yield Entry(number, info.file_size, _no_archive(_zip_chunks(archive, info)))


def _refuse_overlaps(archive: zipfile.ZipFile, byte_count: int) -> None:
    """Raise where two entries share bytes, with which a small file unpacks to anything."""
    end = 0
    for info in sorted(archive.infolist(), key=lambda info: info.header_offset):
        if info.header_offset < end:
            raise MalformedArchive("The archive's entries overlap.")
        end = info.header_offset + zipfile.sizeFileHeader + info.compress_size  # type: ignore[attr-defined]
    if end > byte_count:
        raise MalformedArchive


def _zip_chunks(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    if info.flag_bits & _ENCRYPTED:
        raise EncryptedEntry
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # The others expand a chunk to hundreds of megabytes at once.
        raise UnsupportedCompression
    # The directory says where the next one is, whatever this one holds.
    with _damage_told(DamagedEntry), archive.open(info) as entry:
        byte_count = 0
        while chunk := entry.read(_CHUNK_BYTES):
            byte_count += len(chunk)
            yield chunk
        if byte_count != info.file_size:
            raise DamagedEntry


# --- tar -------------------------------------------------------------------------------------------------------------


class _TarSource:
    """A stream that only goes forward, with a bound for what is read between two entries."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._position, self.allowance = file, 0, _MOST_HEADER_BYTES
        self.last = b""

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> int:
        while self._position < position and self._take(min(position - self._position, _CHUNK_BYTES)):
            pass
        if self._position != position:
            raise MalformedArchive
        return position

    def read(self, count: int) -> bytes:
        self.allowance -= count
        if self.allowance < 0:
            raise MalformedArchive("The archive's headers are too large.")
        self.last = self._take(count)
        return self.last

    def drain(self) -> None:
        """Read on for the checksum at a gzip's end."""
        for _ in range(_MOST_TRAILING_BYTES // _CHUNK_BYTES):
            if not self._take(_CHUNK_BYTES):
                return

    def _take(self, count: int) -> bytes:
        data = self._file.read(count)
        self._position += len(data)
        return data


def _unpack_tar(file: IO[bytes], tally: _Tally) -> Iterator[Entry]:
    source = _TarSource(file)
    with _damage_told():
        archive = tarfile.TarFile(fileobj=cast("IO[bytes]", source), errorlevel=2)
    number = -1
    while True:
        with _damage_told():
            source.allowance = _MOST_HEADER_BYTES
            entry = archive.next()
        if entry is None:
            break
        number += 1
        vars(archive)["members"] = []  # It would keep all of them.
        tally.add(entry.size)
        if entry.isreg():
            yield Entry(number, entry.size, _no_archive(_tar_chunks(archive, source, entry)))
    if source.last.strip(b"\0") or len(source.last) != tarfile.BLOCKSIZE:
        # To tarfile, a damaged header and a stream that breaks off between two entries are the end.
        raise MalformedArchive
    with _damage_told():
        source.drain()


def _tar_chunks(archive: tarfile.TarFile, source: _TarSource, info: tarfile.TarInfo) -> Iterator[bytes]:
    with _damage_told():
        entry = archive.extractfile(info)
        assert entry is not None
        with entry:
            while True:
                source.allowance = 2 * _CHUNK_BYTES
                if not (chunk := entry.read(_CHUNK_BYTES)):
                    return
                yield chunk


# --- both ------------------------------------------------------------------------------------------------------------


def _no_archive(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the same bytes; raise `NestedArchive` before the first."""
    first = b""
    for chunk in chunks:
        first += chunk
        if len(first) >= SNIFFED_BYTES:
            break
    if sniff_archive(first):
        raise NestedArchive
    if first:
        yield first
    yield from chunks


@contextmanager
def _damage_told(damage: type[PermanentError] = MalformedArchive) -> Iterator[None]:
    """Turn what the libraries raise for a damaged file into an error of ours; our own pass."""
    try:
        yield
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        zlib.error,
        struct.error,
        EOFError,
        OSError,  # of gzip
        ValueError,
        LookupError,
        ArithmeticError,
        RuntimeError,
    ) as exc:
        raise damage from exc
