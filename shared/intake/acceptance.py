"""Accepts the bytes of a submission's file, for the API and for the intake worker."""

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
    """Receive an image, or pass an archive to `take_archive`; return the file's new state.

    An image of more than `max_bytes` is rejected; an archive may be larger. `finish` writes the file's row in the
    transaction of the image's row. `take_archive` gets the stream unread. An unfit file is read to its end with
    `read_on`: if its bytes were damaged on the way, it must be sent again instead of rejected.

    Raises the errors of `Intake.receive`, the stream and the callbacks. The caller sends the intake's hints.
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
