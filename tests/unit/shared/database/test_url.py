"""CARINA_DATABASE_URL means what it means to libpq; the authorities to trust come from the one setting for all."""

import certifi
import pytest

from shared.database.url import connection_parameters
from shared.network.tls import VARIABLES

URL = "postgresql://carina:secret@db.example/carina"


@pytest.mark.parametrize(
    ("query", "file"),
    [
        ("sslmode=verify-full", certifi.where()),
        ("sslmode=verify-ca", certifi.where()),
        ("sslmode=verify-full&sslrootcert=/own.pem", "/own.pem"),
        ("sslmode=require", None),  # libpq verifies under `require` as soon as it has a file
        ("", None),
    ],
)
def test_a_verified_certificate_is_verified_by_the_ca_bundle(query: str, file: str | None) -> None:
    assert connection_parameters(f"{URL}?{query}", certifi.where()).get("sslrootcert") == file


def test_without_a_ca_bundle_libpq_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    assert "sslrootcert" not in connection_parameters(f"{URL}?sslmode=verify-full")
