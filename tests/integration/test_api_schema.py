"""What the API answers is what its description says, whatever it is asked: by schemathesis, with all of its checks."""

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import REPOSITORY
from tests.integration.conftest import Keys, Server

#: Of each route. `make fuzz` asks for thousands, none of which were ever the same, and for the edges of each parameter.
CASES = int(os.environ.get("CASES", "3"))
THOROUGH = CASES > 10


def test_the_api_does_as_its_description_says(server: Server, keys: Keys, tmp_path: Path) -> None:
    config = REPOSITORY / "tests/fuzz/schemathesis.toml"
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run"]
    command += [f"{server.url}/openapi.json", f"--header=Authorization: Bearer {keys.admin}", "--no-color"]
    command += [f"--max-examples={CASES}", "--continue-on-failure", "--warnings=off", "--request-timeout=70"]
    command += [] if THOROUGH else ["--phases=fuzzing,stateful", "--seed=1"]
    env = os.environ | {"SCHEMATHESIS_HOOKS": "tests.fuzz.hooks", "PYTHONPATH": str(REPOSITORY)}
    with (tmp_path / "found.txt").open("w+") as found:
        run = subprocess.run(command, cwd=tmp_path, env=env, stdout=found, stderr=subprocess.STDOUT)
        found.seek(0)
        said = found.read()
    assert run.returncode == 0, said
