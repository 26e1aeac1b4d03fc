"""The project that the trainer's rows get which were made when they named none."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql

from shared import migrations
from shared.database import Database
from shared.ids import new_id

OLDEST, WARD, LAB = (UUID(int=number) for number in (1, 2, 3))


@pytest.fixture
def older(servers: dict[str, str]) -> Iterator[Database]:
    """A database as the release before left it."""
    base, name = servers["CARINA_DATABASE_URL"].rpartition("/")[0], f"older_{new_id().hex}"
    with psycopg.connect(f"{base}/postgres", autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        database = Database(f"{base}/{name}")
        migrations.upgrade(database, "0012a")
        yield database
        database.close()
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


class Rows:
    """Adds rows as plain SQL, for the classes of today have the column."""

    def __init__(self, session: sa.orm.Session) -> None:
        self._session = session

    def add(self, table: str, **values: Any) -> UUID:
        """Add a row; what is JSON is given as text."""
        values = {"id": new_id(), **values}
        json = {"source", "config", "progress", "events", "subject", "card"}
        marks = ", ".join(f"CAST(:{name} AS jsonb)" if name in json else f":{name}" for name in values)
        self._session.execute(sa.text(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})"), values)
        return values["id"]

    def task(self, table: str, **values: object) -> UUID:
        """Add a task of the trainer."""
        columns = {"state": "succeeded", "attempt": 0, "losses": 0, "progress": "{}", "log_tail": ""}
        return self.add(table, **columns, **values)

    def audit(self, action: str, row_id: UUID, project_id: UUID) -> None:
        """Say that a key of the project has made the row."""
        self.add("audit_event", action=action, subject=f'{{"id": "{row_id}"}}', project_id=project_id, status=202)


def test_rows_get_the_project_that_they_come_from(older: Database) -> None:
    with older.begin() as session:
        rows = Rows(session)
        for number, (project_id, name) in enumerate(((OLDEST, "first"), (WARD, "ward"), (LAB, "lab"))):
            rows.add("project", id=project_id, name=name, pseudonym_key=b"", created_at=f"2026-01-0{number + 1}")
        expected = {}

        def dataset(name: str, project_id: UUID, source: str = "{}") -> UUID:
            expected[made := rows.task("dataset", name=name, source=source)] = project_id
            return made

        reviews = dataset("reviews", LAB, f'{{"project_id": "{LAB}"}}')
        rows.audit("datasets.import_", reviews, WARD)  # by a key that had another project's reviews
        imported = dataset("films", WARD)
        rows.audit("datasets.import_", imported, WARD)
        dataset("by hand", OLDEST)

        model = rows.add("model", name="m", digest="d", card="{}", weights_sha256="", state="candidate")
        common = {"config": "{}", "dataset_id": imported}
        expected[run := rows.task("training_run", **common, name="r", config_digest="", events="{}")] = WARD
        expected[rows.task("evaluation", **common, model_id=model)] = WARD
        of_model = {"candidate_model_id": model}
        expected[rows.task("gate_decision", **of_model, config="{}", training_run_id=run)] = WARD
        on_reviews = f'{{"evaluation_dataset_id": "{reviews}"}}'
        expected[rows.task("gate_decision", **of_model, config=on_reviews)] = LAB
        expected[rows.task("gate_decision", **of_model, config="{}")] = OLDEST

        def schedule(name: str, dataset_name: str, project_id: UUID) -> UUID:
            choices = {"overlap": "skip", "skip_unchanged": True, "enabled": False, "config": "{}"}
            when = {"cron": "0 3 * * *", "time_zone": "UTC"}
            made = rows.add("schedule", name=name, dataset_name=dataset_name, **choices, **when)
            expected[made] = project_id
            return made

        rows.audit("schedules.create", schedule("a", "nothing", LAB), LAB)
        schedule("b", "films", WARD)
        schedule("c", "nothing", OLDEST)

    migrations.upgrade(older)
    migrations.check(older)
    with older.begin() as session:
        found = {}
        for table in ("dataset", "training_run", "evaluation", "gate_decision", "schedule"):
            found |= dict(session.execute(sa.text(f"SELECT id, project_id FROM {table}")).all())
    assert found == expected

    migrations.downgrade(older, "0012a")
    migrations.upgrade(older)


def test_rows_of_an_installation_without_keys_get_the_first_keys_project(older: Database) -> None:
    with older.begin() as session:
        made = Rows(session).task("dataset", name="phantoms", source="{}")
    migrations.upgrade(older)
    with older.begin() as session:
        owner = sa.text("SELECT name FROM project WHERE id = (SELECT project_id FROM dataset WHERE id = :id)")
        assert session.scalar(owner, {"id": made}) == "default"
