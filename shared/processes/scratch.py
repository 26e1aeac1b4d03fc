"""The only folder to which a process writes temporary files, so that the rest of its file system can be read-only.

It is `TMPDIR`, by default `/tmp`, to which every user of the machine may write. So files and folders in it have random
names, or are below `own_folder`, which is private. Caches of libraries, which are in the home folder by default, are
there too. No other module creates temporary files.
"""

import os
import shutil
import stat
import tempfile
from collections.abc import Mapping, MutableMapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import BinaryIO

from shared.errors import SetupError

#: The exit code of a process without such a folder.
EXIT_NO_SCRATCH = 5

#: The environment variable for the cache of each library, and the name of its folder.
_CACHES = {
    "CUDA_CACHE_PATH": "cuda",
    "MPLCONFIGDIR": "matplotlib",
    "NUMBA_CACHE_DIR": "numba",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TRITON_CACHE_DIR": "triton",
    "XDG_CACHE_HOME": "cache",
}


class ScratchUnwritable(SetupError):
    """The folder for temporary files is not writable."""

    code = "scratch_unwritable"


class FolderNotOurs(SetupError):
    """The folder for temporary files is a link, or other users may write to it."""

    code = "folder_not_ours"


def use_scratch(environ: MutableMapping[str, str] = os.environ) -> Path:
    """Limit this process and its children to one folder for temporary files; return the folder.

    Variables of caches that are set already are not changed. Raises `ScratchUnwritable`.
    """
    own = own_folder(environ)
    folder = own.parent
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0" * 4096)  # fails if the disk is full
        _make_private(own)
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


def own_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder for files of this user that outlive a process. `make_private` creates it."""
    return Path(environ.get("TMPDIR") or "/tmp").absolute() / f"carina-{os.getuid()}"


def make_private(folder: Path, remedy: str = "remove it") -> Path:
    """Create a folder and its parents, or check an existing one: only this user may enter it.

    Raises `FolderNotOurs` for a link, a folder of another user and a folder that others may write to, and `OSError` if
    the folder cannot be created.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        _make_private(folder)
    except PermissionError as exc:
        raise FolderNotOurs(f"{folder} cannot be used: {exc.strerror}. Please {remedy}.") from exc
    return folder


def is_private(folder: Path) -> bool:
    """Whether the folder exists, is not a link, belongs to this user, and others may not write to it."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022


def replace_file(path: Path, data: bytes) -> None:
    """Replace a file atomically: readers get the old or the new content, complete. A link is replaced, not followed."""
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as unfinished:
        unfinished.write(data)
    Path(unfinished.name).replace(path)


def new_text_file(prefix: str, text: str) -> Path:
    """Write a file with a random name, which is not deleted automatically."""
    with tempfile.NamedTemporaryFile("w", prefix=prefix, suffix=".txt", delete=False) as file:
        file.write(text)
    return Path(file.name)


def new_folder(prefix: str) -> Path:
    """Create a folder with a random name, which is not deleted automatically."""
    return Path(tempfile.mkdtemp(prefix=prefix))


def passing_folder(prefix: str) -> AbstractContextManager[str]:
    """Create a folder with a random name, which is deleted at the end of its context."""
    return tempfile.TemporaryDirectory(prefix=prefix)


def nameless_file() -> BinaryIO:
    """Return a file without a name, which is deleted when it is closed."""
    return tempfile.TemporaryFile()


def spooled_file(max_bytes: int) -> "tempfile.SpooledTemporaryFile[bytes]":
    """Return a file that is kept in memory up to `max_bytes`, then in a file without a name; 0: always in memory."""
    return tempfile.SpooledTemporaryFile(max_size=max_bytes)


def free_bytes() -> int:
    """Return the free space of the disk with temporary files."""
    return shutil.disk_usage(tempfile.gettempdir()).free


def _make_private(folder: Path) -> None:
    """Create a folder; raise `PermissionError` unless it is private: its files are run as code, or are private."""
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if not is_private(folder):
        raise PermissionError(0, "it belongs to somebody else, or is a link", str(folder))
    # Use a descriptor of the folder, because the path may have become a link since the check.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o077:
            os.fchmod(descriptor, 0o700)
    finally:
        os.close(descriptor)
