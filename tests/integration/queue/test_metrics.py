"""What `/metrics` says of requests, stages, processes, connections and bytes."""

from datetime import timedelta

import pytest
import sqlalchemy as sa
from prometheus_client.parser import text_string_to_metric_families

from shared.database import Database
from shared.tables import Job, Worker
from shared.vocabulary.states import JobState, WorkerKind
from tests.integration.conftest import Api
from tests.integration.rows import add_image, add_job, home

Found = dict[tuple[str, frozenset[tuple[str, str]]], float]


def read(api: Api) -> Found:
    text = api.get("/metrics").get_data(as_text=True)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def of(found: Found, name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


def test_requests_are_counted_by_route_and_status(api: Api) -> None:
    unknown = "/v1/jobs/01930f3e-7c07-7a10-8d3e-2f6b9c1d4e57"
    for _ in range(2):
        assert api.get(unknown).status_code == 404
    body = {"code": "worker_lost"}
    api.post("/v1/jobs/retry", body)
    found = read(api)
    labels = {"method": "GET", "route": "/v1/jobs/<uuid:job_id>", "status": "4xx"}
    assert of(found, "carina_http_request_seconds_count", **labels) == 2
    assert of(found, "carina_http_request_seconds_sum", **labels) > 0
    assert of(found, "carina_http_received_bytes_total") >= len(str(body))
    assert of(found, "carina_http_sent_bytes_total") > 0
    assert of(found, "carina_free_disk_bytes") > 0


def test_the_latency_of_stages_and_the_starts_of_workers(api: Api, database: Database) -> None:
    with database.begin() as session:
        for number in (1, 3):
            job = add_job(session, add_image(session, home(session)), state=JobState.SUCCEEDED)
            times = {
                "created_at": sa.func.now() - timedelta(seconds=10 + number),
                "ready_at": sa.func.now() - timedelta(seconds=10),
                "finished_at": sa.func.now() - timedelta(seconds=10 - 2 * number),
            }
            session.execute(sa.update(Job).where(Job.id == job.id).values(**times))
        session.add(Worker(id="new", stage=WorkerKind.DETECT))
        session.add(Worker(id="old", stage=WorkerKind.DETECT, started_at=sa.func.now() - timedelta(hours=2)))
    found = read(api)
    latency = "carina_stage_latency_seconds"
    assert of(found, latency, stage="prepare", quantile="0.5") == pytest.approx(2, abs=0.01)
    assert of(found, latency, stage="detect", quantile="0.95") == pytest.approx(5.8, abs=0.01)
    assert of(found, "carina_worker_starts", stage="detect") == 1
    assert of(found, "carina_worker_starts", stage="prepare") == 0
    connections = sum(value for (name, _), value in found.items() if name == "carina_database_connections")
    assert 1 <= connections <= of(found, "carina_database_connections_max")
    assert of(found, "carina_database_bytes") > 1_000_000
