"""The files to send: those in folders, and those that a DICOMDIR names."""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from shared.errors import PermanentError

DICOMDIR = "DICOMDIR"

#: Called with each file that cannot be sent, and its error.
OnUnreadable = Callable[[Path, Exception], object]


class UnreadableFile(PermanentError):
    """The file cannot be read, or changed while it was being sent."""

    code = "unreadable_local_file"


class UnreadableDicomdir(PermanentError):
    """The DICOMDIR cannot be read."""

    code = "unreadable_dicomdir"


class UnsafeReference(PermanentError):
    """The DICOMDIR refers to a file outside its folder."""

    code = "unsafe_reference"


def walk(paths: Iterable[Path], *, recursive: bool = True, on_unreadable: OnUnreadable) -> Iterator[Path]:
    """Yield files as absolute paths, and those in folders by name; memory holds the names of one folder at a time.

    Where there is a DICOMDIR only the files that it names are yielded. Links to folders are not followed.
    """
    for path in paths:
        path = path.absolute()
        if path.name.upper() == DICOMDIR and path.is_file():
            yield from _of_dicomdir(path, on_unreadable)
        elif path.is_dir():
            yield from _of_folder(path, recursive, on_unreadable)
        else:
            yield path


def _of_folder(folder: Path, recursive: bool, on_unreadable: OnUnreadable) -> Iterator[Path]:
    def complain(error: OSError) -> None:
        on_unreadable(Path(error.filename), error)

    for place, folders, names in os.walk(folder, onerror=complain):
        directory = next((name for name in names if name.upper() == DICOMDIR), None)
        if directory is not None:
            yield from _of_dicomdir(Path(place, directory), on_unreadable)
            folders.clear()
            continue
        folders.sort()
        yield from (Path(place, name) for name in sorted(names))
        if not recursive:
            return


def _of_dicomdir(path: Path, on_unreadable: OnUnreadable) -> Iterator[Path]:
    """Yield the files that a DICOMDIR refers to, by PS3.3 F.3.2.2: components of a path below its own folder."""
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    try:
        records = dcmread(path).DirectoryRecordSequence
        # Records without a file stand for a patient, a study or a series.
        references = [record.ReferencedFileID for record in records if record.get("ReferencedFileID")]
    except (OSError, InvalidDicomError, AttributeError, ValueError, TypeError, KeyError) as exc:
        on_unreadable(path, exc if isinstance(exc, OSError) else UnreadableDicomdir())
        return
    folder = path.parent.resolve()
    for reference in references:
        names = [reference] if isinstance(reference, str) else list(reference)
        file = path.parent.joinpath(*names)
        # Names are in capitals on a disc, but a mounted disc may show them in small letters.
        if not file.exists():
            file = path.parent.joinpath(*(name.lower() for name in names))
        if any("/" in name or name in ("", ".", "..") for name in names) or not file.resolve().is_relative_to(folder):
            on_unreadable(path, UnsafeReference())
        else:
            yield file
