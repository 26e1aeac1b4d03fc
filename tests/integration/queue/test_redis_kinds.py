"""Redis behind Sentinels and over TLS serves everything that uses Redis; a Redis Cluster is refused in a sentence."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from deploy.stack.errors import StackError
from deploy.stack.services import External
from shared.access.keys import Allowance, create_key
from shared.database import Database
from shared.errors import HintNotSent, RedisClusterUnsupported
from shared.queue.hints import Hints, make_celery
from shared.redis_connection import require_answer
from shared.settings import Settings
from shared.vocabulary.states import Scope, WorkerKind
from tests.certificates import Authority
from tests.integration.child_processes import Processes
from tests.integration.conftest import Api
from tests.integration.workshop import Workshop, dicom
from tests.own_redis import OwnRedis, Sentinel
from tests.ports import free_port
from tests.waiting import DEADLINE_S, wait_for
from workers.hint_listener import HintListener

SECRET = "of-the-server"


def at(settings: Settings, url: str, ca_bundle: str = "") -> Settings:
    """The settings with another Redis."""
    return settings.model_copy(update={"redis_url": type(settings.redis_url)(url), "ca_bundle": ca_bundle})


def assert_serves(settings: Settings, database: Database, make_api: Callable[[Settings], Api]) -> None:
    """Hints go out and are heard, requests are counted, and the probe of `carina up` gets an answer."""
    require_answer(settings.redis_url.get_secret_value(), settings.ca_bundle)
    hints, heard = Hints(settings, database), threading.Event()
    hints.check()
    assert hints.send(WorkerKind.NOTIFY, 1) == 1
    with HintListener(make_celery(settings), WorkerKind.NOTIFY, heard.set):
        assert heard.wait(DEADLINE_S)
    hints.close()
    with database.begin() as session:
        key = create_key(
            session, project_name="ward", name="", scopes=[Scope.READ], allowance=Allowance(rate_limit="2/hour")
        )
    mine = make_api(settings).as_(key)
    assert [mine.get("/v1/models").status_code for _ in range(3)] == [200, 200, 429]


@pytest.mark.needs("redis-server", "openssl")
def test_tls_with_a_private_authority(
    settings: Settings, database: Database, make_api: Callable[[Settings], Api], tmp_path: Path
) -> None:
    mine, other = Authority(tmp_path / "mine"), Authority(tmp_path / "other")
    with OwnRedis(tmp_path / "redis", password=SECRET, tls=mine) as server:
        assert_serves(at(settings, server.url, str(mine.certificate)), database, make_api)
        for ca_bundle in (str(other.certificate), ""):
            with pytest.raises(HintNotSent, match="certificate verify failed"):
                Hints(at(settings, server.url, ca_bundle), database).check()
            with pytest.raises(HintNotSent, match="certificate verify failed"):
                require_answer(server.url, ca_bundle)
        require_answer(f"{server.url}?ssl_cert_reqs=none")


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[tuple[OwnRedis, OwnRedis, Sentinel]]:
    """A master, its replica, and a Sentinel that knows both."""
    with ExitStack() as stack:
        master = stack.enter_context(OwnRedis(tmp_path / "master", password=SECRET))
        replica = stack.enter_context(
            OwnRedis(tmp_path / "replica", "--replicaof", f"127.0.0.1 {master.port}", password=SECRET)
        )
        sentinel = stack.enter_context(Sentinel(tmp_path / "sentinel", master, name="carina", password="of-sentinel"))
        wait_for(lambda: replica.admin.info("replication")["master_link_status"] == "up")
        wait_for(sentinel.knows_a_replica)
        yield master, replica, sentinel


def test_sentinels_and_a_failover_in_mid_work(
    watched: tuple[OwnRedis, OwnRedis, Sentinel],
    settings: Settings,
    database: Database,
    environ: dict[str, str],
    workshop: Workshop,
    make_api: Callable[[Settings], Api],
    tmp_path: Path,
) -> None:
    master, replica, sentinel = watched
    # The first of the Sentinels is down.
    url = f"sentinel://:{SECRET}@127.0.0.1:1,127.0.0.1:{sentinel.port}/0?master=carina&sentinel_password=of-sentinel"
    settings = at(settings, url)
    assert_serves(settings, database, make_api)
    with ExitStack() as closing:
        # Nobody looks for work that was not hinted at, while Redis is well.
        processes = Processes(environ | {"CARINA_REDIS_URL": url, "CARINA_SWEEP_INTERVAL_S": "600"}, tmp_path, closing)
        processes.start("worker", "prepare")
        wait_for(lambda: processes.is_well("prepare"))
        hints = Hints(settings, database)
        jobs = workshop.queue(*(dicom(number) for number in range(8)))
        hints.send(WorkerKind.PREPARE, len(jobs))
        wait_for(lambda: "ready" in workshop.states(jobs))
        master.kill()
        wait_for(lambda: workshop.states(jobs) == ["ready"] * 8)
        wait_for(lambda: sentinel.master_port() == replica.port)
        wait_for(lambda: processes.is_well("prepare"))
        wait_for(lambda: any("b" in client["flags"] for client in replica.admin.client_list()))
        jobs = workshop.queue(dicom(8))
        wait_for(lambda: hints.send(WorkerKind.PREPARE, 1))
        wait_for(lambda: workshop.states(jobs) == ["ready"])
        hints.close()
        assert processes.stop("prepare") == 0


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[OwnRedis]:
    # Without a port for the bus, Redis takes the client port plus 10,000, which may belong to another program.
    options = ["--cluster-enabled", "yes", "--cluster-port", str(free_port())]
    with OwnRedis(tmp_path / "redis", *options) as server:
        yield server


@pytest.mark.parametrize("words", [["api"], ["worker", "prepare"], ["beat"], ["dicom-listener"]], ids="-".join)
def test_no_process_starts_on_a_cluster(
    words: list[str], cluster: OwnRedis, carina: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARINA_REDIS_URL", cluster.url)
    said = carina(*words, code=1)
    assert "redis_cluster_unsupported" in said
    assert RedisClusterUnsupported().detail in " ".join(said.split())
    monkeypatch.setenv("CARINA_REDIS_URL", cluster.url.replace("redis:", "redis+cluster:"))
    assert "Redis Cluster" in carina(*words, code=2)


def test_the_stack_does_not_start_on_a_cluster(cluster: OwnRedis) -> None:
    server = External("redis", "CARINA_REDIS_URL", "", partial(require_answer, cluster.url))
    with pytest.raises(StackError, match="Redis Cluster"):
        asyncio.run(server.wait(print))
