"""The notify worker: sends messages of the outbox to webhooks, several at a time."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from uuid import UUID

import httpx
import structlog

from shared.database import Database
from shared.database.notices import DELIVERIES
from shared.errors import CarinaError, Place, plain_code
from shared.notifications.address_guard import InvalidWebhookUrl
from shared.notifications.deliveries import (
    Answer,
    DeliveryClaim,
    claim_deliveries,
    delete_delivered,
    end_delivery,
    expire_deliveries,
    pause_s_after,
    seconds_until_due,
)
from shared.processes.loops import watched
from shared.processes.notice_listener import NoticeListener
from shared.settings import Settings
from shared.vocabulary.states import DeliveryState, WorkerKind
from workers.heartbeat import Heartbeat
from workers.process import WorkerProcess
from workers.webhook_sender import WebhookSender

log = structlog.get_logger()

#: Messages that are sent concurrently.
THREADS = 32
#: Seconds between two expirations of leases, and between two deletions of messages that were delivered long ago.
TIDY_S, DELETE_S = 1.0, 60.0
#: A pause varies randomly by up to this fraction, so that messages are not all retried at the same time.
JITTER = 0.25
REFUSED = plain_code("receiver_refused", "The receiver answered with another status than 2xx.", Place.DELIVERY)
TIMED_OUT = plain_code("receiver_timed_out", "The receiver did not answer in time.", Place.DELIVERY)
UNREACHABLE = plain_code(
    "receiver_unreachable",
    "No connection to the receiver, an invalid certificate, or an answer that is not HTTP.",
    Place.DELIVERY,
)
#: Seconds between two looks for messages to send, while this process hears no notices and at most.
DEAF_LOOK_S, LONGEST_LOOK_S = 0.5, 15.0


def run(settings: Settings) -> None:
    """Send messages to webhooks until SIGTERM."""
    with WorkerProcess(settings, WorkerKind.NOTIFY, stuck_after_s=settings.step_timeout_s) as process:
        notices = NoticeListener(process.database)
        process.closing.callback(notices.close)
        notify = NotifyWorker(settings, process.database, process.heartbeat, process.stop)

        def wake() -> None:
            notify.look.set()
            process.wakeups.request()

        def work() -> None:
            notify.run()
            process.unasked_s = notify.seconds_to_next_look() if notices.is_listening else DEAF_LOOK_S

        process.closing.enter_context(notices.watch(DELIVERIES, wake))
        process.serve(work)


class NotifyWorker:
    """Sends due messages."""

    def __init__(self, settings: Settings, database: Database, heartbeat: Heartbeat, stop: threading.Event) -> None:
        self._settings = settings
        self._database = database
        self._heartbeat = heartbeat
        self._stop = stop
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="notify")
        webhook = WebhookSender(settings).send
        #: How to send a message, by the scheme of its URL; returns an HTTP status.
        self._senders: dict[str, Callable[[DeliveryClaim], int]] = {"http": webhook, "https": webhook}
        #: Set when an attempt has ended, and when there may be new messages.
        self.look = threading.Event()
        #: Webhooks whose last attempt failed.
        self._failing: set[UUID] = set()
        self._delete_at = time.monotonic()
        #: The longest time of an attempt: all its steps have limits below this.
        self._lease_s = settings.webhook_timeout_s + settings.lease_s

    def run(self) -> None:
        """Send messages until none is due or the stop flag is set. Attempts that have begun are always finished."""
        running: dict[Future[None], UUID] = {}
        tidy_at = 0.0
        while True:
            self.look.clear()
            for ended in [future for future in running if future.done()]:
                del running[ended]
            if time.monotonic() >= tidy_at:
                self._tidy()
                tidy_at = time.monotonic() + TIDY_S
            for claimed in self._claim(Counter(running.values())):
                attempt = watched(self._threads.submit(self._deliver, claimed))
                running[attempt] = claimed.webhook_id
                attempt.add_done_callback(lambda _: self.look.set())
            if not running:
                return
            self.look.wait(DEAF_LOOK_S)

    def seconds_to_next_look(self) -> float:
        """Return the time until the next message is due without a notice, at most `LONGEST_LOOK_S`."""
        with self._database.begin() as session:
            return min(LONGEST_LOOK_S, seconds_until_due(session))

    def _tidy(self) -> None:
        try:
            with self._database.begin() as session:
                expired = expire_deliveries(session, retry_s=self._settings.webhook_retry_h * 3600)
            if expired:
                log.warning("deliveries_expired", count=expired)
            if time.monotonic() >= self._delete_at:
                with self._database.begin() as session:
                    delete_delivered(session)
                self._delete_at = time.monotonic() + DELETE_S
        except CarinaError as error:
            log.warning("tidying_failed", stage=WorkerKind.NOTIFY, code=error.code)

    def _claim(self, busy: Counter[UUID]) -> list[DeliveryClaim]:
        if self._stop.is_set() or busy.total() == THREADS:
            return []
        try:
            with self._database.begin() as session:
                return claim_deliveries(
                    session,
                    self._heartbeat.owner,
                    limit=THREADS - busy.total(),
                    lease_s=self._lease_s,
                    busy=busy,
                    failing=self._failing.copy(),
                )
        except CarinaError as error:
            log.warning("claim_failed", stage=WorkerKind.NOTIFY, code=error.code)
            return []

    def _deliver(self, claimed: DeliveryClaim) -> None:
        answer = self._try(claimed)
        if answer.code is None:
            self._failing.discard(claimed.webhook_id)
        else:
            self._failing.add(claimed.webhook_id)
        pause_s = pause_s_after(
            claimed.attempt,
            backoff_s=self._settings.retry_backoff_s,
            retry_s=self._settings.webhook_retry_h * 3600,
        )
        if pause_s is not None:
            pause_s *= random.uniform(1 - JITTER, 1 + JITTER)
        try:
            state = self._database.persist(
                lambda session: end_delivery(session, claimed, answer, pause_s), within_s=self._settings.lease_s / 2
            )
        except CarinaError as error:
            log.warning("answer_lost", delivery_id=str(claimed.delivery_id), code=error.code)
            return  # the lease expires, and the message is sent again
        say = log.warning if state is DeliveryState.DEAD else log.info
        say(
            "message_tried",
            state=state,
            delivery_id=str(claimed.delivery_id),
            webhook_id=str(claimed.webhook_id),
            attempt=claimed.attempt,
            status=answer.status,
            code=answer.code,
        )

    def _try(self, claimed: DeliveryClaim) -> Answer:
        try:
            send = self._senders.get(claimed.url.partition(":")[0].lower())
            if send is None:
                raise InvalidWebhookUrl
            status = send(claimed)
        except CarinaError as error:
            return Answer(None, error.code, error.public_detail)
        except (TimeoutError, httpx.TimeoutException):
            return Answer(None, TIMED_OUT, "The receiver did not answer in time.")
        except httpx.HTTPError as error:
            return Answer(None, UNREACHABLE, f"No answer came back ({type(error).__name__}).")
        except Exception as error:  # a failure must not stop the other messages
            log.error("message_failed", delivery_id=str(claimed.delivery_id), exc_info=error)
            return Answer(None, CarinaError.code, type(error).__name__)
        if status // 100 == 2:
            return Answer(status)
        return Answer(status, REFUSED, f"The receiver answered {status}.")
