"""Runs Celery's consumer in a thread, which starts a new consumer whenever one ends.

Celery itself only retries after a lost connection. A replica, a full server, a rejected password or command ends its
consumer and the process. Here these errors only delay hints: the worker also looks for work without hints.
"""

import logging
import os
import socket
from collections.abc import Callable
from contextlib import suppress

import redis
from celery import Celery
from celery.bootsteps import CLOSE
from celery.worker import WorkController
from kombu.exceptions import KombuError

from shared.errors import HintNotSent
from shared.processes.loops import Loop
from shared.queue.hints import task_name
from shared.vocabulary.states import WorkerKind


class HintListener:
    """Receives the hints for one kind of worker until its context ends."""

    def __init__(self, app: Celery, kind: WorkerKind, on_hint: Callable[[], None]) -> None:
        self._app, self._kind = app, kind
        self._consumer: _Consumer | None = None
        self._loop = Loop("hints", reporting(self._consume), every_s=0.5)
        app.task(name=task_name(kind), shared=False)(on_hint)  # only in this application
        app.finalize()
        app.set_default()  # for all threads, because Celery's worker reads the current application in its own thread
        # The loop logs a lost Redis in one line; Celery would log a traceback each time.
        for name in ("celery.worker", "kombu.transport.redis"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)

    @property
    def is_connected(self) -> bool:
        """Whether a consumer is connected. A lost connection may not be noticed yet."""
        consumer = self._consumer
        return consumer is not None and consumer.is_ready

    def __enter__(self) -> "HintListener":
        self._loop.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Stop receiving hints. The thread ends within seconds, or with the process. A lost hint loses no work."""
        self._loop.ask_to_stop()
        if (consumer := self._consumer) is not None:
            consumer.close()

    def _consume(self) -> None:
        self._consumer = _Consumer(
            app=self._app,
            hostname=f"{self._kind}-{os.getpid()}@{socket.gethostname()}",
            queues=[str(self._kind)],
            pool_cls="solo",
            concurrency=1,
            # The loop without callbacks raises errors immediately, instead of in a later iteration.
            use_eventloop=False,
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
        )
        try:
            self._consumer.run()
        finally:
            consumer, self._consumer = self._consumer, None
            with suppress(Exception):  # its connection may be broken
                consumer.blueprint.stop(consumer)


class _Consumer(WorkController):  # type: ignore[misc]
    """Celery's worker, whose `run` neither handles errors nor ends the process."""

    is_ready = False

    def run(self) -> None:
        self.blueprint.start(self)

    def close(self) -> None:
        """Make `run` return at the next iteration of its loop, within a second."""
        if consumer := getattr(self, "consumer", None):  # missing while the worker starts
            consumer.blueprint.state = CLOSE

    def on_consumer_ready(self, consumer: object) -> None:
        self.is_ready = True


def reporting(step: Callable[[], object]) -> Callable[[], None]:
    """Return a step that raises `HintNotSent` for all errors of Redis and Celery, including Celery's SystemExit."""

    def run() -> None:
        try:
            step()
        except (redis.RedisError, KombuError, OSError, SystemExit) as exc:
            cause = exc.__cause__ or exc
            raise HintNotSent(f"Redis is not available: {type(cause).__name__}: {cause}") from exc

    return run
