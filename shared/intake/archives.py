"""Unpacks zip, tar and tar.gz files as a stream: yields the bytes of one entry after the other.

The path of an entry is neither used nor shown, only its place in the archive. The figures that an archive states are
not trusted. The stated sizes are added up, and no entry yields more than it states, so that a bomb is
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

#: The number of first bytes of a file that `sniff_archive` needs.
SNIFFED_BYTES = 512

_CHUNK_BYTES = 256 * 1024
#: The largest directory of a zip: 100,000 entries with names of 600 bytes.
_MAX_DIRECTORY_BYTES = 64 * 1024**2
#: Maximum bytes between two entries of a tar, such as long names.
_MAX_HEADER_BYTES = 256 * 1024
#: Maximum bytes of padding after the end of a tar.
_MAX_TRAILING_BYTES = 1024**2
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
    """The formats that `unpack` supports."""

    ZIP = "zip"
    TAR = "tar"
    GZIP = "gzip"  # of a tar


@dataclass(frozen=True)
class Limits:
    """The limits for unpacking an archive."""

    entries: int
    unpacked_bytes: int
    ratio: float


@dataclass(frozen=True)
class Entry:
    """A regular file in an archive."""

    #: Its position among all entries of the archive, from 0.
    number: int
    #: The announced size. `chunks` never yields more.
    byte_count: int
    #: Its bytes. Read them before the next entry is requested, or not at all. Raises `NestedArchive`, `EncryptedEntry`,
    #: `UnsupportedCompression` and `DamagedEntry`, after which the next entry can be read, and `ArchiveError`.
    chunks: Iterator[bytes]


def sniff_archive(prefix: bytes) -> ArchiveKind | None:
    """Return the kind of archive by a file's first bytes; None if it is not an archive."""
    if prefix[128:132] == b"DICM":  # the preamble may contain the magic number of another format
        return None
    if prefix.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return ArchiveKind.ZIP
    if prefix.startswith(b"\x1f\x8b\x08"):
        return ArchiveKind.GZIP
    return ArchiveKind.TAR if prefix[257:262] == b"ustar" else None


def unpack(file: IO[bytes], kind: ArchiveKind, byte_count: int, limits: Limits) -> Iterator[Entry]:
    """Yield an archive's regular files; links, devices and folders are skipped, but count towards the limits.

    `file` has `byte_count` bytes and must be seekable for a zip. Raises `ArchiveError` at the first damage or exceeded
    limit, after the entries before it, and the errors of `file`.
    """
    tally = _Tally(byte_count, limits)
    if kind is ArchiveKind.ZIP:
        return _unpack_zip(file, byte_count, tally)
    unzipped = cast("IO[bytes]", GzipFile(fileobj=file, mode="rb")) if kind is ArchiveKind.GZIP else file
    return _unpack_tar(unzipped, tally)


class _Tally:
    """Counts the entries and bytes before they are unpacked, and checks the limits."""

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
    """A file whose reads are limited, because the size of the directory in a zip's header is not trusted."""

    def __init__(self, file: IO[bytes], check: Callable[[bytes], None]) -> None:
        self._file, self._check = file, check
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, count: int = -1) -> bytes:
        if count > _MAX_DIRECTORY_BYTES:
            raise MalformedArchive("The archive's directory is too large.")
        data = self._file.read(count)
        self._check(data)
        return data

    def opened(self) -> None:
        """Stop checking for directory entries: from now on, the bytes of files are read."""
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
        if not info.filename.endswith("/") and mode in (0, stat.S_IFREG):  # `ZipInfo.is_dir` fails for an empty name
            yield Entry(number, info.file_size, _no_archive(_zip_chunks(archive, info)))


def _refuse_overlaps(archive: zipfile.ZipFile, byte_count: int) -> None:
    """Raise `MalformedArchive` if two entries share bytes: such a file can unpack to any size."""
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
        # The other methods may expand one chunk to hundreds of megabytes.
        raise UnsupportedCompression
    # The directory gives the position of the next entry, so damage in this one does not matter to it.
    with _damage_told(DamagedEntry), archive.open(info) as entry:
        byte_count = 0
        while chunk := entry.read(_CHUNK_BYTES):
            byte_count += len(chunk)
            yield chunk
        if byte_count != info.file_size:
            raise DamagedEntry


# --- tar -------------------------------------------------------------------------------------------------------------


class _TarSource:
    """A forward-only stream with a limit for the bytes that are read between two entries."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._position, self.allowance = file, 0, _MAX_HEADER_BYTES
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
        """Read to the end of a gzip, where its checksum is verified."""
        for _ in range(_MAX_TRAILING_BYTES // _CHUNK_BYTES):
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
            source.allowance = _MAX_HEADER_BYTES
            entry = archive.next()
        if entry is None:
            break
        number += 1
        vars(archive)["members"] = []  # otherwise it keeps all entries in memory
        tally.add(entry.size)
        if entry.isreg():
            yield Entry(number, entry.size, _no_archive(_tar_chunks(archive, source, entry)))
    if source.last.strip(b"\0") or len(source.last) != tarfile.BLOCKSIZE:
        # `tarfile` treats a damaged header, and a stream that is cut off between two entries, as the end.
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
    """Yield the same bytes; raise `NestedArchive` before the first ones if they are an archive."""
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
    """Translate errors of the libraries for a damaged file into `damage`. Our own errors pass."""
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
