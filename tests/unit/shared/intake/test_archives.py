"""Archives are unpacked as they come; what is wrong with one is told, and never believed."""

import gzip
import io
import random
import struct
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import suppress

import pytest

from shared.errors import PermanentError
from shared.intake.archives import (
    ArchiveError,
    ArchiveKind,
    ArchiveRatio,
    ArchiveTooLarge,
    ArchiveTooManyEntries,
    DamagedEntry,
    EncryptedEntry,
    Limits,
    MalformedArchive,
    NestedArchive,
    UnsupportedCompression,
    sniff_archive,
    unpack,
)

LIMITS = Limits(entries=100, unpacked_bytes=10**9, ratio=200)
RNG = random.Random(1)
FILES = [RNG.randbytes(size) for size in (3, 700_000, 0, 512, 100_000)]
KINDS = [ArchiveKind.ZIP, ArchiveKind.TAR, ArchiveKind.GZIP]


def make_zip(*files: bytes, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for number, file in enumerate(files):
            archive.writestr(f"../Doe^Jane/{number}", file)
    return buffer.getvalue()


def make_tar(*files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for number, file in enumerate(files):
            info = tarfile.TarInfo(f"../Doe^Jane/{number}")
            info.size = len(file)
            archive.addfile(info, io.BytesIO(file))
    return buffer.getvalue()


def make(kind: ArchiveKind, *files: bytes) -> bytes:
    if kind is ArchiveKind.ZIP:
        return make_zip(*files)
    tar = make_tar(*files)
    return gzip.compress(tar, 1) if kind is ArchiveKind.GZIP else tar


def read(data: bytes, limits: Limits = LIMITS) -> list[bytes | str]:
    """What an archive holds, each entry as its bytes or the code of what is wrong with it."""
    found: list[bytes | str] = []
    kind = sniff_archive(data)
    assert kind is not None
    for entry in unpack(io.BytesIO(data), kind, len(data), limits):
        try:
            found.append(b"".join(entry.chunks))
            assert len(found[-1]) <= entry.byte_count
        except ArchiveError:
            raise
        except PermanentError as error:
            found.append(error.code)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_entries_come_in_order_whole_and_without_a_name(kind: ArchiveKind) -> None:
    data = make(kind, *FILES)
    assert sniff_archive(data) is kind
    assert read(data) == FILES
    assert [entry.number for entry in unpack(io.BytesIO(data), kind, len(data), LIMITS)] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("kind", KINDS)
def test_entries_that_nobody_reads_are_passed_over(kind: ArchiveKind) -> None:
    data = make(kind, *FILES)
    odd = [b"".join(e.chunks) for e in unpack(io.BytesIO(data), kind, len(data), LIMITS) if e.number % 2]
    assert odd == FILES[1::2]


def test_only_regular_files_count() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for number, kind in enumerate((tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE)):
            info = tarfile.TarInfo(f"name {number}")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        info = tarfile.TarInfo("x" * 300)  # a long name has a header of its own
        info.size = 3
        archive.addfile(info, io.BytesIO(b"yes"))
    data = buffer.getvalue()
    assert [(e.number, b"".join(e.chunks)) for e in unpack(io.BytesIO(data), ArchiveKind.TAR, len(data), LIMITS)] == [
        (4, b"yes")
    ]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("folder/", b"")
        link = zipfile.ZipInfo("link")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, b"/etc/passwd")
        archive.writestr("file", b"yes")
    assert read(buffer.getvalue()) == [b"yes"]


def test_zip64_and_entries_of_unknown_size_are_read() -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, file in enumerate(FILES):
            with archive.open(str(number), "w", force_zip64=True) as entry:
                entry.write(file)
    assert read(pipe.getvalue()) == FILES


@pytest.mark.parametrize("kind", KINDS)
def test_wherever_an_archive_is_cut_what_came_before_is_whole_and_the_rest_is_missed(kind: ArchiveKind) -> None:
    files = [RNG.randbytes(size) for size in (2000, 512, 30, 5000)]
    data = make(kind, *files)
    end = len(data) - (0 if kind is not ArchiveKind.TAR else tar_padding(data))
    for cut in sorted({RNG.randrange(600, end) for _ in range(150)} | {end - 1}):
        found: list[bytes] = []
        with pytest.raises(MalformedArchive):
            found.extend(b"".join(entry.chunks) for entry in unpack(io.BytesIO(data[:cut]), kind, cut, LIMITS))
        assert found == files[: len(found)]


def tar_padding(data: bytes) -> int:
    """What comes after the block that ends a tar."""
    return len(data) - len(data.rstrip(b"\0")) // 512 * 512 - 2 * 512


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_told_and_nothing_else_is_raised(kind: ArchiveKind) -> None:
    data = make(kind, *(RNG.randbytes(300) for _ in range(4)))
    for _ in range(1500):
        bad = bytearray(data)
        for _ in range(RNG.randrange(1, 4)):
            bad[RNG.randrange(len(bad))] = RNG.randrange(256)
        if sniff_archive(bytes(bad)) is kind:
            with suppress(ArchiveError):
                read(bytes(bad))


@pytest.mark.parametrize("kind", KINDS)
def test_limits_hold_before_anything_goes_beyond_them(kind: ArchiveKind) -> None:
    data = make(kind, *FILES)
    with pytest.raises(ArchiveTooManyEntries):
        read(data, Limits(entries=4, unpacked_bytes=10**9, ratio=200))
    with pytest.raises(ArchiveTooLarge):
        read(data, Limits(entries=5, unpacked_bytes=sum(map(len, FILES)) - 1, ratio=200))
    assert read(data, Limits(entries=5, unpacked_bytes=sum(map(len, FILES)), ratio=200)) == FILES


@pytest.mark.parametrize("kind", [ArchiveKind.ZIP, ArchiveKind.GZIP])
def test_a_bomb_is_seen_before_it_goes_off(kind: ArchiveKind) -> None:
    data = make(kind, b"fine", bytes(50_000_000))
    assert len(data) < 400_000
    found: list[bytes] = []
    entries = unpack(io.BytesIO(data), kind, len(data), Limits(10, 10**9, 50))
    with pytest.raises(ArchiveRatio):
        found.extend(b"".join(entry.chunks) for entry in entries)
    assert found == [b"fine"]


def test_a_sparse_tar_is_as_large_as_it_unpacks_to() -> None:
    info = tarfile.TarInfo("sparse")
    info.type, info.size = tarfile.GNUTYPE_SPARSE, 0
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[483:495] = b"%011o\0" % 10**9  # its real size
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + sum(header[156:512]) + 8 * 32)
    with pytest.raises(ArchiveRatio):
        read(bytes(header) + bytes(1024))


