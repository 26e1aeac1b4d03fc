"""The client is light: a program that talks to the API loads no library of its servers, and none of a command line."""

import subprocess
import sys

#: What only servers need.
HEAVY = [
    *("alembic", "boto3", "botocore", "celery", "cv2", "flask", "numpy"),
    *("psycopg", "pydantic_settings", "pydicom", "redis", "sqlalchemy", "structlog", "torch"),
]
#: What only command lines need; httpx has one.
TERMINAL = ["click", "pygments", "rich", "typer"]


def loaded(code: str, names: list[str]) -> list[str]:
    """The packages of these names that a new process has loaded after that code."""
    code += f"; import sys; print(*sorted(set({names!r}) & sys.modules.keys()))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


def test_the_client_loads_no_library_of_a_server_or_a_command_line() -> None:
    assert loaded("import api.client", HEAVY + TERMINAL) == []


def test_the_command_line_of_httpx_still_works() -> None:
    code = "import api.client, httpx; httpx.main(['--help'], standalone_mode=False)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "httpx" in done.stdout
