"""UUIDv7 keys: unique without coordination, and ordered by the time they were made."""

import math
import os
import time
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa


def new_id() -> UUID:
    """Return a UUIDv7: 48 bits of Unix milliseconds, then 74 random bits (RFC 9562, section 5.7)."""
    milliseconds = time.time_ns() // 1_000_000
    random_bits = int.from_bytes(os.urandom(10), "big")
    version_7 = 0x7 << 76
    variant = 0b10 << 62
    rand_a = (random_bits >> 62 & 0xFFF) << 64
    rand_b = random_bits & (1 << 62) - 1
    return UUID(int=milliseconds << 80 | version_7 | rand_a | variant | rand_b)


def first_id(days_ago: float) -> UUID:
    """Return the least UUIDv7 that can have been made this many days ago."""
    milliseconds = time.time_ns() // 1_000_000 - round(days_ago * 86_400_000)
    return UUID(int=milliseconds << 80)


def first_id_at(moment: datetime) -> UUID:
    """Return the least UUIDv7 that can have been made at this time; none is older than 1970."""
    return UUID(int=max(0, math.floor(moment.timestamp() * 1000)) << 80)


def new_id_in_sql() -> sa.ColumnElement[UUID]:
    """The same as an expression of PostgreSQL's, for rows that a query makes; its own `uuidv7()` is new in 18."""
    # A version 4 whose first 48 bits are the time, and whose version's bits 0100 become 0111.
    return sa.literal_column(
        "encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid()) PLACING"
        " substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3) FROM 1 FOR 6),"
        " 52, 1), 53, 1), 'hex')::uuid",
        sa.Uuid(),
    )
