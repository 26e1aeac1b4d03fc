"""What code in a decoder process can reach: each attempt is made by Python run there in a decoder's stead."""

import json
import os
import platform
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from shared.errors import CarinaError, DecoderProcessLost, PermanentError
from shared.imaging import sandbox
from shared.imaging.decoder_answer import pack_error
from shared.imaging.isolation import DecoderPool
from shared.imaging.rendition import make_rendition
from shared.imaging.sandbox import PROTECTIONS
from tests.fuzz.corpus import Original, read_corpus
from tests.requirements import REPOSITORY, needs
from tests.synthetic_dicom import MAX_PIXELS, make_dicom, make_image
from tests.waiting import DEADLINE_S

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in sandbox._MACHINES, reason="needs Linux on a known machine"
)
IMAGE = make_dicom(make_image(), bits=12)
#: Replaces the decoder by one that runs a file which is a program, and answers with what it raised.
HOSTILE = """
import sys
from shared.imaging import rendition
from shared.errors import UndecodablePixelData
make_rendition = rendition.make_rendition
def run(data, **kwargs):
    if not data.startswith(b"#!"):
        return make_rendition(data, **kwargs)
    import ctypes, os, signal, socket, threading, time  # all loaded: nothing can be imported here
    try:
        exec(data, dict(globals(), **locals()))
    except BaseException as exc:
        raise UndecodablePixelData(f"{type(exc).__name__} {getattr(exc, 'errno', '')} {exc}") from exc
    raise UndecodablePixelData("it worked")
rendition.make_rendition = run
import ctypes, os, signal, socket, subprocess, threading, time, tempfile
from shared.imaging.decoder_process import main
main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
"""


@pytest.fixture(scope="module")
def pool() -> Iterator[DecoderPool]:
    """A pool whose child runs what it is told."""
    popen = subprocess.Popen

    def start(command: list[str], **kwargs: object) -> "subprocess.Popen[bytes]":
        if command[1:3] == ["-m", "shared.imaging.decoder_process"]:
            command = [command[0], "-c", HOSTILE, *command[3:]]
        return popen(command, **kwargs)  # type: ignore[call-overload]

    with pytest.MonkeyPatch.context() as patch, DecoderPool(1, DEADLINE_S) as hostile:
        patch.setattr(subprocess, "Popen", start)
        yield hostile


def child_of(pool: DecoderPool) -> psutil.Process:
    """Return the process of a pool's only child."""
    pool.protections()
    child = pool._slots.get()
    pool._slots.put(child)
    assert child is not None
    return psutil.Process(child._process.pid)


def attempt(pool: DecoderPool, code: str) -> str:
    """What came of running `code` in the child."""
    with pytest.raises(CarinaError) as caught:
        pool.render(f"#!\n{code}".encode(), 64, MAX_PIXELS)
    return caught.value.detail


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    (path := tmp_path / "env").write_text("export CARINA_DATABASE_URL=postgresql://carina:secret@host/carina\n")
    return path


def test_every_protection_is_there(pool: DecoderPool) -> None:
    """On the machines that run these tests; elsewhere `carina doctor` says what is missing."""
    active = pool.protections()
    assert set(active) <= set(PROTECTIONS)
    assert "seccomp" in active


