"""The most memory that this process has held, since it was last asked to forget."""

import resource
import sys
from contextlib import suppress
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def forget_peak() -> None:
    """Count from what is held now; only Linux can, elsewhere growth shows less often."""
    with suppress(OSError):
        _CLEAR.write_text("5")  # proc(5)


def peak_rss_bytes() -> int:
    """The resident set at its largest."""
    if sys.platform == "linux":  # where `ru_maxrss` is at least that of the process which started this one
        (line,) = (line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
