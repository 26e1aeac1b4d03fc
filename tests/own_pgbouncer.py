"""A PgBouncer in transaction mode before a PostgreSQL of a test's own."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tests.own_postgres import OwnPostgres
from tests.requirements import needs
from tests.waiting import DEADLINE_S


@contextmanager
def own_pgbouncer(server: OwnPostgres, *, sessions: int) -> Iterator[str]:
    """Share a few sessions of the server among all who connect; yield the URL of the server's database through it."""
    program = needs("pgbouncer")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    parts = urlsplit(server.url())
    folder = Path(tempfile.mkdtemp(prefix="carina-pgbouncer-"))
    (folder / "users").write_text(f'"{parts.username}" "{parts.password}"\n')
    (folder / "ini").write_text(
        f"""[databases]
* = host=127.0.0.1 port={server.port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users
pool_mode = transaction
default_pool_size = {sessions}
max_client_conn = 400
"""
    )
    command = [str(program), str(folder / "ini")]
    if os.geteuid() == 0:  # It refuses to run as root.
        command[1:1] = ["-u", "nobody"]
        for path in (folder, *folder.iterdir()):
            os.chown(path, pwd.getpwnam("nobody").pw_uid, -1)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + DEADLINE_S
            while not _answers(port):
                assert process.poll() is None, "PgBouncer ended while it started"
                assert time.monotonic() < deadline, "PgBouncer did not come up"
                time.sleep(0.05)
            yield server.url().replace(f":{server.port}/", f":{port}/")
        finally:
            process.terminate()
            process.wait(DEADLINE_S)
            shutil.rmtree(folder)


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
