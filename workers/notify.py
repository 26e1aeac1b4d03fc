"""The notify worker: sends messages to webhooks."""

import threading

from shared.database import Database
from shared.settings import Settings
from workers.heartbeat import Heartbeat


class Notify:
    """Sends what is due."""

    def __init__(self, settings: Settings, database: Database, heartbeat: Heartbeat, stop: threading.Event) -> None: ...

    def run(self) -> None:
        """Send messages until none is due or the stop flag is set."""
