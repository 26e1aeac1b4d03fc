"""Isolates projects: a session of one project can neither read nor change rows of other projects.

`Database.of_project` opens such sessions. Each statement gets a condition on the project for each table that belongs
to projects. Each statement is checked again before it is sent to the server: a statement without the condition, such
as plain SQL, is rejected. A statement for all projects has the execution options `ACROSS_PROJECTS`.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import ORMExecuteState, Session, UOWTransaction, aliased, with_loader_criteria
from sqlalchemy.orm.util import LoaderCriteriaOption

from shared.tables import (
    ApiKey,
    AuditEvent,
    ConsoleSession,
    Detection,
    ErasedObject,
    Erasure,
    IdempotencyKey,
    Job,
    Model,
    Owned,
    Project,
    QueueSample,
    Rendition,
    Row,
    Submission,
    SubmissionFile,
    TrainerMachine,
    TrainingPoint,
    TrainingRun,
    Usage,
    Webhook,
    WebhookDelivery,
    Worker,
)

#: Tables whose rows belong to a row of a project, with the column of the foreign key and the parent table.
CHILDREN: dict[type[Row], tuple[str, type[Any]]] = {
    ConsoleSession: ("api_key_id", ApiKey),
    Detection: ("job_id", Job),
    IdempotencyKey: ("api_key_id", ApiKey),
    SubmissionFile: ("submission_id", Submission),
    TrainingPoint: ("training_run_id", TrainingRun),
    Usage: ("api_key_id", ApiKey),
    WebhookDelivery: ("webhook_id", Webhook),
}
#: Tables that all projects share: models, workers, machines of trainers, queue samples, and rows keyed by the digest
#: of an object.
SHARED: frozenset[type[Row]] = frozenset({ErasedObject, Model, QueueSample, Rendition, TrainerMachine, Worker})
#: Tables in which some rows belong to no project. A session of a project sees only the rows of the project.
PARTLY_OWNED: tuple[type[Any], ...] = (AuditEvent, Erasure)
#: Execution options of a statement that reads the rows of all projects. Each use explains why it may.
ACROSS_PROJECTS: Mapping[str, Any] = {"across_projects": True}

#: Aliases of the parents, because a statement may use the parent itself.
_OWNERS: dict[type[Row], Any] = {child: aliased(parent) for child, (_, parent) in CHILDREN.items()}
_SCOPE = "project_scope"
_OWN_COLUMN = {name: "project_id" for name, table in Row.metadata.tables.items() if "project_id" in table.columns}
_OWN_COLUMN[Project.__tablename__] = "id"
_PARENT_COLUMN = {row.__tablename__: (column, parent.__tablename__) for row, (column, parent) in CHILDREN.items()}
_TABLES = "|".join(sorted({*_OWN_COLUMN, *_PARENT_COLUMN}, key=len, reverse=True))
#: A table that a statement reads or changes, and its alias.
_REFERENCE = re.compile(
    rf'(?:\b(?:FROM|JOIN|UPDATE|USING|ONLY)\s+|,\s*)(?:"?public"?\.)?"?({_TABLES})\b"?(?!\s*[.(])(?:\s+AS\s+(\w+))?',
    re.IGNORECASE,
)
#: The parameters of a list after the first one. Their number varies.
_LIST = re.compile(r"(?:, %\(\w+\)s(?:::\w+)?)+")


class OtherProject(Exception):
    """A session of one project must not write a row of another project."""


class UnscopedStatement(Exception):
    """A session of one project must not run a statement that is not limited to it."""


class ProjectSession(Session):
    """A session of one project."""

    def __init__(self, engine: sa.Engine, project_id: UUID) -> None:
        super().__init__(engine)
        self.project_id = project_id
        #: Whether the unit of work is writing rows, by their primary keys.
        self.is_flushing = False


def connect(session: Session) -> None:
    """Open the connection of the transaction. Statements of a `ProjectSession` will be checked."""
    session.connection(execution_options={_SCOPE: session} if isinstance(session, ProjectSession) else None)


def install(engine: sa.Engine) -> None:
    """Check each statement of a `ProjectSession` before it is sent to the server."""
    sa.event.listen(engine, "before_cursor_execute", _require_scope)


@lru_cache(maxsize=1024)
def _criteria(project_id: UUID) -> tuple[LoaderCriteriaOption, ...]:
    """The conditions for all tables that belong to projects, including aliases and subqueries."""
    always = {"include_aliases": True, "propagate_to_loaders": True}
    options = [
        with_loader_criteria(Owned, lambda row: row.project_id == project_id, **always),
        *(with_loader_criteria(row, row.project_id == project_id, **always) for row in PARTLY_OWNED),
        with_loader_criteria(Project, Project.id == project_id, **always),
    ]
    for child, owner in _OWNERS.items():
        is_own = sa.exists().where(owner.id == getattr(child, CHILDREN[child][0]), owner.project_id == project_id)
        options.append(with_loader_criteria(child, is_own, **always))
    return tuple(options)


@sa.event.listens_for(ProjectSession, "do_orm_execute")
def _limit(state: ORMExecuteState) -> None:
    session = state.session
    assert isinstance(session, ProjectSession)
    if state.execution_options.get("across_projects"):
        return
    if state.is_column_load:  # of a row that this session has loaded or created, by its primary key
        state.update_execution_options(**ACROSS_PROJECTS)
    elif state.is_insert:
        statement = state.statement
        assert isinstance(statement, sa.Insert)
        if "project_id" in statement.table.columns and statement.select is None:
            state.statement = statement.values(project_id=session.project_id)
    elif state.is_select or state.is_update or state.is_delete:
        state.statement = state.statement.options(*_criteria(session.project_id))


@sa.event.listens_for(ProjectSession, "before_flush")
def _own(session: Session, context: UOWTransaction, _: object) -> None:
    assert isinstance(session, ProjectSession)
    for row in session.new:
        if isinstance(row, Owned | AuditEvent | Erasure) and row.project_id is None:
            row.project_id = session.project_id
    for row in (*session.new, *session.dirty):
        own = row.id if isinstance(row, Project) else getattr(row, "project_id", session.project_id)
        if own != session.project_id:
            raise OtherProject(f"A row of {type(row).__name__} belongs to another project.")
    session.is_flushing = True


@sa.event.listens_for(ProjectSession, "after_flush")
def _flushed(session: Session, context: UOWTransaction) -> None:
    assert isinstance(session, ProjectSession)
    session.is_flushing = False


def _require_scope(
    connection: sa.Connection, cursor: object, statement: str, parameters: Any, context: Any, executemany: bool
) -> None:
    """Raise `UnscopedStatement` if a table of projects is not limited to the session's project."""
    options = connection.get_execution_options() if context is None else context.execution_options
    session: ProjectSession | None = options.get(_SCOPE)
    if session is None or session.is_flushing or options.get("across_projects"):
        return
    for table, names in _find_references(_LIST.sub("", statement)):
        if not any(parameters.get(name) == session.project_id if name else True for name in names):
            raise UnscopedStatement(
                f"The statement reads or changes {table} and is not limited to a project. Write it with the mapped"
                " classes, or give it the execution options ACROSS_PROJECTS and say why."
            )


@lru_cache(maxsize=1024)
def _find_references(statement: str) -> tuple[tuple[str, tuple[str | None, ...]], ...]:
    """Return the tables of a statement, each with the names of the parameters that its project is compared with.

    None means that the table is joined to its parent, which is limited itself.
    """
    found = []
    for match in _REFERENCE.finditer(statement):
        table, name = match[1].lower(), match[2] or match[1]
        names: list[str | None] = []
        if table in _OWN_COLUMN:
            names += re.findall(rf"\b{name}\.{_OWN_COLUMN[table]} = %\((\w+)\)s", statement)
        else:
            column, _ = _PARENT_COLUMN[table]
            by_parent = rf"\b\w+\.id = {name}\.{column}\b|\b{name}\.{column} = \w+\.id\b"
            names += [None] if re.search(by_parent, statement) else []
        found.append((table, tuple(names)))
    return tuple(found)
