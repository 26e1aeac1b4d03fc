"""The command line starts quickly: its help loads no library of a server, and a command only what it needs."""

import subprocess
import sys

import pytest

#: Each takes a tenth of a second or more.
HEAVY = [
    *("alembic", "boto3", "celery", "cv2", "flask", "httpx"),
    *("numpy", "psycopg", "redis", "sqlalchemy", "structlog", "tenacity", "torch"),
]
#: The commands of the API load the client.
CLIENT = {"httpx", "tenacity"}


@pytest.mark.parametrize(
    ("words", "needed"), [("--help", set()), ("--version", set()), ("up --help", set()), ("status", CLIENT)]
)
def test_a_command_loads_only_what_it_needs(words: str, needed: set[str]) -> None:
    code = (
        f"import sys; sys.argv = ['carina', *{words.split()!r}]\n"
        "from deploy.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"print(*sorted(set({HEAVY!r}) & sys.modules.keys()), file=sys.stderr)"
    )
    env = {"CARINA_API_URL": "http://127.0.0.1:1", "CARINA_API_KEY": "crn_no_key"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert set(done.stderr.splitlines()[-1].split()) == needed
