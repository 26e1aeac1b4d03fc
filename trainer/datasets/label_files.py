"""Annotations in many small files, one for each image: how they are found, named and read."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath

from shared.training.config import Split
from trainer.datasets.places import SUFFIXES, Place
from trainer.datasets.splits import SPLIT_OF

#: Objects of a bucket are read several at a time.
_THREADS = 8


def visible(place: Place, suffix: str | None = None) -> list[str]:
    """Return the names of a place's files, with a suffix; without those that operating systems add."""
    names = (name for name in place.names() if not _is_hidden(PurePosixPath(name)))
    return sorted(name for name in names if suffix is None or PurePosixPath(name).suffix.lower() == suffix)


def read_all(place: Place, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yield the names with the bytes of their files. Raises as `Place.read`."""
    with ThreadPoolExecutor(_THREADS) as threads:
        yield from zip(names, threads.map(place.read, names), strict=True)


def stem_of(file_name: str) -> str:
    """Return an image's name with forward slashes and without the suffix of an image."""
    path = PurePosixPath(file_name.replace("\\", "/"))
    return str(path.with_suffix("") if path.suffix and path.suffix.lower() in SUFFIXES else path)


def split_of(name: str) -> Split | None:
    """Return the split that a folder of a file's path names."""
    folders = (SPLIT_OF.get(part.casefold()) for part in PurePosixPath(name).parent.parts)
    return next(filter(None, folders), None)


def _is_hidden(path: PurePosixPath) -> bool:
    return "__MACOSX" in path.parts or any(part.startswith(".") for part in path.parts)
