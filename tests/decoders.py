"""Decoder processes of this test process, and when they have work."""

import fcntl
import os
import struct
import termios

import psutil

from tests.waiting import wait_for


def decoders() -> list[psutil.Process]:
    """Return the decoder processes that run as children of this process."""
    return [child for child in psutil.Process().children() if "shared.imaging.decoder_process" in child.cmdline()]


def wait_for_request(decoder: psutil.Process, read_before: int) -> None:
    """Wait until an idle or suspended decoder, which had read so many bytes, has been sent a request."""
    wait_for(lambda: _unread_bytes(decoder) or bytes_read(decoder) > read_before, pause_s=0.002)


def bytes_read(decoder: psutil.Process) -> int:
    """Return how many bytes a process has read since its start."""
    return int(decoder.io_counters().read_chars)


def _unread_bytes(decoder: psutil.Process) -> int:
    pipe = os.open(f"/proc/{decoder.pid}/fd/0", os.O_RDONLY | os.O_NONBLOCK)
    try:
        return int(struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))[0])
    finally:
        os.close(pipe)
