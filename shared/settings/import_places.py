"""Parses `CARINA_IMPORT_BUCKETS`: the places from which each project may import, as `project:bucket/prefix`."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


@dataclass(frozen=True)
class ImportPlace:
    """A prefix of a bucket from which a project may import. An empty prefix is the whole bucket."""

    project: str
    bucket: str
    #: Without a trailing slash.
    prefix: str

    @classmethod
    def parse(cls, entry: str) -> Self:
        """Parse `project:bucket/prefix`; raise `ValueError` with a message for the operator."""
        project, colon, place = entry.partition(":")
        bucket, _, prefix = place.partition("/")
        prefix = prefix.strip("/")
        if not colon or not project.strip() or not _BUCKET.fullmatch(bucket) or not is_plain(prefix):
            raise ValueError(
                f"CARINA_IMPORT_BUCKETS: {entry!r} is not `project:bucket/prefix`, as in `default:images/2024`: each"
                " entry names the project that may import from it."
            )
        return cls(project.strip(), bucket, prefix)

    def limit(self, bucket: str, prefix: str) -> str | None:
        """Return the prefix to list for a requested one, limited to this place; None if it is outside."""
        if bucket != self.bucket or not is_plain(prefix.rstrip("/")):
            return None
        if not self.prefix or prefix.startswith(f"{self.prefix}/"):
            return prefix
        return f"{self.prefix}/" if prefix == self.prefix else None


def read_places(entries: str) -> tuple[ImportPlace, ...]:
    """Parse the setting; raise `ValueError` with a message for the operator."""
    return tuple(ImportPlace.parse(entry.strip()) for entry in entries.split(",") if entry.strip())


def limit_prefix(places: Iterable[ImportPlace], project: str, bucket: str, prefix: str) -> str | None:
    """Return the prefix that a project may list for a requested one; None if no place of the project contains it."""
    limits = (place.limit(bucket, prefix) for place in places if place.project == project)
    return next((limit for limit in limits if limit is not None), None)


def is_plain(prefix: str) -> bool:
    """Whether no folder of a prefix is empty, `.` or `..`, because a server may resolve these."""
    return not prefix or not {"", ".", ".."} & set(prefix.split("/"))
