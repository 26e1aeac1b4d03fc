"""UUIDv7 keys for rows inserted by SQL."""

from uuid import UUID

import sqlalchemy as sa


def new_id_in_sql() -> sa.ColumnElement[UUID]:
    """Return an SQL expression that generates a UUIDv7. PostgreSQL has `uuidv7()` only since version 18."""
    # A UUIDv4 whose first 48 bits are replaced by the time, and whose version bits 0100 are changed to 0111.
    return sa.literal_column(
        "encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid()) PLACING"
        " substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3) FROM 1 FOR 6),"
        " 52, 1), 53, 1), 'hex')::uuid",
        sa.Uuid(),
    )
