"""An object store that is busy, dead, slow or cut off: every image has one result, the right one, none is lost."""

import random
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
import sqlalchemy as sa

from api.client import Carina
from shared.tables import Image, Job
from shared.vocabulary.states import JobState
from tests.e2e.conftest import Stack, running_stack
from tests.e2e.sent_images import ImageSender, assert_undisturbed, await_state
from tests.http_proxy import Answer, Proxy, Request, Spoil

SLOW_DOWN = Answer(
    503, b"<?xml version='1.0'?><Error><Code>SlowDown</Code></Error>", {"Content-Type": "application/xml"}
)


@pytest.fixture(scope="module")
def proxy(servers: dict[str, str]) -> Iterator[Proxy]:
    """What the stack knows as its object store."""
    port = urlsplit(servers["CARINA_S3_ENDPOINT_URL"]).port
    assert port is not None
    with Proxy(port).serving() as serving:
        yield serving


@pytest.fixture(scope="module")
def stack(proxy: Proxy, servers: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    keys = {name: servers[name] for name in ("CARINA_S3_ACCESS_KEY_ID", "CARINA_S3_SECRET_ACCESS_KEY")}
    where = {"CARINA_S3_ENDPOINT_URL": proxy.url, "CARINA_S3_BUCKET": "chaos"}
    with running_stack(tmp_path_factory.mktemp("stack"), **where, **keys) as running:
        yield running


@pytest.fixture(autouse=True)
def healthy_at_the_end(proxy: Proxy) -> Iterator[None]:
    yield
    proxy.judge, proxy.spoil = lambda _: None, lambda _: Spoil()


def attempts(stack: Stack, sent: dict) -> int:
    """The most tries that a job has used up."""
    return stack.query(sa.select(sa.func.max(Job.attempt)).where(Job.id.in_(sent)))[0][0]


@pytest.mark.parametrize("seed", range(2))
def test_a_store_that_is_too_busy_for_a_part_of_the_requests(
    stack: Stack, sender: ImageSender, proxy: Proxy, seed: int
) -> None:
    """Also while the images are sent."""
    draw, refused = random.Random(seed), []

    def judge(request: Request) -> Answer | None:
        if draw.random() > 0.4:
            return None
        refused.append(request)
        return SLOW_DOWN

    images = stack.query(sa.select(sa.func.count(Image.id)))[0][0]
    paths = sender.make(24)
    proxy.judge = judge
    with Carina(stack.client.api_url, stack.api_key, retry_for_s=300) as client:
        submission = client.submit_all(paths.values(), names=True, wait=True)
        rows = list(client.manifest(submission.id))
    proxy.judge = lambda _: None
    assert refused
    assert [row.outcome for row in rows] == ["succeeded"] * 24
    sent = {row.job_id: paths[row.name] for row in rows if row.job_id and row.name}
    assert len(sent) == 24
    assert_undisturbed(stack, sender, sent)
    assert stack.query(sa.select(sa.func.count(Image.id)))[0][0] == images + 24


def test_a_store_that_is_dead_for_a_while(stack: Stack, sender: ImageSender, proxy: Proxy) -> None:
    sent, refused = sender.send(32), []
    await_state(stack, sent, JobState.DETECTING)

    def judge(request: Request) -> Answer | None:
        refused.append(request)
        raise ConnectionResetError  # ends the connection without an answer

    proxy.judge = judge
    stack.until(lambda: len(refused) >= 30)
    proxy.judge = lambda _: None
    assert_undisturbed(stack, sender, sent)
    # An outage costs no attempt; a lease may run out under one that lasts.
    assert attempts(stack, sent) <= 2


def test_reads_that_are_slow_or_cut_off(stack: Stack, sender: ImageSender, proxy: Proxy) -> None:
    draw, spoiled = random.Random(0), []

    def spoil(request: Request) -> Spoil:
        if request.method != "GET" or draw.random() > 0.6:
            return Spoil()
        spoiled.append(request)
        return draw.choice([Spoil(part=draw.random()), Spoil(pause_s=0.2)])

    proxy.spoil = spoil
    sent = sender.send(32)
    assert_undisturbed(stack, sender, sent)
    assert spoiled
    assert attempts(stack, sent) <= 2
