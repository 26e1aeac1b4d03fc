"""A machine whose environment names a proxy that cannot be reached: Carina's own servers are asked all the same."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.stack import env_file
from tests.requirements import REPOSITORY
from tests.waiting import DEADLINE_S

COMMAND = [sys.executable, "-m", "deploy.cli"]
#: Nothing listens there.
DEAD = {
    spelt: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy", "all_proxy") for spelt in (name, name.upper())
}
PYTHON = """
import os
from pathlib import Path

from api.client import Carina

with Carina(os.environ["CARINA_API_URL"], os.environ["CARINA_API_KEY"], retry_for_s=1) as carina:
    print(carina.submit_all([Path(os.environ["IMAGE"])], wait=True).counts.duplicate)
"""


def environ(**more: str) -> dict[str, str]:
    return os.environ | DEAD | {"PYTHONUNBUFFERED": "1"} | more


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The demo, once it stays up; yields its data folder and what it said."""
    data = tmp_path_factory.mktemp("proxied") / "data"
    command = [*COMMAND, "demo", "--data", str(data), "--studies", "1"]
    with subprocess.Popen(
        command, cwd=REPOSITORY, env=environ(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as running:
        try:
            assert running.stdout is not None
            said = ""
            for line in running.stdout:
                said += line
                if "The stack stays up" in line:
                    break
            yield data, said
        finally:
            running.send_signal(signal.SIGINT)
            running.communicate(timeout=DEADLINE_S)


@pytest.mark.parametrize(
    "exceptions", [{}, {"NO_PROXY": "example.org"}, {"no_proxy": "example.org", "ALL_PROXY": "socks5://127.0.0.1:9"}]
)
def test_a_dead_proxy_harms_nothing_on_this_machine(demo: tuple[Path, str], exceptions: dict[str, str]) -> None:
    data, said = demo
    assert "nothing was lost" in said, said
    image = next((data / "demo").glob("phantom-*.dcm"))

    def run(*arguments: str, **more: str) -> str:
        done = subprocess.run(
            arguments,
            cwd=REPOSITORY,
            env=environ(**exceptions, **more),
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "ok" in run(*COMMAND, "doctor", "--data", str(data))
    assert "duplicate" in run(*COMMAND, "submit", str(image), "--wait", "--data", str(data))
    assert run(sys.executable, "-c", PYTHON, IMAGE=str(image), **env_file.read(data / "env")) == "1\n"
