"""What the API answers is what its description says, whatever it is asked: by schemathesis, with all of its checks."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from tests.integration.conftest import Api, Keys, Server
from tests.requirements import REPOSITORY

#: Of each route. `make fuzz` asks for thousands, none of which were ever the same, and for the edges of each parameter.
CASES = int(os.environ.get("CASES", "3"))
THOROUGH = CASES > 10
#: Of which routes, as a regular expression for their paths; empty: of all.
ROUTES = os.environ.get("ROUTES", "")


def test_the_api_does_as_its_description_says(server: Server, keys: Keys, tmp_path: Path) -> None:
    config = REPOSITORY / "tests/fuzz/schemathesis.toml"
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run"]
    command += [f"{server.url}/openapi.json", f"--header=Authorization: Bearer {keys.admin}", "--no-color"]
    command += [f"--max-examples={CASES}", "--continue-on-failure", "--warnings=off", "--request-timeout=70"]
    command += [] if THOROUGH else ["--phases=fuzzing,stateful", "--seed=1"]
    command += [f"--include-path-regex={ROUTES}"] if ROUTES else []
    env = os.environ | {"SCHEMATHESIS_HOOKS": "tests.fuzz.hooks", "PYTHONPATH": str(REPOSITORY)}
    with (tmp_path / "found.txt").open("w+") as found:
        run = subprocess.run(command, cwd=tmp_path, env=env, stdout=found, stderr=subprocess.STDOUT)
        found.seek(0)
        said = found.read()
    assert run.returncode == 0, said


def test_what_is_no_request_at_all_is_answered_with_a_problem(server: Server) -> None:
    for head, status in ((f"GET /{'x' * 9000} HTTP/1.1", 414), ("GET / SPDY/9", 400)):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(f"{head}\r\n\r\n".encode())
            answer = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
        assert answer.startswith(f"HTTP/1.1 {status} ")
        assert "application/problem+json" in answer
        assert json.loads(answer.partition("\r\n\r\n")[2])["status"] == status


def test_a_value_that_no_row_can_hold_is_the_requests_fault(api: Api, keys: Keys) -> None:
    for response in (
        api.get("/dicom-web/studies", StudyInstanceUID="1\0"),
        api.as_(keys.admin).get("/v1/audit-events", action="\0"),
        api.as_(keys.admin).post("/v1/datasets", {"name": "\0", "source": {"format": "coco", "annotations": "x"}}),
    ):
        assert response.status_code == 422, response.text
