"""Finds the project of the trainer's rows that were made before these rows named one.

A dataset belongs to the project of the reviews it was made of, else to that of the key that imported it, else to the
oldest project. A run and an evaluation follow their dataset, whose images they show; a decision follows its run or its
dataset; a schedule follows the key that made it, else its runs, else the dataset that it names.
"""

import secrets

import sqlalchemy as sa
from alembic import op

from shared.ids import new_id
from shared.migrations.indexes import fill

#: In the order in which they are filled in.
OWNED = ("dataset", "training_run", "evaluation", "gate_decision", "schedule")

_OLDEST = "(SELECT id FROM project ORDER BY created_at, id LIMIT 1)"
#: Rows that a trainer holds at this moment are left to the next time.
_SOME = "SELECT id FROM {table} WHERE project_id IS NULL LIMIT 1000 FOR UPDATE SKIP LOCKED"
_OF_DATASET = "(SELECT dataset.project_id FROM dataset WHERE dataset.id = {table}.dataset_id)"
_FOUND = {
    "dataset": ["(SELECT id FROM project WHERE id::text = dataset.source->>'project_id')"],
    "training_run": [_OF_DATASET.format(table="training_run")],
    "evaluation": [_OF_DATASET.format(table="evaluation")],
    "gate_decision": [
        "(SELECT run.project_id FROM training_run AS run WHERE run.id = gate_decision.training_run_id)",
        "(SELECT met.project_id FROM dataset AS met WHERE met.id::text = config->>'evaluation_dataset_id')",
    ],
    "schedule": [
        "(SELECT project_id FROM training_run AS run WHERE schedule_id = schedule.id ORDER BY run.id DESC LIMIT 1)",
        "(SELECT project_id FROM dataset AS met WHERE met.name = schedule.dataset_name ORDER BY met.id DESC LIMIT 1)",
    ],
}
#: What the audit calls their making.
_MADE_BY = {"dataset": "datasets.import_", "schedule": "schedules.create"}


def fill_in_projects() -> None:
    """Give each of the trainer's rows that has none its project, some rows at a time. Does nothing the second time."""
    for table in OWNED:
        if op.get_bind().scalar(sa.text(f"SELECT EXISTS (SELECT FROM {table} WHERE project_id IS NULL)")):
            _require_a_project()
            _fill_from_audit(table)
            found = ", ".join([*_FOUND[table], _OLDEST])
            some = _SOME.format(table=table)
            fill(f"UPDATE {table} SET project_id = coalesce({found}) WHERE id IN ({some})")


def _fill_from_audit(table: str) -> None:
    """Read the audit once, however many rows there are: it is the largest table of many installations."""
    if table not in _MADE_BY:
        return
    made = op.get_bind().execute(
        sa.text(
            "SELECT DISTINCT subject->>'id' AS id, project_id FROM audit_event"
            " WHERE action = :action AND status < 300 AND project_id IS NOT NULL AND subject->>'id' IS NOT NULL"
        ),
        {"action": _MADE_BY[table]},
    )
    mine = " AND NOT EXISTS (SELECT FROM project WHERE id::text = source->>'project_id')" if table == "dataset" else ""
    for row_id, project_id in made.all():
        op.get_bind().execute(
            sa.text(f"UPDATE {table} SET project_id = :project WHERE id::text = :id AND project_id IS NULL{mine}"),
            {"project": project_id, "id": row_id},
        )


def _require_a_project() -> None:
    """Make the project that a first key would make, where rows were made at the command line before any key."""
    op.get_bind().execute(
        sa.text(
            "INSERT INTO project (id, name, pseudonym_key) SELECT :id, 'default', :key"
            " WHERE NOT EXISTS (SELECT FROM project)"
        ),
        {"id": new_id(), "key": secrets.token_bytes(32)},
    )
