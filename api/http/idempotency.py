"""`Idempotency-Key`: a repeated request gets the answer of the first one and changes nothing.

The body is hashed while the view reads it, so that uploads are streamed. Multipart boundaries are left out of the
digest, because clients make new ones for each try.
"""

import hashlib
import io
import re
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import IO, TypeVar
from uuid import UUID

import sqlalchemy as sa
import structlog
from flask import Flask, Response, current_app, g, request
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from api.http.auth import identity
from api.http.services import services
from shared.errors import InvalidRequest, LimitExceeded, RequestError, TransientError, UploadCutShort
from shared.ids import new_id
from shared.tables import IdempotencyKey

log = structlog.get_logger()

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"
#: A first request whose lock has not been renewed for this long counts as dead. Reading its body renews the lock.
LOCK_S = 120.0
#: How often the lock is renewed while the body is read; must be well below `LOCK_S`.
_RENEWED_EVERY_S = 30.0
_CHUNK_BYTES = 256 * 1024
_VALID = re.compile(r"[!-~]{1,255}")

View = TypeVar("View")


class IdempotencyKeyReused(RequestError):
    """The Idempotency-Key was used for another request. Use a new key for each request."""

    code = "idempotency_key_reused"
    status = 409


class IdempotencyKeyInUse(RequestError):
    """The first request with this Idempotency-Key is still being processed. Send it again later."""

    code = "idempotency_key_in_use"
    status = 409
    retry_after_s = 1


def idempotent(view: View) -> View:
    """Allow an `Idempotency-Key` in requests to this view."""
    view.idempotent = True  # type: ignore[attr-defined]
    return view


def install(app: Flask) -> None:
    """Handle `Idempotency-Key` for the views marked `idempotent`. Call it after `authenticate`."""
    app.before_request(_begin)
    app.after_request(_end)


def forget_answer() -> None:
    """Do not store the answer of this request: a repeated request is executed again."""
    g.forgets_answer = True


@dataclass
class _Claim:
    """The row of a request in progress. `locked_until` fences its changes."""

    id: UUID
    locked_until: datetime
    renewed: float = field(default_factory=time.monotonic)

    def is_mine(self) -> sa.ColumnElement[bool]:
        return sa.and_(IdempotencyKey.id == self.id, IdempotencyKey.locked_until == self.locked_until)

    def renew(self) -> None:
        """Extend the lock periodically. If another request has taken over, this is a no-op."""
        if time.monotonic() - self.renewed < _RENEWED_EVERY_S:
            return
        self.renewed = time.monotonic()
        later = sa.update(IdempotencyKey).where(self.is_mine()).values(locked_until=_lock_end())
        with suppress(TransientError), services().database.unrecorded().begin() as session:
            self.locked_until = session.scalar(later.returning(IdempotencyKey.locked_until)) or self.locked_until


class _Digest(io.RawIOBase):
    """A body that is hashed while it is read."""

    def __init__(self, body: IO[bytes], boundary: bytes, byte_count: int | None, claim: _Claim | None = None) -> None:
        self._body = body
        self._boundary = boundary
        self._byte_count = byte_count
        self._claim = claim
        self._digest = hashlib.sha256()
        #: The end of the data read so far, which may contain the beginning of a boundary.
        self._tail = b""
        self._bytes_read = 0
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        data = self._body.read(len(buffer))
        buffer[: len(data)] = data
        self._ended = self._ended or not data
        self._bytes_read += len(data)
        self._update(data)
        if self._claim is not None:
            self._claim.renew()
        return len(data)

    def read_on(self, max_bytes: int) -> None:
        """Read the data that the view has not read, up to `max_bytes`."""
        max_bytes += self._bytes_read
        while not self.is_whole and self._bytes_read < max_bytes and self.read(_CHUNK_BYTES):
            pass

    @property
    def is_whole(self) -> bool:
        """Whether the body was read to its end; false if it was interrupted."""
        return self._bytes_read == self._byte_count if self._byte_count is not None else self._ended

    def fingerprint(self) -> str:
        """Return a digest of the request's method, URL and body."""
        body = self._digest.copy()
        body.update(self._tail)
        where = f"{request.method} {request.full_path}\n"
        return hashlib.sha256(where.encode() + body.digest()).hexdigest()

    def _update(self, data: bytes) -> None:
        if not self._boundary:
            self._digest.update(data)
            return
        *before, last = (self._tail + data).split(self._boundary)
        for piece in before:
            self._digest.update(piece + b"\n")
        end = max(0, len(last) - len(self._boundary) + 1)
        self._digest.update(memoryview(last)[:end])
        self._tail = last[end:]


