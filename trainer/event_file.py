"""A training's figures in the format of TensorBoard's event files, kept in memory.

TensorBoard's own writer needs a folder, which a killed process would leave behind.
"""

import io
import time
from collections.abc import Mapping

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter


class EventFile:
    """Scalars by step, in the order in which they were added."""

    def __init__(self) -> None:
        self._buffer = io.BytesIO()
        self._records = RecordWriter(self._buffer)
        self._write(Event(file_version="brain.Event:2"))  # required as the first event

    def add(self, figures: Mapping[str, float], step: int) -> None:
        """Add the scalars of a step, by name."""
        values = [Summary.Value(tag=name, simple_value=figure) for name, figure in figures.items()]
        self._write(Event(step=step, summary=Summary(value=values)))

    def content(self) -> bytes:
        """Return the current content of the file."""
        return self._buffer.getvalue()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self._records.write(event.SerializeToString())
