"""The client is light: a program that talks to the API loads no library of its servers."""

import subprocess
import sys

#: What only servers need.
HEAVY = (
    "alembic boto3 botocore celery cv2 flask numpy psycopg pydantic_settings pydicom redis sqlalchemy structlog torch"
)


def test_the_client_loads_no_library_of_a_server() -> None:
    code = f"import sys, api.client; print(*sorted(set({HEAVY.split()!r}) & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []
