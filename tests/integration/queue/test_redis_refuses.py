"""A Redis that is down, full, frozen or refuses: processes go on without hints, and take them again by themselves."""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from shared.object_store import original_key
from shared.queue.hints import QUIET_S, Hints
from shared.settings import Settings
from shared.vocabulary.states import JobState, WorkerKind
from tests.integration.child_processes import Processes
from tests.integration.conftest import Keys, png
from tests.integration.workshop import Workshop, dicom
from tests.own_redis import OwnRedis, freeze, thaw
from tests.ports import free_port
from tests.waiting import DEADLINE_S, wait_for

#: Without hints nobody looks for work before this: what is found earlier was hinted at, or Redis was known to fail.
NEVER_S = "600"
PASSWORD = "first"


def _until(condition: Callable[[], object], what: str) -> None:
    wait_for(condition, lambda: what, pause_s=0.1)


@pytest.fixture
def broken(tmp_path: Path) -> Iterator[OwnRedis]:
    """The Redis that fails."""
    with OwnRedis(tmp_path / "redis", password=PASSWORD) as server:
        yield server


@pytest.fixture
def processes(environ: dict[str, str], settings: Settings, broken: OwnRedis, tmp_path: Path) -> Iterator[Processes]:
    own = {"CARINA_REDIS_URL": broken.url, "CARINA_SWEEP_INTERVAL_S": NEVER_S, "CARINA_DEVICE": "cpu"}
    with ExitStack() as closing:
        yield Processes(environ | own, tmp_path, closing)


def _lose(workshop: Workshop, number: int) -> UUID:
    """Make a job whose worker is gone: a sweep has to take it back, and a worker to find it then."""
    file = dicom(number)
    digest = hashlib.sha256(file).hexdigest()
    workshop.store.put(original_key(digest), file)
    expired = datetime.now(UTC) - timedelta(minutes=1)
    return workshop._add(digest, JobState.PREPARING, {"lease_owner": "gone", "lease_expires_at": expired, "attempt": 1})


#: How a server is broken, or mended.
Change = Callable[[OwnRedis], object]


def _cut(server: OwnRedis) -> None:
    server.admin.client_kill_filter(_type="normal", skipme=True)


def _change_password(server: OwnRedis) -> None:
    server.admin.config_set("requirepass", "rotated")
    _cut(server)


def _fill_connections(server: OwnRedis) -> None:
    server.admin.config_set("maxclients", 1)
    _cut(server)


def _lose_disk(server: OwnRedis) -> None:
    """Let a snapshot fail, after which a server that keeps snapshots takes no writes."""
    server.admin.config_set("save", "3600 1")
    shutil.rmtree(server.folder)
    server.admin.bgsave()
    _until(lambda: server.admin.info("persistence")["rdb_last_bgsave_status"] == "err", "a snapshot that fails")


def _load_slowly(server: OwnRedis) -> None:
    """Start it again with so many keys on its disk that it is loading for minutes."""
    snapshot = server.folder / "dump.rdb"
    server.admin.mset({f"key{number}": "" for number in range(1000)})
    server.admin.save()
    kept = snapshot.read_bytes()
    server.kill()
    server.folder.mkdir()
    snapshot.write_bytes(kept)
    server.start("--key-load-delay", "1000000", "--loading-process-events-interval-bytes", "1024")


def _restart(server: OwnRedis) -> None:
    server.kill()
    server.start()


STATES: dict[str, tuple[Change, Change]] = {
    "a replica whose master is gone": (
        lambda server: server.admin.replicaof("127.0.0.1", "1"),
        lambda server: server.admin.replicaof("NO", "ONE"),
    ),
    "memory full": (
        lambda server: server.admin.config_set("maxmemory", 1),
        lambda server: server.admin.config_set("maxmemory", 0),
    ),
    "disk error": (_lose_disk, lambda server: server.admin.config_set("stop-writes-on-bgsave-error", "no")),
    "no permission": (
        lambda server: server.admin.execute_command("ACL SETUSER default -@write"),
        lambda server: server.admin.execute_command("ACL SETUSER default +@all"),
    ),
    "another password": (_change_password, lambda server: server.admin.config_set("requirepass", PASSWORD)),
    "no free connection": (_fill_connections, lambda server: server.admin.config_set("maxclients", 1000)),
    "frozen": (freeze, thaw),
    "gone": (OwnRedis.kill, OwnRedis.start),
    "loading": (_load_slowly, _restart),
}


def _is_heard(server: OwnRedis) -> bool:
    """Whether a worker waits for hints."""
    return any("b" in client["flags"] for client in server.admin.client_list())


def _readiness(api: httpx.Client) -> tuple[int, str, list[str]]:
    try:
        answer = api.get("/readyz")
    except httpx.TransportError:  # it still starts
        return 0, "", []
    return answer.status_code, answer.json()["status"], answer.json()["degraded"]


