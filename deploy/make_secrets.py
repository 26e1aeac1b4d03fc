"""`make secrets`: create the missing secret files of docker-compose.yml. Needs only Python."""

import os
import secrets
import stat
import sys
from pathlib import Path


def make_secrets(folder: Path) -> list[str]:
    """Create the missing files, and never replace an existing one. Returns their names.

    Raises `OSError` if the folder belongs to another user, or is a link.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise PermissionError(1, "it belongs to somebody else, or is a link", str(folder))
    folder.chmod(0o700)
    made: list[str] = []

    def keep(name: str, content: str) -> str:
        path, new = folder / name, folder / f".{name}.{os.getpid()}"
        try:
            new.write_text(f"{content}\n")
            new.chmod(0o444)  # containers read it as another user, who cannot enter the folder
            path.hardlink_to(new)  # atomic, and never replaces an existing file
        except FileExistsError:
            return path.read_text().rstrip("\n")
        finally:
            new.unlink(missing_ok=True)
        made.append(name)
        return content

    postgres = keep("postgres_password", secrets.token_hex(24))
    keep("database_url", f"postgresql://carina:{postgres}@postgres:5432/carina")
    redis = keep("redis_password", secrets.token_hex(24))
    keep("redis.conf", f"requirepass {redis}")
    keep("redis_url", f"redis://:{redis}@redis:6379/0")
    keep("s3_access_key_id", secrets.token_hex(10))
    keep("s3_secret_access_key", secrets.token_hex(24))
    keep("session_secret", secrets.token_hex(32))
    return made


def main() -> None:
    """Create the secrets in the folder given on the command line, by default `secrets`."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "secrets")
    try:
        made = make_secrets(folder)
    except OSError as exc:
        sys.exit(f"The secrets cannot be made in {folder}: {exc.strerror}.")
    print(f"{folder}: made {', '.join(made)}." if made else f"{folder}: all there.")  # noqa: T201 - the command's output


if __name__ == "__main__":
    main()
