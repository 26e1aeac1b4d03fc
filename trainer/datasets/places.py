"""The place of the files of an import: a folder of this machine, or a prefix of the bucket."""

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Protocol

from shared.errors import ObjectMissing, PermanentError
from shared.object_store import ObjectStore

#: Suffixes of an image's file, in order of preference; annotations often omit them.
SUFFIXES = (".dicom", ".dcm", "", ".png", ".jpg", ".jpeg")


class UnsafeFileName(PermanentError):
    """The annotations refer to a file outside the image folder."""

    code = "unsafe_file_name"


class ImageMissing(PermanentError):
    """There is no file for this image."""

    code = "image_missing"


class AmbiguousImage(PermanentError):
    """Several files match this image."""

    code = "ambiguous_image"


class UnreadableFile(PermanentError):
    """The image's file cannot be read."""

    code = "unreadable_file"


class Place(Protocol):
    """Files by their names, which are relative paths with forward slashes. Thread-safe."""

    def names(self) -> Sequence[str]:
        """Return the names of all files."""

    def read(self, name: str) -> bytes:
        """Return the bytes of a file. Raises `ImageMissing` and `UnreadableFile`."""


class Folder:
    """A folder with its subfolders; links to folders are not followed."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def names(self) -> Sequence[str]:
        """Return the names of all files."""
        found: list[str] = []
        for folder, _, files in os.walk(self._path):
            inside = Path(folder).relative_to(self._path)
            found.extend((inside / file).as_posix() for file in files)
        return sorted(found)

    def read(self, name: str) -> bytes:
        """Return the bytes of a file. Raises `ImageMissing` and `UnreadableFile`."""
        try:
            return (self._path / name).read_bytes()
        except FileNotFoundError:
            raise ImageMissing from None
        except OSError as exc:
            raise UnreadableFile(f"The image's file cannot be read ({type(exc).__name__}).") from None


class Prefix:
    """The objects whose keys begin with a prefix."""

    def __init__(self, store: ObjectStore, prefix: str) -> None:
        self._store = store
        self._prefix = prefix

    def names(self) -> Sequence[str]:
        """Return the names of all files."""
        return [key.removeprefix(self._prefix) for key in self._store.keys(self._prefix) if not key.endswith("/")]

    def read(self, name: str) -> bytes:
        """Return the bytes of an object. Raises `ImageMissing`."""
        try:
            return self._store.read(self._prefix + name)
        except ObjectMissing:
            raise ImageMissing from None


class Catalogue:
    """Finds the file of each image named in annotations."""

    def __init__(self, place: Place) -> None:
        names = place.names()
        self._names = frozenset(names)
        #: By the file name without folders, and by the same without its suffix.
        self._by_name: defaultdict[str, list[str]] = defaultdict(list)
        self._by_stem: defaultdict[str, list[str]] = defaultdict(list)
        for name in names:
            path = PurePosixPath(name)
            self._by_name[path.name].append(name)
            if path.suffix.lower() in SUFFIXES:
                self._by_stem[path.stem].append(name)

    def find(self, file_name: str) -> str:
        """Return the name of an image's file.

        The search takes the first match: the exact name; the same name in any folder; for a name without suffix, a file
        of this name with the first of `SUFFIXES`; the only file whose name differs in its suffix, because tables keep
        the `.dicom` of files that were converted to `.png`. Raises `UnsafeFileName`, `ImageMissing` and
        `AmbiguousImage`.
        """
        path = PurePosixPath(file_name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts:
            raise UnsafeFileName
        if str(path) in self._names:
            return str(path)
        if len(path.parts) != 1:
            return self._with_other_ending(path)
        found = self._by_name.get(path.name) or self._likeliest(path.name)
        if len(found) > 1:
            raise AmbiguousImage
        return found[0] if found else self._with_other_ending(path)

    def _with_other_ending(self, path: PurePosixPath) -> str:
        """Return the only file of this name with another suffix, in the same folder if the path has one."""
        stem = path.stem if path.suffix.lower() in SUFFIXES else path.name
        candidates = self._by_stem.get(stem, [])
        if len(path.parts) != 1:
            candidates = [name for name in candidates if PurePosixPath(name).parent == path.parent]
        if len(candidates) != 1:
            raise ImageMissing
        return candidates[0]

    def _likeliest(self, stem: str) -> list[str]:
        candidates = self._by_stem.get(stem, [])
        for suffix in SUFFIXES:
            found = [name for name in candidates if PurePosixPath(name).suffix.lower() == suffix]
            if found:
                return found
        return []
