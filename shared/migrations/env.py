"""What Alembic runs: every migration in one transaction, one migrator at a time."""

from alembic import context
from sqlalchemy import text

from shared.tables import Row

#: Any number will do, as long as nobody else's advisory lock has it.
_ONE_MIGRATOR = 0xCA41_4A

with context.config.attributes["engine"].connect() as connection:
    context.configure(connection=connection, target_metadata=Row.metadata, compare_server_default=True)
    with context.begin_transaction():
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ONE_MIGRATOR})
        context.run_migrations()