def test_work_goes_on_while_redis_refuses_and_hints_come_again_afterwards(
    broken: OwnRedis, processes: Processes, workshop: Workshop, keys: Keys
) -> None:
    """Given processes at work: whenever Redis fails, work is found by looking; when it is back, by hints again."""
    port, dicom_port = free_port(), free_port()
    processes.start("api", CARINA_API_PORT=str(port))
    senders = {"CARINA_DICOM_ALLOWED_AES": "SENDER", "CARINA_DICOM_PROJECT": "ward"}
    names = [
        processes.start("worker", "prepare"),
        processes.start("beat", CARINA_SWEEP_INTERVAL_S="1"),
        processes.start("dicom-listener", CARINA_DICOM_PORT=str(dicom_port), **senders),
    ]
    api = processes.closing.enter_context(
        httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {keys.both}"}, timeout=DEADLINE_S
        )
    )
    for number, (state, (break_, mend)) in enumerate(STATES.items()):
        for name in names:
            _until(lambda name=name: processes.is_well(name), f"{name} at work before: {state}")
        _until(lambda: _readiness(api) == (200, "ready", []), f"the API at work before: {state}")
        break_(broken)
        for name in names:
            _until(lambda name=name: processes.is_well(name, "redis"), f"{name} knows: {state}")
        _until(lambda: _readiness(api) == (200, "ready", ["redis"]), f"the API knows: {state}")
        lost = _lose(workshop, number)
        sent = api.post("/v1/studies", files=[("files", ("a.png", png(number)))])
        assert sent.status_code == 202, state
        jobs = [lost, UUID(sent.json()["files"][0]["job_id"])]
        _until(lambda jobs=jobs: workshop.states(jobs) == ["ready"] * 2, f"work found in spite of: {state}")
        mend(broken)
    for name in names:
        _until(lambda name=name: processes.is_well(name), f"{name} at work in the end")
    assert processes.stop("beat") == 0  # from here on nobody sweeps
    _until(lambda: _is_heard(broken), "hints heard again")
    _until(lambda: _readiness(api) == (200, "ready", []), "the API knows the end")
    jobs = []

    def is_hinted_at() -> bool:  # by one of several requests: for `QUIET_S` after a failure the API sends no hint
        sent = api.post("/v1/studies", files=[("files", ("b.png", png(1000 + len(jobs))))])
        jobs.append(UUID(sent.json()["files"][0]["job_id"]))
        return workshop.states(jobs)[0] == "ready"

    wait_for(is_hinted_at, lambda: "work hinted at", pause_s=QUIET_S)
    assert {name: processes.stop(name) for name in ("prepare", "dicom-listener")} == {"prepare": 0, "dicom-listener": 0}


def test_beat_starts_while_redis_is_gone_and_sweeps_before_and_after(
    broken: OwnRedis, processes: Processes, workshop: Workshop
) -> None:
    broken.kill()
    processes.start("beat", CARINA_SWEEP_INTERVAL_S="1")
    _until(lambda: processes.is_well("beat", "redis"), "redis known to fail")
    lost = _lose(workshop, 1)
    _until(lambda: workshop.states([lost]) == ["queued"], "taken back without redis")

    broken.start()
    _until(lambda: processes.is_well("beat"), "redis known to be back")
    lost = _lose(workshop, 2)
    _until(lambda: workshop.states([lost]) == ["queued"], "taken back with redis")
    assert processes.stop("beat") == 0, processes.said("beat")


@pytest.mark.parametrize("state", STATES)
def test_a_worker_starts_while_redis_refuses(
    state: str, broken: OwnRedis, processes: Processes, workshop: Workshop, settings: Settings
) -> None:
    break_, mend = STATES[state]
    break_(broken)
    (job,) = workshop.queue(dicom(1))
    processes.start("worker", "prepare")
    _until(lambda: workshop.states([job]) == ["ready"], "first work done")
    _until(lambda: processes.is_well("prepare", "redis"), "redis known to fail")
    (job,) = workshop.queue(dicom(2))
    _until(lambda: workshop.states([job]) == ["ready"], "work found without a hint")

    mend(broken)
    _until(lambda: processes.is_well("prepare"), "redis known to be back")
    _until(lambda: _is_heard(broken), "hints heard")
    (job,) = workshop.queue(dicom(3))
    hints = Hints(settings.model_copy(update={"redis_url": type(settings.redis_url)(broken.url)}), workshop.database)
    assert hints.send(WorkerKind.PREPARE, 1) == 1
    _until(lambda: workshop.states([job]) == ["ready"], "work found by a hint")
    hints.close()
    assert processes.stop("prepare") == 0, processes.said("prepare")