def test_entries_of_a_zip_that_share_bytes_are_refused() -> None:
    data = make_zip(bytes(100_000))
    directory = data[data.index(b"PK\x01\x02") : -22]
    shared = data[: data.index(b"PK\x01\x02")] + directory * 50 + end_of_zip(50, len(directory) * 50, data)
    with pytest.raises(MalformedArchive, match="overlap"):
        read(shared)


def end_of_zip(entries: int, directory_bytes: int, data: bytes) -> bytes:
    return struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, entries, entries, directory_bytes, data.index(b"PK\x01\x02"), 0)


def test_an_entry_of_a_zip_that_lies_about_its_size_is_damaged() -> None:
    data = bytearray(make_zip(RNG.randbytes(1000), b"fine"))
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = data.index(signature) + offset
        data[at : at + 4] = struct.pack("<L", 10)
    assert read(bytes(data)) == [DamagedEntry.code, b"fine"]


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_entry_of_a_zip_takes_no_other_with_it(compression: int) -> None:
    before, damaged, after = (RNG.randbytes(size) for size in (2000, 5000, 3000))
    data = make_zip(before, damaged, after, compression=compression)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        start, end = (info.header_offset for info in archive.infolist()[1:])
    # Its header, too, for the directory says all of it again; not the last bytes, where its size may stand once more.
    for place in (start, *(RNG.randrange(start + 40, end - 20) for _ in range(50))):
        bad = bytearray(data)
        bad[place] ^= 0xFF
        assert read(bytes(bad)) == [before, DamagedEntry.code, after]


