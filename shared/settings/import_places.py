"""From where each project may import: the entries of `CARINA_IMPORT_BUCKETS`, `project:bucket/prefix`."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


@dataclass(frozen=True)
class ImportPlace:
    """A project may read the objects below a prefix of a bucket; an empty prefix is the whole bucket."""

    project: str
    bucket: str
    #: Without a slash at its end.
    prefix: str

    @classmethod
    def parse(cls, entry: str) -> Self:
        """Read `project:bucket/prefix`; raise `ValueError` with a sentence for people."""
        project, colon, place = entry.partition(":")
        bucket, _, prefix = place.partition("/")
        prefix = prefix.strip("/")
        if not colon or not project.strip() or not _BUCKET.fullmatch(bucket) or not is_plain(prefix):
            raise ValueError(
                f"CARINA_IMPORT_BUCKETS: {entry!r} is not `project:bucket/prefix`, as in `default:films/2024`: each"
                " entry names the project that may import from it."
            )
        return cls(project.strip(), bucket, prefix)

    def limit(self, bucket: str, prefix: str) -> str | None:
        """Return what to list of a prefix that is asked for, so that it ends where this place does; None outside."""
        if bucket != self.bucket or not is_plain(prefix.rstrip("/")):
            return None
        if not self.prefix or prefix.startswith(f"{self.prefix}/"):
            return prefix
        return f"{self.prefix}/" if prefix == self.prefix else None


def read_places(entries: str) -> tuple[ImportPlace, ...]:
    """Read the setting; raise `ValueError` with a sentence for people."""
    return tuple(ImportPlace.parse(entry.strip()) for entry in entries.split(",") if entry.strip())


def limit_prefix(places: Iterable[ImportPlace], project: str, bucket: str, prefix: str) -> str | None:
    """Return what a project may list of a prefix that it asks for; None where nothing of it is the project's."""
    limits = (place.limit(bucket, prefix) for place in places if place.project == project)
    return next((limit for limit in limits if limit is not None), None)


def is_plain(prefix: str) -> bool:
    """Whether a prefix means what it says: none of its folders is empty, `.` or `..`, which a server may resolve."""
    return not prefix or not {"", ".", ".."} & set(prefix.split("/"))
