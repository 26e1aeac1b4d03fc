"""UUIDv7 keys: unique without coordination, and sorted by creation time."""

import math
import os
import time
from datetime import datetime
from uuid import UUID


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
    """Return the smallest UUIDv7 that could have been created this many days ago."""
    milliseconds = time.time_ns() // 1_000_000 - round(days_ago * 86_400_000)
    return UUID(int=milliseconds << 80)


def first_id_at(moment: datetime) -> UUID:
    """Return the smallest UUIDv7 that could have been created at this time; 0 for times before 1970."""
    return UUID(int=max(0, math.floor(moment.timestamp() * 1000)) << 80)
