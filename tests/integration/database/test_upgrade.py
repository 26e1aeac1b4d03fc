"""The data of the previous release is whole after an upgrade: `release_0019.sql` has a row of each of its tables."""

from pathlib import Path

import sqlalchemy as sa

from shared import migrations
from shared.database import Database
from shared.tables import Job, Row
from shared.vocabulary.states import JobState
from tests.integration.database.test_migrations import empty, empty_url  # noqa: F401 - fixtures

RELEASE = Path(__file__).with_name("release_0019.sql")


def read(database: Database) -> dict[str, list[dict[str, object]]]:
    """All rows by table."""
    with database.begin() as session:
        return {
            table: list(session.scalars(sa.text(f"SELECT to_jsonb(t) FROM {table} AS t ORDER BY t::text")))
            for table in sa.inspect(session.connection()).get_table_names()
            if table != "alembic_version"
        }


def test_the_rows_of_the_previous_release_are_whole_after_an_upgrade(empty: Database) -> None:  # noqa: F811
    migrations.upgrade(empty, RELEASE.stem.removeprefix("release_"))
    with empty.begin() as session:
        session.connection().exec_driver_sql(RELEASE.read_text())
    before = read(empty)
    assert [table for table, rows in before.items() if not rows] == [], "the release's data has a row of each table"

    migrations.upgrade(empty)
    assert migrations.is_current(empty)
    after = read(empty)
    for table, rows in before.items():
        columns = rows[0].keys() & after[table][0].keys()
        assert len(after[table]) == len(rows), table
        for old in rows:
            assert any(all(new[column] == old[column] for column in columns) for new in after[table]), (table, old)
    with empty.begin() as session:
        for mapper in Row.registry.mappers:
            assert session.scalars(sa.select(mapper.class_)).all() or str(mapper.local_table) not in before
        states = set(session.scalars(sa.select(Job.state)))
    assert states == {JobState.SUCCEEDED, JobState.DETECTING}
