"""How much PostgreSQL writes and keeps for each image, from its row to its result."""

from collections.abc import Iterator

import sqlalchemy as sa

from shared.database import Database
from shared.leases import renew
from shared.queue.claim import claim
from shared.queue.outcome import FoundBox, FoundImage, StoredRendition, mark_ready, succeed
from shared.queue.stages import DETECT, PREPARE
from tests.bench.figure import Figure
from tests.bench.queue_rows import add_demo_model, add_jobs
from tests.bench.servers import servers

IMAGES, BATCH, BOXES = 2_000, 16, 10
LEASE_S = 3600
_LOG = sa.text("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
_TABLES = "'{job, image, detection, top_score}'::regclass[]"
_ROWS = sa.text(f"SELECT sum(pg_total_relation_size(name)) FROM unnest({_TABLES}) AS name")
_CHANGES = sa.text("SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'job'")


def measure() -> Iterator[Figure]:
    """Prepare and detect each image once, in batches of 16 with 10 boxes each; every lease is extended once."""
    with servers() as settings:
        database = Database.from_settings(settings)
        add_demo_model(settings, database)
        with database.begin() as session:
            log, rows = session.scalars(_LOG).one(), session.scalars(_ROWS).one()
        add_jobs(database, IMAGES, state="queued")
        rendition = StoredRendition("0" * 64, 1, 1024, 860, 2048, 1720)
        boxes = [FoundBox(0, "Nodule/Mass", 0.9 - 0.05 * rank, (1.0, 2.0, 3.0, 4.0)) for rank in range(BOXES)]
        for stage in (PREPARE, DETECT):
            while True:
                with database.begin() as session:
                    claims = claim(session, stage, "bench", limit=BATCH, lease_s=LEASE_S)
                if not claims:
                    break
                with database.begin() as session:
                    renew(session, claims, lease_s=LEASE_S)
                with database.begin() as session:
                    if stage is PREPARE:
                        for each in claims:
                            mark_ready(session, each, rendition)
                    else:
                        succeed(session, dict.fromkeys(claims, FoundImage(boxes)))
        with database.begin() as session:
            session.execute(sa.text("SELECT pg_stat_force_next_flush()"))
        with database.begin() as session:
            log, rows = session.scalars(_LOG).one() - log, session.scalars(_ROWS).one() - rows
            changes, hot = session.execute(_CHANGES).one()
        database.close()
    yield Figure("rows and indexes of an image", float(rows) / IMAGES / 1000, "kB")
    yield Figure("log of an image", float(log) / IMAGES / 1000, "kB")
    yield Figure("changes of a job", changes / IMAGES)
    yield Figure("of which without a change of an index", hot / changes)