def _begin() -> Response | None:
    key = request.headers.get(HEADER)
    if key is None or not getattr(current_app.view_functions.get(request.endpoint or ""), "idempotent", False):
        return None
    if not _VALID.fullmatch(key):
        raise InvalidRequest(f"{HEADER} takes 1 to 255 visible ASCII characters.")
    with services().database.begin() as session:
        claim = _claim(session, key)
        first = None if claim else _first(session, key)
    boundary = request.mimetype_params.get("boundary", "").encode("latin-1", "replace")
    body = _Digest(request.environ["wsgi.input"], boundary, request.content_length, claim)
    request.environ["wsgi.input"] = body
    if first is not None:
        return _replay(first, body)
    g.idempotency = claim, body
    return None


def _claim(session: Session, key: str) -> _Claim | None:
    """Create the key's row, or take over the row of a dead request; None if another request has the key."""
    mine = insert(IdempotencyKey).values(id=new_id(), api_key_id=identity().key_id, key=key, locked_until=_lock_end())
    died = sa.and_(IdempotencyKey.status.is_(None), IdempotencyKey.locked_until < sa.func.now())
    mine = mine.on_conflict_do_update(
        index_elements=["api_key_id", "key"], set_={"locked_until": mine.excluded.locked_until}, where=died
    )
    row = session.execute(mine.returning(IdempotencyKey.id, IdempotencyKey.locked_until)).one_or_none()
    return _Claim(row.id, row.locked_until) if row else None


def _first(session: Session, key: str) -> IdempotencyKey:
    """Return the row with the answer of the first request; raise `IdempotencyKeyInUse` if there is none yet."""
    known = sa.select(IdempotencyKey).where(IdempotencyKey.api_key_id == identity().key_id, IdempotencyKey.key == key)
    row = session.scalar(known)
    if row is None or row.status is None:
        raise IdempotencyKeyInUse
    session.expunge(row)
    return row


def _replay(first: IdempotencyKey, body: _Digest) -> Response:
    max_bytes = services().settings.max_upload_bytes
    if (request.content_length or 0) > max_bytes:
        raise LimitExceeded("max_upload_bytes", max_bytes)
    try:
        body.read_on(max_bytes + 1)
    except Exception as exc:  # each server has its own errors for an incomplete body
        raise UploadCutShort from exc
    if not body.is_whole:
        raise UploadCutShort
    if body.fingerprint() != first.fingerprint:
        raise IdempotencyKeyReused
    g.replayed = True  # the first request has its audit row already
    return Response(first.body, first.status, {REPLAYED: "true"}, content_type=first.content_type)


def _end(response: Response) -> Response:
    claim, body = g.pop("idempotency", (None, None))
    if claim is None:
        return response
    with suppress(Exception):  # An interrupted body is not whole, so its answer is not stored.
        body.read_on(_CHUNK_BYTES)
    # Answers that a later try may change are not stored: the key is free for that try.
    keep = response.status_code < 500 and response.status_code not in (422, 429) and body.is_whole
    keep = keep and not g.pop("forgets_answer", False)
    change: sa.Update | sa.Delete = sa.delete(IdempotencyKey).where(claim.is_mine())
    if keep and not response.is_streamed:
        change = sa.update(IdempotencyKey).where(claim.is_mine())
        change = change.values(
            fingerprint=body.fingerprint(),
            status=response.status_code,
            content_type=response.content_type,
            body=response.get_data(as_text=True),
        )
    try:
        with services().database.begin() as session:
            session.execute(change)
    except TransientError as exc:
        log.warning("idempotency_key_not_kept", code=exc.code)
    return response


def _lock_end() -> sa.ColumnElement[datetime]:
    # The time of the clock, not of the transaction, so that each renewal changes the fence.
    return sa.func.clock_timestamp() + timedelta(seconds=LOCK_S)
