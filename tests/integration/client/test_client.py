"""The typed client against the API as it is served."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql

from api.client import ApiUnavailable, Carina, FileOutcome, JobAnswer, RequestRefused, TrainingAnswer
from api.client import studies as client_module
from shared.database import Database
from shared.errors import CarinaError
from shared.ids import new_id
from shared.settings import Settings
from shared.tables import Image
from shared.training.config import EvaluationConfig
from tests.integration.conftest import Keys, Server, png
from tests.integration.rows import add_dataset, add_model


@pytest.fixture
def client(server: Server, keys: Keys) -> Iterator[Carina]:
    with Carina(server.url, keys.both) as client:
        yield client


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """Five images."""
    paths = [tmp_path / f"image-{seed}.png" for seed in range(5)]
    for seed, path in enumerate(paths):
        path.write_bytes(png(seed))
    return paths


def test_files_are_sent_in_bundles_and_answered_in_order(
    client: Carina, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "BUNDLE_FILES", 2)
    report = tmp_path / "report.txt"
    report.write_text("no image")
    heard: list[FileOutcome] = []
    outcomes = client.submit([*images, report, images[0]], priority=9, on_file=heard.append)
    assert outcomes == heard
    assert [outcome.name for outcome in outcomes] == [*(path.name for path in images), "report.txt", "image-0.png"]
    assert [outcome.outcome for outcome in outcomes] == ["accepted"] * 5 + ["rejected", "duplicate"]
    assert outcomes[5].code == "unsupported_file_type"
    assert outcomes[0].job_id is not None
    assert client.job(outcomes[0].job_id).priority == 9
    assert client.submit([]) == []


def test_a_bundle_ends_before_it_grows_too_large(images: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    size = images[0].stat().st_size
    monkeypatch.setattr(client_module, "BUNDLE_BYTES", round(2.5 * size))
    assert [len(bundle) for bundle in client_module._bundles(images)] == [2, 2, 1]
    monkeypatch.setattr(client_module, "BUNDLE_BYTES", 1)
    assert [len(bundle) for bundle in client_module._bundles(images)] == [1] * 5


def test_what_was_sent_can_be_followed(client: Carina, images: list[Path]) -> None:
    (outcome,) = client.submit(images[:1])
    assert outcome.study_id
    assert outcome.image_id
    assert outcome.job_id
    study = client.study(outcome.study_id)
    assert [image.id for image in study.images] == [outcome.image_id]
    findings = client.findings(outcome.study_id, min_score=0.5)
    assert [image.job_id for image in findings.images] == [outcome.job_id]
    assert "research" in findings.notice.lower()
    assert client.models() == []
    for show in (client.rendition, client.overlay):
        with pytest.raises(RequestRefused) as caught:
            show(outcome.image_id)
        assert caught.value.code == "not_ready"


def test_waiting_hears_of_each_end_and_gives_up_in_time(client: Carina, images: list[Path]) -> None:
    jobs = [outcome.job_id for outcome in client.submit(images[:2]) if outcome.job_id]
    began = time.monotonic()
    assert [job.state for job in client.wait(jobs, timeout_s=1)] == ["queued", "queued"]
    assert 1 <= time.monotonic() - began < 60
    client.cancel(jobs[1])
    later = threading.Timer(0.5, lambda: client.cancel(jobs[0]))
    later.start()
    heard: list[JobAnswer] = []
    done = client.wait([*jobs, jobs[0]], on_job=heard.append)
    later.join()
    assert done == heard
    assert [job.id for job in done] == jobs
    assert [job.state for job in done] == ["cancelled", "cancelled"]


def test_an_error_answer_keeps_its_code_and_its_words(client: Carina, server: Server) -> None:
    with pytest.raises(RequestRefused) as caught:
        client.job(new_id())
    assert isinstance(caught.value, CarinaError)
    assert (caught.value.code, caught.value.status) == ("not_found", 404)
    assert caught.value.detail == "There is no such thing in this project."
    with Carina(server.url, "carina_no_key") as stranger, pytest.raises(RequestRefused) as caught:
        stranger.models()
    assert caught.value.code == "unauthorized"


def test_a_server_that_is_nowhere_is_given_up_on(images: list[Path]) -> None:
    began = time.monotonic()
    with Carina("http://127.0.0.1:1", "key", retry_for_s=1.5) as client, pytest.raises(ApiUnavailable):
        client.submit(images)
    assert 1.5 <= time.monotonic() - began < 60


def test_a_server_that_dies_in_between_is_tried_again(
    client: Carina, server: Server, images: list[Path], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "BUNDLE_FILES", 1)
    outcomes = client.submit(images, on_file=lambda _: server.worker.kill())
    assert len(outcomes) == 5
    with database.begin() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Image)) == 5


def test_a_503_is_tried_again(client: Carina, images: list[Path], settings: Settings) -> None:
    base, _, name = settings.database_url.get_secret_value().rpartition("/")
    allow = sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS {}")
    with psycopg.connect(f"{base}/postgres", autocommit=True) as connection:
        connection.execute(allow.format(sql.Identifier(name), sql.SQL("false")))
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        with Carina(client.api_url, "carina_any_key", retry_for_s=0) as hasty, pytest.raises(ApiUnavailable) as caught:
            hasty.submit(images)
        assert caught.value.detail == "PostgreSQL does not answer."
        reopened = threading.Timer(1.5, lambda: connection.execute(allow.format(sql.Identifier(name), sql.SQL("true"))))
        reopened.start()
        assert [outcome.outcome for outcome in client.submit(images)] == ["accepted"] * 5
        reopened.join()


def test_a_training_is_asked_for_waited_for_and_cancelled(server: Server, keys: Keys, database: Database) -> None:
    with database.begin() as session:
        add_dataset(session)
        model_id = add_model(session).id
    with Carina(server.url, keys.admin) as client:
        training = client.train("films", recipe="reference", config={"initial_weights": "none"}, name="mine")
        assert (training.name, training.state, training.config["canvas_px"]) == ("mine", "queued", 384)
        heard: list[TrainingAnswer] = []
        waited = client.wait_training(training.id, timeout_s=0.2, on_progress=heard.append)
        assert waited == heard[-1] == training
        assert client.cancel_training(training.id).state == "cancelled"
        assert client.wait_training(training.id).state == "cancelled"
        assert client.resume_training(training.id).state == "queued"
        evaluation = client.evaluate("films", model=model_id, config=EvaluationConfig(split="test"))
        assert client.wait_evaluation(evaluation.id, timeout_s=0).config["split"] == "test"
        for refused in (
            lambda: client.train("x-rays"),
            lambda: client.evaluate("films"),
            lambda: client.training(new_id()),
        ):
            with pytest.raises(RequestRefused) as caught:
                refused()
            assert caught.value.code == "not_found"
        with pytest.raises(RequestRefused) as caught:
            client.report(evaluation.id)
        assert caught.value.code == "not_ready"
