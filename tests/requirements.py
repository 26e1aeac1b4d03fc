"""What a test needs that may be missing on a machine: a program, or the data beside the checkout.

    @pytest.mark.needs("openssl")              # on a test, or as a module's `pytestmark`
    path = needs("nginx")                      # in a test or a fixture; returns where it is

A test without it fails where `CI` is set, so that a check is never skipped unnoticed, and is skipped elsewhere. Either
way it says how to get it. The run's last lines list the reasons for which tests were skipped. A new program is added
to `tests/programs.py`, from which `.ci/run` installs it.
"""

import os
import socket
from collections import Counter
from pathlib import Path
from typing import NoReturn

import pytest

from tests.programs import PACKAGES, find

REPOSITORY = Path(__file__).parents[1]
#: Folders beside the checkout: real images and label tables, and files on which something failed once.
SHARED_DATA = REPOSITORY.parent / "shared" / "data"
SHARED_CASES = REPOSITORY.parent / "shared" / "cases"
FOLDERS = {"shared/data": SHARED_DATA, "shared/cases": SHARED_CASES}


def needs(name: str) -> Path:
    """Return where a program of `PACKAGES` or a folder of `FOLDERS` is; without it, end the test."""
    if name in FOLDERS:
        if FOLDERS[name].is_dir():
            return FOLDERS[name]
        end_without(f"../{name}", "put that folder beside the checkout")
    package = PACKAGES[name]
    return find(name) or end_without(name, f"apt install {package}")


def needs_ipv6() -> None:
    """Skip the test on a machine without IPv6, under CI too: many containers have none."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as exc:
        pytest.skip(f"this machine has no IPv6 ({exc.strerror})")


def end_without(name: str, remedy: str) -> NoReturn:
    """End a test that lacks something: failed under CI, else skipped."""
    sentence = f"{name} is missing: {remedy}"
    if os.environ.get("CI", "").lower() in ("", "0", "false"):
        pytest.skip(sentence)
    pytest.fail(sentence, pytrace=False)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*names): programs or folders without which the test cannot run")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Look for what a test's marks name before its fixtures start anything."""
    for mark in item.iter_markers("needs"):
        for name in mark.args:
            needs(name)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List for what reasons tests were skipped, and how many for each."""
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ") for report in terminalreporter.stats.get("skipped", [])
    )
    if reasons:
        terminalreporter.section("skipped")
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"{count:5} {'test ' if count == 1 else 'tests'}  {reason}")
