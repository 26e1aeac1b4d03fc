"""Sessions of one project: whatever a statement looks like, it neither shows nor changes another project's rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, aliased

from shared.access.audit import record
from shared.access.keys import create_key
from shared.database import Database
from shared.database.project_scope import (
    ACROSS_PROJECTS,
    CHILDREN,
    PARTLY_OWNED,
    SHARED,
    OtherProject,
    UnscopedStatement,
    _find_references,
)
from shared.tables import AuditEvent, Detection, Image, Job, Owned, Project, Row, Study, Webhook, WebhookDelivery
from shared.vocabulary.states import JobState, Scope
from tests.integration.rows import add_image, add_result


@dataclass(frozen=True)
class Ward:
    """A project with a result."""

    project_id: UUID
    study_id: UUID
    image_id: UUID
    job_id: UUID
    webhook_id: UUID


@pytest.fixture
def wards(database: Database) -> tuple[Ward, Ward]:
    """Two projects with the same in each."""

    def furnish(session: Session, name: str) -> Ward:
        create_key(session, project_name=name, name=name, scopes=[Scope.READ])
        project = session.scalars(sa.select(Project).where(Project.name == name)).one()
        key_id = session.scalars(sa.text("SELECT id FROM api_key WHERE project_id = :id"), {"id": project.id}).one()
        image = add_image(session, project.id)
        job = add_result(session, image, f"lungs of {name}")
        webhook = Webhook(project_id=project.id, api_key_id=key_id, url="https://a.test", secret="s", events=["*"])
        session.add(webhook)
        session.flush()
        session.add(WebhookDelivery(webhook_id=webhook.id, event="ping", payload={}))
        record(session, action="keys.create", subject={}, project_id=project.id)
        return Ward(project.id, image.study_id, image.id, job.id, webhook.id)

    with database.begin() as session:
        return furnish(session, "mine"), furnish(session, "theirs")


other = aliased(Job)
_OF_IMAGE = sa.select(Job.id).where(Job.image_id == Image.id).order_by(Job.id).limit(1).correlate(Image).lateral("its")

#: Each shows the same number of rows of each project.
SELECTS: dict[str, Callable[[], sa.Select | sa.CompoundSelect]] = {
    "rows": lambda: sa.select(Job),
    "columns": lambda: sa.select(Job.id),
    "an alias": lambda: sa.select(other.id),
    "a join": lambda: sa.select(Job.id, Image.id).join(Image, sa.true()),
    "an outer join": lambda: sa.select(Image.id, Job.id).outerjoin(Job, sa.true()),
    "no join": lambda: sa.select(Job.id, other.id).where(Job.id == other.id),
    "a subquery": lambda: sa.select(sa.select(Job.id).subquery().c.id),
    "a list of ids": lambda: sa.select(Image.id).where(Image.id.in_(sa.select(Job.image_id))),
    "an existence": lambda: sa.select(Image.id).where(sa.exists().where(Job.image_id == Image.id)),
    "an absence": lambda: sa.select(Image.id).where(~sa.exists().where(Job.state == JobState.FAILED)),
    "a lateral": lambda: sa.select(Image.id, _OF_IMAGE.c.id).join(_OF_IMAGE, sa.true()),
    "a CTE": lambda: sa.select(sa.select(Job.id).cte("theirs").c.id),
    "a union": lambda: sa.union(sa.select(Job.id), sa.select(other.id)),
    "a child": lambda: sa.select(Detection),
    "a child's columns": lambda: sa.select(Detection.job_id, Detection.rank),
    "a child by its parent": lambda: sa.select(Detection.job_id, Detection.rank).join(Job, Job.id == Detection.job_id),
    "messages": lambda: sa.select(WebhookDelivery.id),
    "the audit": lambda: sa.select(AuditEvent.id),
    "projects": lambda: sa.select(Project.name),
    "a lock": lambda: sa.select(Job.id).with_for_update(skip_locked=True),
    "a group": lambda: sa.select(Job.state, Job.project_id).group_by(Job.state, Job.project_id),
}


def _identity(value: object) -> str:
    """A row's primary key, or a column's value."""
    return str(sa.inspect(value).identity if isinstance(value, Row) else value)


@pytest.mark.parametrize("shape", SELECTS)
def test_a_statement_shows_the_rows_of_its_project_only(
    database: Database, wards: tuple[Ward, Ward], shape: str
) -> None:
    mine, theirs = wards
    shown = []
    for ward in (mine, theirs):
        with database.of_project(ward.project_id).begin() as session:
            shown.append({tuple(map(_identity, row)) for row in session.execute(SELECTS[shape]())})
    assert all(shown)
    assert not shown[0] & shown[1]


#: Each is one number, which is 1 where one project is seen.
NUMBERS: dict[str, Callable[[], sa.Select]] = {
    "a count": lambda: sa.select(sa.func.count()).select_from(Job),
    "a count of ids": lambda: sa.select(sa.func.count(Job.id)),
    "a count of a subquery": lambda: sa.select(sa.func.count()).select_from(sa.select(Job.id).limit(9).subquery()),
    "a count where": lambda: sa.select(sa.func.count()).where(Job.state == JobState.SUCCEEDED),
    "a scalar": lambda: sa.select(sa.select(sa.func.count(Job.id)).scalar_subquery()),
}


@pytest.mark.parametrize("shape", NUMBERS)
def test_a_number_counts_the_rows_of_its_project_only(database: Database, wards: tuple[Ward, Ward], shape: str) -> None:
    with database.of_project(wards[0].project_id).begin() as session:
        assert session.scalar(NUMBERS[shape]()) == 1


def test_whether_there_is_such_a_row_is_asked_of_its_project_only(database: Database, wards: tuple[Ward, Ward]) -> None:
    mine, theirs = wards
    with database.of_project(mine.project_id).begin() as session:
        assert session.scalar(sa.select(sa.exists().where(Job.id == mine.job_id)))
        assert not session.scalar(sa.select(sa.exists().where(Job.id == theirs.job_id)))


def test_another_projects_row_is_as_one_that_is_not_there(database: Database, wards: tuple[Ward, Ward]) -> None:
    mine, theirs = wards
    with database.of_project(mine.project_id).begin() as session:
        assert session.get(Job, mine.job_id) is not None
        assert session.get(Job, theirs.job_id) is None
        assert session.get(Detection, (theirs.job_id, 0)) is None
        assert session.get(Project, theirs.project_id) is None


CHANGES: dict[str, Callable[[], sa.Update | sa.Delete]] = {
    "an update": lambda: sa.update(Job).values(priority=1),
    "an update by id": lambda: sa.update(Job).where(Job.id.in_(sa.select(other.id))).values(priority=1),
    "an update of a child": lambda: sa.update(Detection).values(score=0.2),
    "a deletion of children": lambda: sa.delete(WebhookDelivery),
    "a deletion": lambda: sa.delete(AuditEvent),
}


@pytest.mark.parametrize("shape", CHANGES)
@pytest.mark.parametrize("synchronize", [False, "auto"])
def test_a_change_reaches_the_rows_of_its_project_only(
    database: Database, wards: tuple[Ward, Ward], shape: str, synchronize: bool | str
) -> None:
    before = _contents(database, wards[1])
    with database.of_project(wards[0].project_id).begin() as session:
        changed = session.execute(CHANGES[shape]().execution_options(synchronize_session=synchronize))
        assert isinstance(changed, sa.CursorResult)
        assert changed.rowcount > 0
    assert _contents(database, wards[1]) == before


@pytest.mark.parametrize("table", [Job.__table__, Detection.__table__])
@pytest.mark.parametrize("make", [sa.select, sa.update, sa.delete])
def test_a_statement_that_cannot_be_limited_is_refused(
    database: Database,
    wards: tuple[Ward, Ward],
    make: Callable[..., sa.Select | sa.Update | sa.Delete],
    table: sa.Table,
) -> None:
    statement = make(table)
    if isinstance(statement, sa.Update):
        statement = statement.values(model_id=None)
    with database.of_project(wards[0].project_id).begin() as session, pytest.raises(UnscopedStatement):
        session.execute(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT id FROM job",
        "select id from job",
        'SELECT id FROM "public"."job"',
        "SELECT id FROM JOB",
        "SELECT job.id FROM study, job",
        "SELECT 1 FROM image JOIN job AS mine ON mine.image_id = image.id WHERE image.project_id = %(p)s",
        "UPDATE job SET priority = 1",
        "DELETE FROM detection",
        "DELETE FROM detection USING job WHERE job.id = detection.job_id",
        "WITH them AS (SELECT id FROM study) SELECT id FROM them",
        "INSERT INTO top_score SELECT job.study_id, 'x', job.id, job.project_id, job.image_id, 1, 1 FROM job",
    ],
)
def test_plain_sql_is_refused(database: Database, wards: tuple[Ward, Ward], statement: str) -> None:
    with database.of_project(wards[0].project_id).begin() as session, pytest.raises(UnscopedStatement):
        session.connection().exec_driver_sql(statement, {"p": wards[0].project_id})


def test_plain_sql_of_another_project_is_refused(database: Database, wards: tuple[Ward, Ward]) -> None:
    mine, theirs = wards
    jobs = sa.text("SELECT job.id FROM job WHERE job.project_id = :p")
    with database.of_project(mine.project_id).begin() as session:
        assert session.scalars(jobs, {"p": mine.project_id}).all() == [mine.job_id]
        with pytest.raises(UnscopedStatement):
            session.scalars(jobs, {"p": theirs.project_id})


def test_a_statement_across_projects_says_so(database: Database, wards: tuple[Ward, Ward]) -> None:
    with database.of_project(wards[0].project_id).begin() as session:
        assert len(session.scalars(sa.select(Job.id).execution_options(**ACROSS_PROJECTS)).all()) == 2
        assert len(session.scalars(sa.text("SELECT id FROM job").execution_options(**ACROSS_PROJECTS)).all()) == 2
        # The next one is limited again.
        assert len(session.scalars(sa.select(Job.id)).all()) == 1


def test_lists_of_any_length_are_checked_as_one_statement(database: Database, wards: tuple[Ward, Ward]) -> None:
    _find_references.cache_clear()
    with database.of_project(wards[0].project_id).begin() as session:
        for length in range(2, 9):
            ids = [wards[0].job_id, *(uuid4() for _ in range(length - 1))]
            assert session.scalars(sa.select(Job.id).where(Job.id.in_(ids))).all() == [wards[0].job_id]
    assert _find_references.cache_info().currsize == 1


def test_new_rows_belong_to_the_sessions_project(database: Database, wards: tuple[Ward, Ward]) -> None:
    mine, theirs = wards
    with database.of_project(mine.project_id).begin() as session:
        session.add(added := Study())
        session.flush()
        assert added.project_id == mine.project_id
        sent = insert(Study).values(project_id=theirs.project_id, study_instance_uid="1.2").returning(Study)
        assert session.scalars(sent).one().project_id == mine.project_id
        record(session, action="studies.submit", subject={})
    with database.begin() as session:
        rows = session.scalars(sa.select(AuditEvent).where(AuditEvent.action == "studies.submit")).one()
        assert rows.project_id == mine.project_id


def test_a_row_of_another_project_is_not_added(database: Database, wards: tuple[Ward, Ward]) -> None:
    mine, theirs = wards
    with pytest.raises(OtherProject), database.of_project(mine.project_id).begin() as session:
        session.add(Study(project_id=theirs.project_id))


def test_a_row_is_not_moved_to_another_project(database: Database, wards: tuple[Ward, Ward]) -> None:
    mine, theirs = wards
    with pytest.raises(OtherProject), database.of_project(mine.project_id).begin() as session:
        session.get_one(Study, mine.study_id).project_id = theirs.project_id


def test_rows_that_were_read_can_be_changed_and_deleted(database: Database, wards: tuple[Ward, Ward]) -> None:
    mine, _ = wards
    with database.of_project(mine.project_id).begin() as session:
        (job := session.get_one(Job, mine.job_id)).priority = 9
        session.flush()
        session.refresh(job)
        assert job.priority == 9
        session.delete(session.get_one(Webhook, mine.webhook_id))
        session.flush()
        assert session.get(Webhook, mine.webhook_id) is None
        # The unit of work is done; what follows is checked again.
        with pytest.raises(UnscopedStatement):
            session.execute(sa.text("SELECT id FROM job"))


def test_every_table_says_whose_its_rows_are() -> None:
    """A new table is owned by projects, belongs to a row that is, or is named as one that all share."""
    tables = {mapper.class_ for mapper in Row.registry.mappers}
    owned = {table for table in tables if issubclass(table, Owned)}
    assert tables == owned | CHILDREN.keys() | SHARED | {Project, *PARTLY_OWNED}


def _contents(database: Database, ward: Ward) -> Sequence[object]:
    with database.begin() as session:
        return [
            session.execute(sa.select(Job.__table__).where(Job.project_id == ward.project_id)).all(),
            session.execute(sa.select(Detection.__table__).where(Detection.job_id == ward.job_id)).all(),
            session.execute(
                sa.select(WebhookDelivery.__table__).where(WebhookDelivery.webhook_id == ward.webhook_id)
            ).all(),
            session.execute(sa.select(AuditEvent.__table__).where(AuditEvent.project_id == ward.project_id)).all(),
        ]
