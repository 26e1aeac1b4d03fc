"""The one folder that a process writes temporary files to, so that the rest of its file system may be read-only.

It is `TMPDIR`, by default `/tmp`. Libraries that keep caches in the home folder are pointed at a folder below it.
"""

import os
import stat
import tempfile
from collections.abc import MutableMapping
from pathlib import Path

from shared.errors import CarinaError

#: What a process ends with that has no such folder.
EXIT_NO_SCRATCH = 5

#: The variable by which each library is told where to keep what it computes, and the folder's name.
_CACHES = {
    "CUDA_CACHE_PATH": "cuda",
    "MPLCONFIGDIR": "matplotlib",
    "NUMBA_CACHE_DIR": "numba",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TRITON_CACHE_DIR": "triton",
    "XDG_CACHE_HOME": "cache",
}


class ScratchUnwritable(CarinaError):
    """The folder for temporary files is not writable."""

    code = "scratch_unwritable"


def use_scratch(environ: MutableMapping[str, str] = os.environ) -> Path:
    """Keep this process and its children to one folder for temporary files; return it.

    A variable that the operator has set for one of the caches stays as it is. Raises `ScratchUnwritable`.
    """
    folder = Path(environ.get("TMPDIR") or "/tmp").absolute()
    own = folder / f"carina-{os.getuid()}"
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0" * 4096)  # which a full disk refuses
        own.mkdir(mode=0o700, exist_ok=True)
        _require_own(own)
    except OSError as exc:
        raise ScratchUnwritable(
            f"The folder for temporary files, {exc.filename if exc.filename == str(own) else folder}, "
            f"cannot be written ({exc.strerror}): set TMPDIR to a folder that this process may write to."
        ) from exc
    tempfile.tempdir = str(folder)
    environ["TMPDIR"] = str(folder)
    for name, place in _CACHES.items():
        environ.setdefault(name, str(own / place))
    return folder


def _require_own(folder: Path) -> None:
    """Raise `PermissionError` unless nobody else may write there: what lies in it is run as code."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise PermissionError(0, "it belongs to somebody else", str(folder))
