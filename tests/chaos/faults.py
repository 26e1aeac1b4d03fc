"""The faults of a campaign: what can happen to each process and server of a stack, in a random order from a seed."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from random import Random

import psutil
import psycopg
import redis

from deploy.stack.state import State
from tests.e2e.conftest import Process, Stack

LEASE_S = 20.0
#: Beyond the lease.
FROZEN_S = LEASE_S + 2
#: How long a server refuses its work.
REFUSED_S = 5.0
#: A process has to answer again within this time, also on a machine on which loading its code takes minutes.
BACK_WITHIN_S = 600.0
#: Carina's processes, by the beginnings of their names.
PROCESSES = ("api", "prepare", "detect", "intake", "notify", "beat", "trainer")
_TERMINATE = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


@dataclass(frozen=True)
class Fault:
    """A kind of fault, and the process that it hits."""

    kind: str
    target: str
    inject: Callable[[Stack, str], None]
    #: Whether the supervisor has to start the process again.
    ends_process: bool = False

    @property
    def name(self) -> str:
        return f"{self.kind} {self.target}"


class NotBack(Exception):
    """A process did not answer again in time."""


def bag(stack: Stack, draw: Random) -> Iterator[Fault]:
    """Yield faults without end: all in a random order, then all again in another one."""
    faults = [
        *(fault for name in stack.named(*PROCESSES) for fault in _of_process(name)),
        Fault("kill", "postgres", _kill, ends_process=True),
        Fault("end sessions of", "postgres", lambda stack, _: _run(stack, _TERMINATE)),
        Fault("read-only", "postgres", _read_only),
        Fault("no connections of", "postgres", _use_up_connections),
        Fault("kill", "redis", _kill, ends_process=True),
        Fault("wipe", "redis", lambda stack, _: _redis(stack).flushall()),
        Fault("freeze", "redis", _freeze),
        Fault("read-only", "redis", _replica),
        Fault("kill", "nanio", _kill, ends_process=True),
        Fault("freeze", "nanio", _freeze),
    ]
    while True:
        yield from draw.sample(faults, len(faults))


def apply(stack: Stack, fault: Fault) -> float:
    """Inject a fault; return the seconds until its process answers again.

    Raises `NotBack` if it does not. The process answers when the fault begins, too: a dead one cannot be killed.
    """
    before = _await_ready(stack, fault.target, restarts=0)
    begun = time.monotonic()
    fault.inject(stack, fault.target)
    _await_ready(stack, fault.target, restarts=before.restarts + fault.ends_process)
    return time.monotonic() - begun


def _of_process(name: str) -> Iterator[Fault]:
    yield Fault("kill", name, _kill, ends_process=True)
    yield Fault("freeze", name, _freeze)
    yield Fault("terminate", name, _terminate, ends_process=True)
    if name.startswith(("prepare", "trainer")):
        yield Fault("kill a child of", name, _kill_child)


def _await_ready(stack: Stack, name: str, *, restarts: int) -> Process:
    deadline = time.monotonic() + BACK_WITHIN_S
    while True:
        entry = stack.processes().get(name)
        if entry and entry.pid and entry.state == State.READY and entry.restarts >= restarts:
            return Process(name, entry.pid, entry.restarts)
        if time.monotonic() > deadline:
            raise NotBack(f"{name} is {entry.state if entry else 'gone'} {BACK_WITHIN_S:g} s after a fault.")
        time.sleep(0.05)


def _kill(stack: Stack, name: str) -> None:
    stack.find(name).kill()


def _terminate(stack: Stack, name: str) -> None:
    stack.find(name).signal(signal.SIGTERM)


def _freeze(stack: Stack, name: str) -> None:
    process = stack.find(name)
    process.signal(signal.SIGSTOP)
    time.sleep(FROZEN_S)
    with suppress(ProcessLookupError):
        process.signal(signal.SIGCONT)


def _kill_child(stack: Stack, name: str) -> None:
    """Kill the newest descendant: a decoder, or a rank of a training. Without one nothing happens."""
    with suppress(psutil.NoSuchProcess):
        if children := psutil.Process(stack.find(name).pid).children(recursive=True):
            max(children, key=lambda child: child.create_time()).kill()


def _run(stack: Stack, *statements: str) -> None:
    with psycopg.connect(stack.settings.database_url.get_secret_value(), autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        for statement in statements:
            connection.execute(statement)


def _read_only(stack: Stack, _: str) -> None:
    """As after a failover, with the sessions that this ends."""
    reload = "SELECT pg_reload_conf()"
    _run(stack, "ALTER SYSTEM SET default_transaction_read_only = on", reload, _TERMINATE)
    try:
        time.sleep(REFUSED_S)
    finally:
        _run(stack, "ALTER SYSTEM RESET default_transaction_read_only", reload)


def _use_up_connections(stack: Stack, _: str) -> None:
    with ExitStack() as opened:
        with suppress(psycopg.OperationalError):
            while True:
                opened.enter_context(psycopg.connect(stack.settings.database_url.get_secret_value()))
        time.sleep(REFUSED_S)


def _redis(stack: Stack) -> "redis.Redis":
    return redis.Redis.from_url(stack.settings.redis_url.get_secret_value())


def _replica(stack: Stack, _: str) -> None:
    """Refuse writes, as after a failover."""
    with _promoted_again(_redis(stack)) as server:
        server.replicaof("127.0.0.1", "1")
        time.sleep(REFUSED_S)


@contextmanager
def _promoted_again(server: "redis.Redis") -> Iterator["redis.Redis"]:
    try:
        yield server
    finally:
        server.replicaof("NO", "ONE")
        server.close()
