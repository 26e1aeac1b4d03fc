"""Secrets that lie in files."""

import os
from pathlib import Path

import pytest

from shared.errors import InvalidSettings
from shared.settings import ClientSettings, Settings, read_settings
from shared.settings.secret_files import resolve, secrets_of

SECRETS = {
    "CARINA_DATABASE_URL": "postgresql://carina:of-the-database@host/carina",
    "CARINA_REDIS_URL": "redis://:of-redis@host:6379/0",
    "CARINA_S3_ACCESS_KEY_ID": "access",
    "CARINA_S3_SECRET_ACCESS_KEY": "secret",
    "CARINA_S3_SESSION_TOKEN": "token",
    "CARINA_SESSION_SECRET": "of-the-console",
}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Variables that name files of every secret, as an editor or `openssl rand` leaves them: with a line's end."""
    for name, value in SECRETS.items():
        (tmp_path / name).write_text(f"{value}\n")
    return {f"{name}_FILE": str(tmp_path / name) for name in SECRETS}


def test_every_secret_is_read_from_its_file(files: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(secrets_of(Settings).values()) == set(SECRETS)
    for name, value in files.items():
        monkeypatch.setenv(name, value)
    for settings in (read_settings(Settings), Settings.from_env(files)):
        found = {variable: getattr(settings, field) for field, variable in secrets_of(Settings).items()}
        assert {variable: secret.get_secret_value() for variable, secret in found.items()} == SECRETS


def test_the_key_of_a_client_is_read_from_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text("carina_key\r\n")
    monkeypatch.setenv("CARINA_API_KEY_FILE", str(tmp_path / "key"))
    assert read_settings(ClientSettings).api_key.get_secret_value() == "carina_key"


def test_a_file_takes_the_place_of_the_variable_for_a_stack(files: dict[str, str]) -> None:
    assert resolve(Settings, files | {"PATH": "/bin"}) == SECRETS | {"PATH": "/bin"}


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_that_is_given_twice_is_refused(name: str, files: dict[str, str]) -> None:
    with pytest.raises(InvalidSettings, match=f"Both {name} and {name}_FILE are set"):
        Settings.from_env(files | {name: SECRETS[name]})


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "cannot be read: No such file"), (b"", "is empty"), (b"\n", "is empty"), (b"\xff\xfe", "is not text")],
)
def test_a_file_that_holds_no_secret_is_named(
    content: bytes | None, said: str, files: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "other"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidSettings, match=f"CARINA_REDIS_URL_FILE: {path} {said}"):
        Settings.from_env(files | {"CARINA_REDIS_URL_FILE": str(path)})


def test_a_folder_is_no_file(files: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match=r"CARINA_SESSION_SECRET_FILE: .* cannot be read: Is a directory"):
        Settings.from_env(files | {"CARINA_SESSION_SECRET_FILE": str(tmp_path)})


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_of_somebody_else_is_named(files: dict[str, str]) -> None:
    Path(files["CARINA_DATABASE_URL_FILE"]).chmod(0)
    with pytest.raises(InvalidSettings, match=r"CARINA_DATABASE_URL_FILE: .* cannot be read: Permission denied"):
        Settings.from_env(files)


def test_a_secret_with_a_wrong_form_is_named_and_not_repeated(files: dict[str, str]) -> None:
    Path(files["CARINA_REDIS_URL_FILE"]).write_text("of-redis")
    with pytest.raises(InvalidSettings, match="CARINA_REDIS_URL") as caught:
        Settings.from_env(files)
    assert "of-redis" not in caught.value.detail