def test_an_entry_of_a_zip_needs_no_name() -> None:
    """Found by fuzzing: Python's own check for a folder looks at a name's last character."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x", FILES[0])
    named = buffer.getvalue()
    place = named.index(b"PK\x01\x02")
    local = named[:26] + b"\0\0" + named[28:30] + named[31:place]
    entry = named[place : place + 28] + b"\0\0" + named[place + 30 : place + 46]
    end = bytearray(named[place + 47 :])
    end[12:20] = struct.pack("<II", len(entry), len(local))
    assert read(local + entry + end) == [FILES[0]]


def test_a_directory_of_a_zip_is_bounded() -> None:
    data = make_zip(b"one")
    entry = data[data.index(b"PK\x01\x02") : -22]
    many = data[: data.index(b"PK\x01\x02")] + entry * 101 + end_of_zip(1, len(entry) * 101, data)
    with pytest.raises(ArchiveTooManyEntries):
        read(many)

    class Huge(io.BytesIO):
        """70 MB more than there are, so that reading them would be noticed."""

        def read(self, count: int | None = -1, /) -> bytes:
            assert (count or 0) < 70_000_000
            return super().read(count)

    huge = data[:-22] + bytes(70_000_000) + end_of_zip(1, 70_000_100, data)
    with pytest.raises(MalformedArchive, match="directory is too large"):
        list(unpack(Huge(huge), ArchiveKind.ZIP, len(huge), LIMITS))


@pytest.mark.parametrize("headers", [400, 100_000])
def test_headers_of_a_tar_are_bounded(headers: int) -> None:
    """A chain of long names, each of which says that another header follows."""
    info = tarfile.TarInfo("././@LongLink")
    info.type = tarfile.GNUTYPE_LONGNAME
    with pytest.raises(MalformedArchive):
        read(info.tobuf(tarfile.GNU_FORMAT) * headers)


def test_a_long_name_of_a_gigabyte_is_not_read() -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 10**9
    file = io.BytesIO(info.tobuf(tarfile.GNU_FORMAT) + bytes(10_000_000))
    with pytest.raises(MalformedArchive, match="headers are too large"):
        list(unpack(file, ArchiveKind.TAR, 10**9, LIMITS))
    assert file.tell() < 10**6


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_in_an_archive_is_rejected_and_the_others_are_not(kind: ArchiveKind) -> None:
    inner = [make(each, b"x" * 1000) for each in KINDS]
    assert read(make(kind, b"first", *inner, b"last")) == [b"first", *[NestedArchive.code] * 3, b"last"]


def test_an_entry_that_cannot_be_read_is_rejected_and_the_others_are_not() -> None:
    data = bytearray(make_zip(b"secret", b"plain"))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    assert read(bytes(data)) == [EncryptedEntry.code, b"plain"]
    for compression in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        assert read(make_zip(b"x" * 1000, compression=compression)) == [UnsupportedCompression.code]


@pytest.mark.parametrize(
    ("prefix", "kind"),
    [
        (b"PK\x03\x04".ljust(128, b"\0") + b"DICM", None),
        (b"\x89PNG\r\n\x1a\n" + bytes(600), None),
        (b"", None),
        (bytes(257) + b"ustar\x0000", ArchiveKind.TAR),
        (make_zip(), ArchiveKind.ZIP),
    ],
)
def test_an_archive_is_known_by_its_first_bytes(prefix: bytes, kind: ArchiveKind | None) -> None:
    assert sniff_archive(prefix) is kind


def test_an_error_of_the_file_itself_passes() -> None:
    """Such as an object store that is away, for which the archive is not to blame."""

    class AwayError(Exception):
        pass

    def broken(after: int) -> Callable[..., bytes]:
        def read_some(_: object, count: int = -1) -> bytes:
            nonlocal after
            after -= 1
            if after < 0:
                raise AwayError
            return io.BytesIO.read(file, count)

        return read_some

    for kind in KINDS:
        data = make(kind, *FILES)
        for after in (1, 4, 6):
            file = type("File", (io.BytesIO,), {"read": broken(after)})(data)
            with pytest.raises(AwayError):
                [b"".join(entry.chunks) for entry in unpack(file, kind, len(data), LIMITS)]
