"""PostgreSQL turns read-only or ends sessions under load: no process has to be started anew, and no job is lost."""

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import psycopg
import pytest

from shared.vocabulary.states import JobState
from tests.e2e.conftest import Stack
from tests.e2e.sent_images import ImageSender, assert_undisturbed, await_state, unfinished
from tests.waiting import DEADLINE_S

#: Of each process that a failing PostgreSQL must not end.
PROCESSES = ("api", "prepare", "detect", "intake", "notify", "beat", "trainer")


def run(stack: Stack, *statements: str) -> None:
    """Run statements in a session that nothing turns read-only."""
    with psycopg.connect(stack.settings.database_url.get_secret_value(), autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        for statement in statements:
            connection.execute(statement)


TERMINATE = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


@contextmanager
def answers(stack: Stack) -> Iterator[Counter[tuple[int, str]]]:
    """Ask the API for pages and changes all the while; count its answers by status and code."""
    counted: Counter[tuple[int, str]] = Counter()
    over = threading.Event()

    def ask() -> None:
        headers = {"Authorization": f"Bearer {stack.api_key}"}
        with httpx.Client(base_url=stack.client.api_url, headers=headers, timeout=DEADLINE_S) as http:
            while not over.is_set():
                for answer in (http.get("/v1/studies"), http.post("/v1/jobs/retry", json={"code": "image_too_large"})):
                    code = answer.json().get("code", "") if answer.is_error else ""
                    counted[answer.status_code, code] += 1
                time.sleep(0.05)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield counted
    finally:
        over.set()
        asking.join()


def assert_no_crash(counted: Counter[tuple[int, str]]) -> None:
    """Every answer was a success, or said that the database was away."""
    failed = {answer for answer in counted if answer[0] >= 400}
    assert failed <= {(503, "database_unavailable")}, counted


@pytest.mark.parametrize("scope", ["SYSTEM", "DATABASE carina"])
def test_a_failover_to_read_only_and_back(stack: Stack, sender: ImageSender, scope: str) -> None:
    before = {name: stack.find(name) for name in stack.named(*PROCESSES)}
    sent = sender.send(24)
    with answers(stack) as counted:
        await_state(stack, sent, JobState.DETECTING)
        run(stack, f"ALTER {scope} SET default_transaction_read_only = on", "SELECT pg_reload_conf()", TERMINATE)
        try:
            stack.until(lambda: counted[503, "database_unavailable"] > 5)
            stack.until(lambda: httpx.get(f"{stack.client.api_url}/readyz").status_code == 503)
            assert unfinished(stack, sent)
        finally:
            run(stack, f"ALTER {scope} RESET default_transaction_read_only", "SELECT pg_reload_conf()")
        stack.until(lambda: httpx.get(f"{stack.client.api_url}/readyz").is_success)
        assert_undisturbed(stack, sender, sent)
    assert_no_crash(counted)
    assert {name: stack.find(name) for name in before} == before
    assert_undisturbed(stack, sender, sender.send(2))


def test_sessions_that_end_at_random(stack: Stack, sender: ImageSender) -> None:
    before = {name: stack.find(name) for name in stack.named(*PROCESSES)}
    draw = random.Random(0)
    sent = sender.send(48)
    with answers(stack) as counted:
        for _ in range(20):
            run(stack, TERMINATE)
            time.sleep(draw.uniform(0.05, 0.3))
        assert_undisturbed(stack, sender, sent)
    assert_no_crash(counted)
    assert {name: stack.find(name) for name in before} == before
