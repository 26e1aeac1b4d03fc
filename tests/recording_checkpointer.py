"""A checkpointer in memory, for training that needs no database and no object store."""

from trainer.fit import Checkpointer, Progress, Snapshot


class RecordingCheckpointer(Checkpointer):
    """Starts from `start`, records all progress, saves always or never, and asks to stop from the step `stop_at` on."""

    def __init__(self, start: bytes | None = None, *, saves: bool = False, stop_at: int | None = None) -> None:
        self.start = start
        self.saves = saves
        self.stop_at = stop_at
        self.progress: list[Progress] = []
        #: Checkpoints, and the progress at each of them.
        self.checkpoints: list[bytes] = []
        self.saved: list[Progress] = []

    def load(self) -> bytes | None:
        return self.start

    def must_stop(self) -> bool:
        return self.stop_at is not None and len(self.progress) + 1 >= self.stop_at

    def check(self, progress: Progress) -> None:
        self.progress.append(progress)

    def is_due(self, progress: Progress) -> bool:
        return self.saves

    def save(self, snapshot: Snapshot, progress: Progress) -> None:
        self.checkpoints.append(snapshot()())
        self.saved.append(progress)

    def figures(self, name: str = "loss") -> list[float]:
        """Return one of the figures of each step or measurement that has it."""
        return [progress.figures[name] for progress in self.progress if name in progress.figures]
