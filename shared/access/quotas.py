"""What an API key may send in a day, in UTC: counted where a file's bytes become rows, in the same transaction.

So each file counts once, whichever way it came (HTTP, an archive, a bucket, DICOMweb, C-STORE), and neither Redis nor
a retry changes the count. A file that is refused costs nothing; a duplicate counts as any other file that was sent.
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

#: Of PostgreSQL's clock; the session's time zone does not matter.
_TODAY = sa.cast(sa.func.timezone("UTC", sa.func.now()), sa.Date)


class QuotaExceeded(RequestError):
    """The API key has used up its daily quota of files or bytes."""

    code = "quota_exceeded"
    places = Place.REQUEST | Place.FILE
    status = 429


@dataclass(frozen=True)
class Quota:
    """The limits of a key; None: any amount."""

    key_id: UUID
    files_per_day: int | None
    bytes_per_day: int | None

    def check(self, session: Session, files: int, byte_count: int) -> None:
        """Raise `QuotaExceeded` where so much more is too much; count nothing."""
        used = sa.select(Usage.files, Usage.bytes).where(Usage.api_key_id == self.key_id, Usage.day == _TODAY)
        row = session.execute(used).one_or_none() or (0, 0)
        self._compare(row[0] + files, row[1] + byte_count)

    def charge(self, session: Session, byte_count: int) -> None:
        """Count one file; raise `QuotaExceeded` where it is one too many, which undoes the transaction.

        Call it last: the row is locked until the transaction ends.
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
    """Return the limits of a key; None for one that may send any amount."""
    limits = sa.select(ApiKey.files_per_day, ApiKey.bytes_per_day).where(ApiKey.id == key_id)
    files, in_bytes = session.execute(limits).one()
    return None if files is None and in_bytes is None else Quota(key_id, files, in_bytes)


def seconds_to_midnight() -> int:
    """How long the day still is, in UTC."""
    now = datetime.now(UTC)
    midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return max(1, int((midnight - now).total_seconds()) + 1)
