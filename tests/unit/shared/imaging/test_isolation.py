"""Decoder processes that crash, hang and run out of memory."""

import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import psutil
import pytest
from pydicom.uid import RLELossless

from shared.errors import DecoderProcessLost, FileTooLarge, ImageTooLarge, MultiFrameImage, UndecodablePixelData
from shared.imaging import isolation
from shared.imaging.decoder_answer import UnbelievableAnswer, pack_error, pack_rendition, read_answer
from shared.imaging.isolation import DecoderPool
from shared.imaging.rendition import Rendition, make_rendition
from shared.phantoms import encode_dicom, make_phantom
from shared.version import RENDITION_VERSION
from tests.decoders import bytes_read, decoders, wait_for_request
from tests.requirements import REPOSITORY
from tests.synthetic_dicom import MAX_PIXELS, make_dicom, make_image
from tests.waiting import DEADLINE_S, wait_for

IMAGE = make_dicom(make_image(), bits=12)
#: Takes long enough to be caught in the act: 30 million pixels.
SLOW_IMAGE = make_dicom(np.tile(make_image(600, 500), (10, 10)), bits=12)
SMALL = make_rendition(IMAGE, rendition_px=64, max_image_pixels=MAX_PIXELS)


@pytest.fixture
def pool() -> Iterator[DecoderPool]:
    with DecoderPool(2, DEADLINE_S) as decoders:
        yield decoders


def render(pool: DecoderPool, data: bytes = IMAGE) -> Rendition:
    return pool.render(data, rendition_px=1024, max_image_pixels=MAX_PIXELS)


def signal_while_busy(pool: DecoderPool, number: signal.Signals) -> None:
    """Render a slow image in the only idle child, and send it `number` while it works."""
    render(pool)
    (child,) = decoders()

    def send(read_before: int) -> None:
        wait_for_request(child, read_before)
        child.send_signal(number)

    threading.Thread(target=send, args=(bytes_read(child),)).start()
    render(pool, SLOW_IMAGE)


def test_a_child_renders_what_this_process_would(pool: DecoderPool) -> None:
    assert render(pool) == make_rendition(IMAGE, rendition_px=1024, max_image_pixels=MAX_PIXELS)


def test_threads_that_share_an_image_change_nothing(pool: DecoderPool) -> None:
    image = encode_dicom(make_phantom(1, 300, 300), transfer_syntax="jpeg-2000")
    with DecoderPool(1, DEADLINE_S, threads=2) as shared:
        assert render(shared, image) == render(pool, image)


def test_a_child_is_used_again_and_a_second_starts_only_when_needed(pool: DecoderPool) -> None:
    assert not decoders()
    for _ in range(3):
        render(pool)
    assert len(decoders()) == 1


