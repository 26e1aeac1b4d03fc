"""The name of a lease's owner tells whether its process has ended."""

import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from shared.processes.owners import has_ended, make_owner

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells one table of processes from another")


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "1000"]) as sleeping:
        yield sleeping
        sleeping.kill()


def test_a_process_has_ended_when_it_is_killed_and_not_when_it_is_stopped(process: subprocess.Popen[bytes]) -> None:
    owner, own = make_owner("prepare", pid=process.pid), make_owner("detect")
    process.send_signal(19)
    assert not has_ended(owner, own)
    process.kill()
    process.wait()
    assert has_ended(owner, own)
    assert not has_ended(own, own)


def test_another_process_with_the_same_id_is_not_taken_for_it(process: subprocess.Popen[bytes]) -> None:
    owner = make_owner("prepare", pid=process.pid)
    table, started, unique = owner.rsplit(":", 1)[1].split("-")
    earlier = owner.replace(f"{table}-{started}-{unique}", f"{table}-{int(started) - 1}-{unique}")
    assert has_ended(earlier, make_owner("detect"))
    assert not has_ended(owner, make_owner("detect"))


def test_nothing_is_known_about_another_machine_or_an_older_name(process: subprocess.Popen[bytes]) -> None:
    owner = make_owner("prepare", pid=process.pid)
    process.kill()
    process.wait()
    assert not has_ended(owner.replace(socket.gethostname(), "elsewhere"), make_owner("detect"))
    assert not has_ended("prepare@here:1:0123abcd", make_owner("detect"))


@pytest.mark.parametrize(
    ("kind", "slot", "ended"),
    [("prepare", "main", True), ("detect", "main", False), ("prepare", "other", False), ("prepare", "", False)],
)
def test_the_earlier_container_of_a_slot_has_ended(kind: str, slot: str, ended: bool) -> None:
    own = make_owner(kind, slot)
    here = own.rsplit(":", 1)[1].partition("-")[0]
    earlier = make_owner("prepare", "main").replace(here, "0" * 8)
    assert has_ended(earlier, own) == ended
