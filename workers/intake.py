"""The intake worker: takes in the files of bulk submissions."""

import threading

from shared.database import Database
from shared.object_store import ObjectStore
from shared.queue.hints import Hints
from shared.settings import Settings
from workers.heartbeat import Heartbeat


class Receive:
    """Takes in what has arrived."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        store: ObjectStore,
        hints: Hints,
        heartbeat: Heartbeat,
        stop: threading.Event,
    ) -> None: ...

    def run(self) -> None:
        """Take in files until none has arrived or the stop flag is set."""
