"""Commands that may write to one folder only, as in a container with a read-only root file system."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.requirements import end_without, needs

#: Makes every mounted file system read-only but the folder, in a name space of the command's own.
_SEAL = """
mount --make-rprivate /
mount --bind "$0" "$0"
for place in / /dev/shm /tmp /home /root; do
  mountpoint -q "$place" || continue
  mount -o remount,bind,ro "$place"
done
exec "$@"
"""


def sealed(folder: Path, command: Sequence[str]) -> list[str]:
    """Return the command that runs `command` with `folder` as the only place to write; skips where that needs root."""
    begin = [str(needs("unshare")), "--mount", "sh", "-ec", _SEAL, str(folder)]
    tried = subprocess.run([*begin, "true"], capture_output=True, text=True, check=False)
    if tried.returncode and os.geteuid() != 0:
        pytest.skip("only root may make file systems read-only")
    if tried.returncode:
        end_without("the right to mount", f"allow it to this machine's root ({tried.stderr.strip()})")
    return [*begin, *command]
