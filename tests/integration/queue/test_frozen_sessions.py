"""A worker that froze while it changed jobs does not keep them from others."""

import pytest
import sqlalchemy as sa

from shared.errors import DatabaseUnavailable
from shared.queue.claim import claim, expire_leases
from shared.queue.stages import DETECT
from shared.tables import Job
from tests.integration.workshop import Workshop
from tests.waiting import wait_for
from workers.frozen_sessions import end_frozen_sessions
from workers.sweep import sweep

pytestmark = pytest.mark.usefixtures("tiny_model_id")


def end_frozen(workshop: Workshop, after_s: float) -> int:
    with workshop.database.begin() as session:
        return end_frozen_sessions(session, after_s=after_s)


def locked(workshop: Workshop, job_ids: list) -> bool:
    """Whether somebody holds these jobs."""
    with workshop.database.begin() as session:
        free = sa.select(Job.id).where(Job.id.in_(job_ids)).with_for_update(skip_locked=True)
        return len(session.scalars(free).all()) < len(job_ids)


def test_a_session_that_froze_in_the_middle_of_a_change_is_ended(workshop: Workshop) -> None:
    job_ids = workshop.rows(3)
    with workshop.database.begin() as session:
        claim(session, DETECT, "frozen", limit=3, lease_s=0.01)

    def freeze() -> None:
        with workshop.database.begin() as frozen:
            frozen.execute(sa.update(Job).where(Job.id.in_(job_ids)).values(priority=7))
            assert end_frozen(workshop, after_s=60) == 0  # It may still be about to go on.
            assert locked(workshop, job_ids)
            wait_for(lambda: end_frozen(workshop, after_s=0.05))
            wait_for(lambda: not locked(workshop, job_ids))

    with pytest.raises(DatabaseUnavailable):
        freeze()
    with workshop.database.begin() as session:
        assert sum(expire_leases(session, max_attempts=4).values()) == 3


def test_a_session_that_changes_no_leased_row_may_take_its_time(workshop: Workshop) -> None:
    """As the removal of what is left over, which waits for the object store with an advisory lock in its hands."""
    with workshop.database.begin() as slow:
        slow.execute(sa.text("SELECT pg_advisory_xact_lock(1), count(*) FROM job"))
        since = sa.text("SELECT now() < clock_timestamp() - interval '0.2 s'")
        wait_for(lambda: slow.scalar(since))
        with workshop.database.begin() as session:
            idle = "SELECT pg_sleep(0.2)"
            session.execute(sa.text(idle))
        assert end_frozen(workshop, after_s=0.05) == 0
        assert slow.scalar(sa.text("SELECT 1")) == 1


def test_leases_expire_where_frozen_sessions_cannot_be_ended(workshop: Workshop) -> None:
    """As where the user has no right to look at other sessions: here their view fails for any user."""
    job_ids = workshop.rows(3)
    with workshop.database.begin() as session:
        claim(session, DETECT, "frozen", limit=3, lease_s=0.01)
        session.execute(sa.text("CREATE VIEW pg_locks AS SELECT 1 / 0 AS pid, 0::oid AS relation, '' AS mode"))
        name = session.scalar(sa.text("SELECT current_database()"))
        session.execute(sa.text(f'ALTER DATABASE "{name}" SET search_path = public, pg_catalog'))
    workshop.database.engine.dispose()
    with pytest.raises(sa.exc.DataError):
        end_frozen(workshop, after_s=60)
    wait_for(lambda: sweep(workshop.settings, workshop.database, workshop.hints, "beat") or is_free(workshop, job_ids))


def is_free(workshop: Workshop, job_ids: list) -> bool:
    """Whether nobody holds a lease of these jobs."""
    with workshop.database.begin() as session:
        leased = sa.select(Job.id).where(Job.id.in_(job_ids), Job.lease_owner.is_not(None))
        return not session.scalars(leased).all()
