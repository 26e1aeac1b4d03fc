"""UUIDv7 keys for rows that a query inserts."""

from uuid import UUID

import sqlalchemy as sa


def new_id_in_sql() -> sa.ColumnElement[UUID]:
    """Return `shared.ids.new_id` as an SQL expression; PostgreSQL itself has `uuidv7()` only from version 18 on."""
    # A version 4 whose first 48 bits are the time, and whose version's bits 0100 become 0111.
    return sa.literal_column(
        "encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid()) PLACING"
        " substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3) FROM 1 FOR 6),"
        " 52, 1), 53, 1), 'hex')::uuid",
        sa.Uuid(),
    )
