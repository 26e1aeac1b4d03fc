"""Runs decoders in child processes, so that a crash or hang of a native decoder affects nothing else."""

import math
import os
import queue
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import structlog

from shared.errors import CarinaError, DecoderProcessLost, DecoderUnconfined, FileTooLarge
from shared.imaging.decoder_answer import UnbelievableAnswer, read_answer
from shared.imaging.decoder_process import READY, REQUEST
from shared.imaging.rendition import Rendition
from shared.imaging.sandbox import PROTECTIONS, hide_memory

log = structlog.get_logger()

#: Several times the need of the largest image that the default settings allow.
MEMORY_BYTES = 4 * 1024**3
#: Limits of the file size: per uncompressed pixel (four channels of 16 bits), and for everything except pixels.
MAX_PIXEL_BYTES, MAX_HEADER_BYTES = 8, 64 * 1024**2
#: On a busy machine, a child needs seconds to import its libraries.
START_TIMEOUT_S = 60.0
#: A child is replaced after this many renders, in case a decoder leaks memory. A start takes about a second.
MAX_RENDERS = 1000

_ROOT = Path(__file__).parents[2]


class DecoderPool:
    """Renders images in at most `processes` children, each started when it is first needed. Thread-safe.

    A child is replaced if it dies, if it takes longer than `timeout_s` and is killed, or if it fails for a reason other
    than the file, such as missing memory. `memory_bytes` limits its address space. `threads` threads decode one image
    together if its format allows it. `classifier_folder` replaces the shipped chest classifier.

    Children do not inherit the environment, which holds secrets, and cannot access the machine
    (`shared.imaging.sandbox`). They end with the pool or with this process. If the kernel lacks a `required`
    protection, no child starts.
    """

    def __init__(
        self,
        processes: int,
        timeout_s: float,
        *,
        memory_bytes: int = MEMORY_BYTES,
        threads: int = 1,
        classifier_folder: str = "",
        required: Collection[str] = (),
    ) -> None:
        hide_memory()
        self._required = required
        self._missing: list[str] = []
        self._processes = processes
        self._timeout_s = timeout_s
        self._memory_bytes = memory_bytes
        self._threads = threads
        self._classifier_folder = classifier_folder
        # A slot holds an idle child or None. The last used child is used next, so under a small load few children run.
        self._slots: queue.LifoQueue[_Child | None] = queue.LifoQueue()
        for _ in range(processes):
            self._slots.put(None)
        # The kernel ends a child with the *thread* that started it, so one thread of the pool starts all children.
        self._starter = ThreadPoolExecutor(1, "decoder-starter")
        self._closed = False

    def render(self, data: bytes, rendition_px: int, max_image_pixels: int) -> Rendition:
        """Run `make_rendition` in a child; waits while all children are busy.

        Raises the errors of `make_rendition`, `FileTooLarge` if the file is larger than an image of `max_image_pixels`
        can be, `DecoderProcessLost` if the child crashed or timed out, and `DecoderUnconfined` if a required protection
        is missing.
        """
        if len(data) > max_image_pixels * MAX_PIXEL_BYTES + MAX_HEADER_BYTES:
            raise FileTooLarge("The file is far larger than the largest image that is taken.")
        child = self._slots.get()
        try:
            if self._closed:
                raise RuntimeError("The decoder pool is closed.")
            if child is not None and not child.is_alive:  # the child died while it was idle
                child.end()
                child = None
            if child is None:
                child = self._start()
            return child.render(data, rendition_px, max_image_pixels, self._timeout_s)
        finally:
            self._slots.put(child if child is not None and child.is_alive else None)

    def protections(self) -> list[str]:
        """Return the active `PROTECTIONS` of a child, started if necessary; raises `DecoderUnconfined`."""
        child = self._slots.get()
        try:
            if child is None:
                child = self._start()
            return child.protections
        finally:
            self._slots.put(child)

    def _start(self) -> "_Child":
        child = self._starter.submit(_Child, self._memory_bytes, self._threads, self._classifier_folder).result()
        missing = [name for name in PROTECTIONS if name not in child.protections]
        if lacking := [name for name in self._required if name in missing]:
            child.end()
            raise DecoderUnconfined(
                f"The kernel or the container lacks {', '.join(lacking)}, which CARINA_DECODER_REQUIRES names."
            )
        if missing != self._missing:
            log.warning("decoder_protections_missing", missing=missing)
            self._missing = missing
        return child

    def close(self) -> None:
        """Wait for running renders, then end all children. A second call is a no-op."""
        if self._closed:
            return
        self._closed = True
        for child in [self._slots.get() for _ in range(self._processes)]:
            if child is not None:
                child.end()
        for _ in range(self._processes):
            self._slots.put(None)
        self._starter.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class _Child:
    """One decoder process. Only one thread at a time can use it."""

    def __init__(self, memory_bytes: int, threads: int, classifier_folder: str) -> None:
        environment = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "TMPDIR") if name in os.environ}
        folder = str(Path(classifier_folder).absolute()) if classifier_folder else ""  # the child has another cwd
        arguments = [str(os.getpid()), str(memory_bytes), str(threads), folder]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "shared.imaging.decoder_process", *arguments],
            cwd=_ROOT,
            env=environment | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # decoders print to it, and may print parts of the file
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout
        self._threads = threads
        self._expired = False
        self._renders = 0
        with self._deadline(START_TIMEOUT_S):
            if self._read(len(READY)) != READY:
                raise EOFError
            said = self._read(len(PROTECTIONS))
        self.protections = [name for name, is_active in zip(PROTECTIONS, said, strict=True) if is_active]

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def render(self, data: bytes, rendition_px: int, max_image_pixels: int, timeout_s: float) -> Rendition:
        with self._deadline(timeout_s):
            self._limit_cpu(timeout_s)
            self._requests.write(REQUEST.pack(rendition_px, max_image_pixels, len(data)))
            self._requests.write(data)
            self._requests.flush()
            answer = read_answer(self._read, rendition_px, max_image_pixels)
        self._renders += 1
        if isinstance(answer, DecoderProcessLost) or self._renders >= MAX_RENDERS:
            self.end()
        if isinstance(answer, CarinaError):
            raise answer
        return answer

    def _limit_cpu(self, timeout_s: float) -> None:
        """Let the kernel end the child if this process cannot, because it is stopped or too busy for the deadline."""
        if sys.platform == "linux":
            pid = self._process.pid
            used_s = time.clock_gettime(~pid << 3 | 2)  # the CPU clock of a process, CPUCLOCK_SCHED
            max_s = math.ceil(used_s + timeout_s * self._threads) + 1
            resource.prlimit(pid, resource.RLIMIT_CPU, (max_s, resource.RLIM_INFINITY))

    def end(self) -> None:
        """Kill and reap the process. A second call is a no-op."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._requests, self._answers):
            with suppress(OSError):  # buffered bytes can no longer be sent
                pipe.close()

    @contextmanager
    def _deadline(self, timeout_s: float) -> Iterator[None]:
        """Kill the process after `timeout_s`, which also unblocks its pipes; end it if the block raises."""
        timer = threading.Timer(timeout_s, self._expire)
        timer.daemon = True
        timer.start()
        try:
            yield
        except (OSError, EOFError) as exc:
            self.end()
            reason = f"took longer than {timeout_s:g} s" if self._expired else f"ended ({self._process.returncode})"
            raise DecoderProcessLost(f"The decoder process {reason}.") from exc
        except UnbelievableAnswer as exc:
            self.end()
            raise DecoderProcessLost("The decoder process gave no answer of its own.") from exc
        except BaseException:  # a partial answer may remain in the pipe
            self.end()
            raise
        finally:
            timer.cancel()
            timer.join()
            if self._expired:  # the timer fired just after the last byte
                self.end()

    def _expire(self) -> None:
        self._expired = True
        self._process.kill()

    def _read(self, size: int) -> bytes:
        data = self._answers.read(size)
        if len(data) != size:
            raise EOFError
        return data
