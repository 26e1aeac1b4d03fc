"""The daily quota of an API key, per day in UTC.

A file is counted in the transaction that writes its rows. So each file counts once, whether it arrived by HTTP,
DICOMweb or C-STORE, in an archive or from a bucket, and neither a retry nor an outage of Redis changes the count.
A rejected file does not count; a duplicate does.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.errors import Place, RequestError
from shared.tables import ApiKey, Usage

#: The current date in UTC, by PostgreSQL's clock, whatever the time zone of the session.
_TODAY = sa.cast(sa.func.timezone("UTC", sa.func.now()), sa.Date)


class QuotaExceeded(RequestError):
    """The API key has used up its daily quota of files or bytes."""

    code = "quota_exceeded"
    places = Place.REQUEST | Place.FILE
    status = 429


@dataclass(frozen=True)
class Quota:
    """The daily limits of a key; None: unlimited."""

    key_id: UUID
    files_per_day: int | None
    bytes_per_day: int | None

    def check(self, session: Session, files: int, byte_count: int) -> None:
        """Raise `QuotaExceeded` if this amount would exceed the quota. Counts nothing."""
        used = sa.select(Usage.files, Usage.bytes).where(Usage.api_key_id == self.key_id, Usage.day == _TODAY)
        row = session.execute(used).one_or_none() or (0, 0)
        self._compare(row[0] + files, row[1] + byte_count)

    def charge(self, session: Session, byte_count: int) -> None:
        """Count one file; raise `QuotaExceeded` if it exceeds the quota, so that the transaction is rolled back.

        Call it last: the row stays locked until the transaction ends.
        """
        mine = insert(Usage).values(api_key_id=self.key_id, day=_TODAY, files=1, bytes=byte_count)
        more: dict[str, Any] = {"files": Usage.files + 1, "bytes": Usage.bytes + mine.excluded.bytes}
        mine = mine.on_conflict_do_update(index_elements=["api_key_id", "day"], set_=more)
        files, in_bytes = session.execute(mine.returning(Usage.files, Usage.bytes)).one()
        self._compare(files, in_bytes)

    def _compare(self, files: int, byte_count: int) -> None:
        for unit, used, most in (("files", files, self.files_per_day), ("bytes", byte_count, self.bytes_per_day)):
            if most is not None and used > most:
                exceeded = QuotaExceeded(f"The API key has sent as many {unit} as it may in a day, which is {most}.")
                exceeded.retry_after_s = seconds_to_midnight()
                raise exceeded


def find_quota(session: Session, key_id: UUID) -> Quota | None:
    """Return the limits of a key; None if it has none."""
    limits = sa.select(ApiKey.files_per_day, ApiKey.bytes_per_day).where(ApiKey.id == key_id)
    files, in_bytes = session.execute(limits).one()
    return None if files is None and in_bytes is None else Quota(key_id, files, in_bytes)


def seconds_to_midnight() -> int:
    """Return the seconds until midnight in UTC, at least 1."""
    now = datetime.now(UTC)
    midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return max(1, int((midnight - now).total_seconds()) + 1)
