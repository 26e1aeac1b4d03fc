"""Turns the bytes of a submission's file into its outcome, for the API and for the intake worker alike."""

from collections import deque
from collections.abc import Callable

from shared.errors import FileTooLarge, PermanentError
from shared.intake.archives import SNIFFED_BYTES, ArchiveKind, sniff_archive
from shared.intake.receive import Also, Intake
from shared.object_store.checked_stream import CheckedStream
from shared.vocabulary.states import FileState


def accept(
    stream: CheckedStream,
    intake: Intake,
    *,
    file_bytes: int,
    max_bytes: int,
    finish: Also,
    take_archive: Callable[[ArchiveKind], FileState],
    read_on: Callable[[], None] | None = None,
) -> FileState:
    """Take in an image, or have an archive taken, and return the file's state.

    An image of more than `max_bytes` is rejected; an archive may be larger. `finish` writes the file's row in the
    transaction of the image's row; `take_archive` finds the stream unread. The rest of an unfit file is read with
    `read_on`, because a file that was damaged on its way has to be sent again, whatever its start looks like.

    Raises what `Intake.receive`, the stream and the callbacks raise. The caller sends the intake's hints.
    """
    kind = sniff_archive(stream.peek(SNIFFED_BYTES))
    if kind is not None:
        return take_archive(kind)
    try:
        if file_bytes > max_bytes:
            raise FileTooLarge
        return FileState(intake.receive(stream, also=finish).outcome)
    except PermanentError:
        if read_on is not None:
            read_on()
        else:
            deque(stream, maxlen=0)
        raise