@pytest.mark.parametrize(
    "code",
    [
        "open(f'/proc/{os.getppid()}/environ').read()",
        "open(f'/proc/{os.getppid()}/mem', 'rb').read(1)",
        "open('/proc/self/environ').read()",
        "open('/etc/passwd').read()",
        "open(SECRET).read()",
        "os.listdir(FOLDER)",
        "os.stat(SECRET)",
        "open(FOLDER + '/new', 'w')",
        "open('/tmp/new', 'w')",
        "open('/dev/shm/new', 'w')",
        "os.mkdir(FOLDER + '/new')",
        "os.unlink(SECRET)",
        "os.symlink(SECRET, FOLDER + '/link')",
        "os.chmod(SECRET, 0o777)",
        "os.memfd_create('x')",
        "socket.create_connection(('127.0.0.1', PORT))",
        "socket.socket(socket.AF_UNIX).connect('\\0' + ABSTRACT)",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', PORT))",
        "socket.socketpair()",
        "os.fork()",
        "os.execv('/bin/true', ['true'])",
        "os.posix_spawn('/bin/true', ['true'], {})",
        "os.kill(os.getppid(), 0)",
        "os.kill(os.getppid(), signal.SIGWINCH)",
        "os.setuid(0)",
        "os.dup(0)",
        "os.pipe()",
        "os.chdir('/root')",
        "os.sched_setaffinity(0, {0})",
        "os.nice(-1)",
    ],
)
def test_nothing_outside_can_be_reached(code: str, pool: DecoderPool, secret_file: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind("\0carina-test")
        abstract.listen()
        names = {"PORT": server.getsockname()[1], "SECRET": str(secret_file), "FOLDER": str(secret_file.parent)}
        names["ABSTRACT"] = "carina-test"
        setup = "\n".join(f"{name} = {value!r}" for name, value in names.items())
        said = attempt(pool, f"{setup}\n{code}")
        assert said.split()[:2] in (["PermissionError", "1"], ["OSError", "38"]), said
    assert secret_file.read_text().startswith("export ")
    assert sorted(path.name for path in secret_file.parent.iterdir()) == ["env"]
    assert pool.render(IMAGE, 64, MAX_PIXELS), "the child goes on"


#: By name, the numbers on x86_64 and aarch64 of calls that Python does not offer.
CALLS = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "io_uring_setup": (425, 425),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "perf_event_open": (298, 241),
    "unshare": (272, 97),
    "setns": (308, 268),
    "keyctl": (250, 219),
    "prctl": (157, 167),
    "prlimit64": (302, 261),
    "openat2": (437, 437),
    "memfd_secret": (447, 447),
    "execveat": (322, 281),
    "open_by_handle_at": (304, 265),
    "seccomp": (317, 277),
    "sendmsg": (46, 211),
    "socket": (41, 198),
    "an unknown one": (100_000, 100_000),
    "one of the other table": (0x40000000, 100_001),
}


@pytest.mark.parametrize("name", CALLS)
def test_no_other_system_call_gets_through(name: str, pool: DecoderPool) -> None:
    number = CALLS[name][sandbox._MACHINES[platform.machine()]]
    code = (
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        f"answer = libc.syscall({number}, os.getppid(), 0, 0, 0, 0, 0)\n"
        "raise OSError(ctypes.get_errno() if answer == -1 else 0, 'called')"
    )
    assert attempt(pool, code).split()[:2] == ["PermissionError", "1"]


def test_the_child_has_no_capability_and_can_gain_none(pool: DecoderPool) -> None:
    status = Path(f"/proc/{child_of(pool).pid}/status").read_text()
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert f"{kind}:\t0000000000000000\n" in status
    assert "NoNewPrivs:\t1\n" in status
    assert "Seccomp:\t2\n" in status


def test_the_child_holds_no_descriptor_and_no_variable_of_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("CARINA_DATABASE_URL", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "HOME"):
        monkeypatch.setenv(name, "secret")
    with (
        (tmp_path / "file").open("w") as file,
        socket.create_server(("127.0.0.1", 0)) as server,
        DecoderPool(1, DEADLINE_S) as own,
    ):
        os.set_inheritable(file.fileno(), True)
        os.set_inheritable(server.fileno(), True)
        child = child_of(own)
        if os.access(f"/proc/{child.pid}/environ", os.R_OK):  # root only: the child cannot be read either
            held = {str(path.readlink()) for path in Path(f"/proc/{child.pid}/fd").iterdir()}
            assert all(name.startswith("pipe:") or name == "/dev/null" for name in held), held
            assert set(child.environ()) <= {
                *("PATH", "LD_LIBRARY_PATH", "TMPDIR", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "LC_CTYPE"),
            }


def test_a_memory_hog_fails_alone(pool: DecoderPool) -> None:
    assert attempt(pool, "hog = bytearray(64 * 1024**3)").startswith("MemoryError")
    assert pool.render(IMAGE, 64, MAX_PIXELS)


