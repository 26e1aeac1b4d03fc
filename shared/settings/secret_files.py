"""Reads secrets from files: `CARINA_X_FILE` is the path of a file that contains the value of `CARINA_X`."""

from collections.abc import Mapping, MutableMapping
from pathlib import Path

from pydantic import SecretStr
from pydantic_settings import BaseSettings

from shared.errors import InvalidSettings

_SUFFIX = "_FILE"
_MAX_BYTES = 64 * 1024


def secrets_of(kind: type[BaseSettings]) -> dict[str, str]:
    """Return the environment variables of the secret settings of a class, by field."""
    prefix = kind.model_config.get("env_prefix", "")
    return {
        name: f"{prefix}{name}".upper() for name, field in kind.model_fields.items() if field.annotation is SecretStr
    }


def is_given(variable: str, environ: Mapping[str, str]) -> bool:
    """Whether the environment contains a secret or the path of its file."""
    return bool(environ.get(variable) or environ.get(variable + _SUFFIX))


def read_secret_files(kind: type[BaseSettings], environ: Mapping[str, str]) -> dict[str, str]:
    """Return the secrets that are read from files, by field; raise `InvalidSettings`."""
    found = {}
    for name, variable in secrets_of(kind).items():
        if path := environ.get(variable + _SUFFIX):
            if environ.get(variable):
                raise InvalidSettings(f"Both {variable} and {variable}{_SUFFIX} are set. Keep one of them.")
            found[name] = _read(variable + _SUFFIX, Path(path))
    return found


def resolve(kind: type[BaseSettings], environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with each secret in place of the path of its file; raise `InvalidSettings`."""
    variables = secrets_of(kind)
    files = {variable + _SUFFIX for variable in variables.values()}
    secrets = {variables[name]: secret for name, secret in read_secret_files(kind, environ).items()}
    return {name: value for name, value in environ.items() if name not in files} | secrets


def forget_files(variables: Mapping[str, str], environ: MutableMapping[str, str]) -> None:
    """Remove the path of a secret's file from `environ` for each secret in `variables`."""
    for name in variables:
        environ.pop(name + _SUFFIX, None)


def _read(variable: str, path: Path) -> str:
    try:
        with path.open("rb") as file:
            secret = file.read(_MAX_BYTES + 1).decode().rstrip("\r\n")
    except OSError as exc:
        raise InvalidSettings(f"{variable}: {path} cannot be read: {exc.strerror}.") from exc
    except ValueError as exc:
        raise InvalidSettings(f"{variable}: {path} is not text.") from exc
    if not secret:
        raise InvalidSettings(f"{variable}: {path} is empty.")
    if len(secret) > _MAX_BYTES:
        raise InvalidSettings(f"{variable}: {path} is too large for a secret.")
    return secret
