"""A background loop outlives its errors, and never ends without a word."""

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from structlog.testing import capture_logs

from shared.errors import DatabaseUnavailable
from shared.processes.loops import EXIT_LOOP_DIED, Loop, run_steps, watched
from tests.requirements import REPOSITORY
from tests.waiting import wait_for


def test_a_loop_outlives_its_errors() -> None:
    errors: list[Exception | None] = [DatabaseUnavailable(), ValueError("bad"), None]
    done: list[float] = []

    def step() -> None:
        done.append(time.monotonic())
        if len(done) <= len(errors) and (error := errors[len(done) - 1]) is not None:
            raise error

    loop = Loop("test", step, every_s=0.001)
    with capture_logs() as logs:
        loop.start()
        wait_for(lambda: len(done) > 5)
        loop.stop()
    said = [(line["event"], line["log_level"], line["loop"]) for line in logs]
    assert said == [("loop_failed", "warning", "test"), ("loop_failed", "error", "test")]


def test_pauses_double_up_to_a_bound_while_steps_fail() -> None:
    pauses: list[float] = []

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            pauses.append(timeout or 0.0)
            return len(pauses) == 9

    outcomes = iter([True, False, *[ValueError()] * 5, None])

    def step() -> bool | None:
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    run_steps("test", step, Stop(), every_s=1, max_pause_s=6)
    assert pauses == [1, 0, 1, 1, 2, 4, 6, 6, 1]


def test_a_loop_that_is_slower_than_the_bound_keeps_its_pace() -> None:
    stop, steps = threading.Event(), []

    def step() -> None:
        steps.append(None)
        if len(steps) == 3:
            stop.set()
        raise ValueError

    run_steps("test", step, stop, every_s=0.01, max_pause_s=0)
    assert len(steps) == 3


@pytest.mark.parametrize("ending", ["raise SystemExit(0)", "raise KeyboardInterrupt", "raise GeneratorExit"])
def test_a_loop_that_dies_takes_its_process_along(ending: str) -> None:
    code = f"""
import threading
from shared.processes.loops import Loop
def step():
    {ending}
Loop("doomed", step, every_s=0.01).start()
threading.Event().wait(600)
"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert ended.returncode == EXIT_LOOP_DIED
    assert "loop_died" in ended.stdout + ended.stderr


def test_a_loop_may_be_stopped_before_it_was_started() -> None:
    Loop("test", lambda: None, every_s=1).stop()


def test_an_error_that_nobody_asks_for_is_logged() -> None:
    with capture_logs() as logs, ThreadPoolExecutor(1) as threads:
        watched(threads.submit(lambda: None))
        watched(threads.submit(int, "bad"))
    assert [line["event"] for line in logs] == ["thread_failed"]