def test_an_unfit_input_is_the_same_error_here_as_in_the_child(pool: DecoderPool) -> None:
    with pytest.raises(UndecodablePixelData, match="does not match the header"):
        render(pool, IMAGE[:-10])
    with pytest.raises(MultiFrameImage):
        render(pool, make_dicom(make_image(), NumberOfFrames=3))
    with pytest.raises(ImageTooLarge):
        pool.render(IMAGE, rendition_px=64, max_image_pixels=5000)
    with pytest.raises(FileTooLarge):
        pool.render(IMAGE + bytes(64 * 1024**2), rendition_px=64, max_image_pixels=96 * 80 // 8)
    assert len(decoders()) == 1
    assert render(pool).version == RENDITION_VERSION


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_child_that_crashes_is_replaced(pool: DecoderPool, number: signal.Signals) -> None:
    with pytest.raises(DecoderProcessLost, match=f"ended \\(-{number.value}\\)"):
        signal_while_busy(pool, number)
    assert not decoders()
    render(pool)


def test_a_child_that_hangs_is_killed_and_replaced(pool: DecoderPool, monkeypatch: pytest.MonkeyPatch) -> None:
    render(pool)
    with monkeypatch.context() as hasty:
        hasty.setattr(pool, "_timeout_s", 2)
        with pytest.raises(DecoderProcessLost, match="took longer than 2 s"):
            signal_while_busy(pool, signal.SIGSTOP)
    assert not decoders()
    render(pool)


def test_a_child_that_does_not_even_read_is_killed_and_replaced(
    pool: DecoderPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    render(pool)
    decoders()[0].suspend()
    with monkeypatch.context() as hasty:
        hasty.setattr(pool, "_timeout_s", 0.5)
        with pytest.raises(DecoderProcessLost, match="took longer"):
            render(pool, SLOW_IMAGE)  # far more than a pipe holds
    render(pool)


def test_a_child_that_died_while_idle_costs_nobody_a_render(pool: DecoderPool) -> None:
    render(pool)
    (child,) = decoders()
    child.kill()
    while child.status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    render(pool)


def test_one_crash_leaves_the_other_threads_alone(pool: DecoderPool) -> None:
    with ThreadPoolExecutor(4) as threads:
        results = [threads.submit(render, pool, SLOW_IMAGE) for _ in range(6)]
        while len(decoders()) < 2:
            time.sleep(0.01)
        decoders()[0].send_signal(signal.SIGSEGV)
        lost = [future for future in results if isinstance(future.exception(), DecoderProcessLost)]
        rest = [future.result().height_px for future in results if future not in lost]
    assert len(lost) <= 1
    assert set(rest) == {1024}


def test_a_child_outlives_the_thread_that_first_needed_it(pool: DecoderPool) -> None:
    first = threading.Thread(target=render, args=(pool,))
    first.start()
    first.join()
    (before,) = decoders()
    time.sleep(0.1)
    render(pool)
    assert decoders() == [before]


def test_an_image_beyond_the_memory_bound_ends_no_one() -> None:
    side_px = 12800
    segment = b"\x81\0" * (side_px * side_px // 128)  # runs of 128 zeros, PS3.5 section G.3.1
    frame = struct.pack("<16I", 1, 64, *[0] * 14) + segment
    black = make_dicom(np.zeros((1, 1), np.uint8), syntax=RLELossless, frame=frame, Rows=side_px, Columns=side_px)
    with DecoderPool(1, DEADLINE_S, memory_bytes=450 * 1024**2) as pool:
        render(pool)
        (before,) = decoders()
        with pytest.raises(DecoderProcessLost, match="MemoryError"):
            pool.render(black, rendition_px=1024, max_image_pixels=10**9)
        assert not decoders()  # who knows what it still holds
        render(pool)
        assert decoders() != [before]


def test_a_child_is_replaced_before_a_decoder_that_loses_memory_fills_it(
    pool: DecoderPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolation, "MAX_RENDERS", 3)
    render(pool)
    (first,) = decoders()
    with pytest.raises(MultiFrameImage):
        render(pool, make_dicom(make_image(), NumberOfFrames=3))
    assert decoders() == [first]
    render(pool)
    assert not decoders()
    render(pool)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        struct.pack(">II", 2**32 - 1, 0),
        struct.pack(">II", 2, 2**32 - 1) + b"{}",
        struct.pack(">II", 2, 0) + b"{}",
        struct.pack(">II", 2, 0) + b"[]",
        struct.pack(">II", 2, 0) + b"\xff\xff",
        struct.pack(">II", 50_000, 0) + b"[" * 50_000,
        pack_error("no_such_code", "It is so."),
        pack_rendition(replace(SMALL, png=b"GIF89a")),
        pack_rendition(replace(SMALL, height_px=SMALL.height_px + 1)),
        pack_rendition(replace(SMALL, original_width_px=0)),
        pack_rendition(replace(SMALL, original_width_px=2**31)),
        pack_rendition(replace(SMALL, original_width_px="96; DROP TABLE")),
    ],
)
def test_what_a_child_under_a_strangers_hand_answers_is_not_believed(answer: bytes) -> None:
    with pytest.raises((UnbelievableAnswer, struct.error)):
        read_answer(BytesIO(answer).read, 64, MAX_PIXELS)


def test_an_answer_that_is_believed_comes_through_as_it_was() -> None:
    assert read_answer(BytesIO(pack_rendition(SMALL)).read, 64, MAX_PIXELS) == SMALL
    error = read_answer(BytesIO(pack_error("multi_frame", "x" * 9000)).read, 64, MAX_PIXELS)
    assert isinstance(error, MultiFrameImage)
    assert len(error.detail) == 500


def test_a_child_writes_no_file_and_gains_no_right(pool: DecoderPool) -> None:
    render(pool)
    (child,) = decoders()
    assert child.rlimit(psutil.RLIMIT_FSIZE) == (0, 0)
    assert "NoNewPrivs:\t1" in Path(f"/proc/{child.pid}/status").read_text()


def test_a_child_has_no_secret_in_its_environment_and_dumps_no_core(
    pool: DecoderPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARINA_DATABASE_URL", "postgresql://user:secret@host/name")
    render(pool)
    (child,) = decoders()
    assert not any(name.startswith("CARINA_") for name in child.environ())
    assert child.rlimit(psutil.RLIMIT_CORE) == (0, 0)


def test_closing_ends_the_children_and_may_be_done_twice() -> None:
    pool = DecoderPool(1, DEADLINE_S)
    render(pool)
    pool.close()
    pool.close()
    assert not decoders()
    with pytest.raises(RuntimeError, match="closed"):
        render(pool)


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's")
def test_the_children_die_with_a_worker_that_is_killed() -> None:
    program = (
        "import sys, psutil\n"
        "from shared.imaging.isolation import DecoderPool\n"
        "from tests.synthetic_dicom import make_dicom, make_image\n"
        "pool = DecoderPool(1, 20)\n"
        "pool.render(make_dicom(make_image(), bits=12), 64, 10**6)\n"
        "child = psutil.Process().children()[0]\n"
        "child.suspend()\n"  # so that the end of its input cannot be what ends it
        "print(child.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        child_pid = next(int(line) for line in worker.stdout if line.strip().isdecimal())  # after warnings
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
    wait_for(lambda: not psutil.pid_exists(child_pid) or psutil.Process(child_pid).status() == psutil.STATUS_ZOMBIE)