def test_a_bomb_of_threads_goes_out(pool: DecoderPool) -> None:
    code = (
        "gate = threading.Event()\n"
        "started = 0\n"
        "try:\n"
        "    for _ in range(10_000):\n"
        "        threading.Thread(target=gate.wait, daemon=True).start()\n"
        "        started += 1\n"
        "finally:\n"
        "    gate.set()\n"
    )
    assert attempt(pool, code).startswith(("RuntimeError", "MemoryError"))


@pytest.mark.parametrize("loop", ["while True: pass", "while True: time.sleep(1)"], ids=["busy", "idle"])
def test_a_decoder_that_never_ends_is_ended(loop: str, pool: DecoderPool, monkeypatch: pytest.MonkeyPatch) -> None:
    pool.protections()
    with monkeypatch.context() as hasty:
        hasty.setattr(pool, "_timeout_s", 1)
        with pytest.raises(DecoderProcessLost, match="took longer than 1 s"):
            pool.render(f"#!\n{loop}".encode(), 64, MAX_PIXELS)
    assert pool.render(IMAGE, 64, MAX_PIXELS)


def test_the_kernel_ends_a_spinning_decoder_whose_parent_does_not(
    pool: DecoderPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool.protections()
    timer = threading.Timer
    monkeypatch.setattr(threading, "Timer", lambda *_: timer(DEADLINE_S, lambda: None))
    monkeypatch.setattr(pool, "_timeout_s", 1)
    with pytest.raises(DecoderProcessLost, match=r"ended \(-(24|9)\)"):  # SIGXCPU
        pool.render(b"#!\nwhile True: pass", 64, MAX_PIXELS)


@pytest.mark.parametrize("original", read_corpus(), ids=lambda original: original.name)
def test_decoding_lacks_nothing(original: Original, decoder: DecoderPool) -> None:
    """Whatever a decoder imports or calls late would be refused: every kind of file, whole and cut."""
    for data in (original.data, original.data[:-20], original.data[: len(original.data) // 2]):
        try:
            expected: object = make_rendition(data, rendition_px=256, max_image_pixels=MAX_PIXELS, threads=2)
        except PermanentError as exc:
            expected = pack_error(exc.code, exc.detail)
        try:
            answer: object = decoder.render(data, 256, MAX_PIXELS)
        except CarinaError as exc:
            answer = pack_error(exc.code, exc.detail)
        assert answer == expected


@pytest.fixture(scope="module")
def decoder() -> Iterator[DecoderPool]:
    with DecoderPool(1, DEADLINE_S, threads=2) as real:
        yield real


def test_a_kernel_without_a_protection_is_told_of_and_may_be_refused() -> None:
    """In a user namespace that allows no further one, like a container of Docker's."""
    program = (
        "from shared.errors import DecoderUnconfined\n"
        "from shared.imaging.isolation import DecoderPool\n"
        "with DecoderPool(1, 60) as pool:\n"
        "    print(*pool.protections())\n"
        "with DecoderPool(1, 60, required=['seccomp', 'namespaces']) as pool:\n"
        "    try:\n"
        "        pool.render(b'', 64, 10**6)\n"
        "    except DecoderUnconfined as exc:\n"
        "        print(exc.detail)\n"
    )
    inside = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    command = [str(needs("unshare")), "--user", "--map-root-user", "sh", "-ec", inside, "sh"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine allows no user namespace")
    command += [sys.executable, "-c", program]
    said = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, timeout=DEADLINE_S, check=True
    ).stdout
    warning, active, refusal = said.splitlines()
    assert "decoder_protections_missing" in warning
    assert "'namespaces'" in warning
    assert "seccomp" in active.split()
    assert "namespaces" not in active.split()
    assert refusal == "The kernel or the container lacks namespaces, which CARINA_DECODER_REQUIRES names."


def test_a_process_that_decodes_cannot_be_read_by_another_one_of_its_user() -> None:
    program = (
        "import os, sys, ctypes\n"
        "from shared.imaging.isolation import DecoderPool\n"
        "DecoderPool(1, 20)\n"
        "print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))\n"  # PR_GET_DUMPABLE
    )
    said = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert json.loads(said.stdout) == 0
