"""How long a result waits for those who wait for it, on a stack that does nothing else."""

import statistics
import time
from collections.abc import Iterator
from datetime import datetime

import sqlalchemy as sa

from api.client import Carina
from shared.database import Database
from shared.phantoms import demo_studies
from shared.settings import Settings
from shared.tables import Job
from shared.vocabulary.webhook_events import WebhookEvent
from tests.bench.figure import Figure
from tests.bench.servers import stack
from tests.integration.receiver import Receiver

FILMS, WARM_UP = 30, 3
TIMEOUT_S = 300


def measure() -> Iterator[Figure]:
    """Send one film after the other, each when the last has its result; a webhook gets a message about each."""
    with (
        Receiver().serving() as receiver,
        stack(CARINA_WEBHOOK_ALLOW_PRIVATE="true") as running,
        Carina(running.environ["CARINA_API_URL"], running.environ["CARINA_API_KEY"]) as client,
    ):
        database = Database.from_settings(Settings.from_env(running.environ))
        client.create_webhook(receiver.url, [WebhookEvent.JOB_FINISHED])
        answered_s, told_s, whole_s = [], [], []
        for number, (name, content, _) in enumerate(demo_studies(FILMS + WARM_UP)):
            path = running.folder / name
            path.write_bytes(content)
            begun = time.time()
            (outcome,) = client.submit([path])
            assert outcome.job_id is not None
            client.wait([outcome.job_id], timeout_s=TIMEOUT_S)
            answered_at = time.time()
            while len(receiver.messages) <= number:
                time.sleep(0.001)
            told_at = time.time()
            with database.begin() as session:
                finished: datetime = session.scalars(sa.select(Job.finished_at).where(Job.id == outcome.job_id)).one()
            if number >= WARM_UP:
                answered_s.append(answered_at - finished.timestamp())
                told_s.append(told_at - finished.timestamp())
                whole_s.append(answered_at - begun)
        database.close()
    yield Figure("from the first byte to the answer, median", statistics.median(whole_s), "s")
    answered, told = statistics.median(answered_s), statistics.median(told_s)
    yield Figure("from the end of a job to the answer of a long poll, median", answered, "s", 0.12, "below")
    yield Figure("from the end of a job to the webhook's receiver, median", told, "s", 0.1, "below")
