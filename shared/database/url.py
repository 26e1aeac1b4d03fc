"""CARINA_DATABASE_URL, read as libpq reads it."""

import re
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from shared.errors import SetupError
from shared.network.tls import find_ca_bundle


class MalformedDatabaseUrl(SetupError):
    """`CARINA_DATABASE_URL` does not have the form `postgresql://user:password@host:port/name`."""

    code = "malformed_database_url"


def connection_parameters(url: str, ca_bundle: str = "") -> dict[str, Any]:
    """Return libpq's parameters; a driver's name in the scheme is ignored. Raises `MalformedDatabaseUrl`.

    Where `sslmode` has the server's certificate verified and the URL names no `sslrootcert`, `find_ca_bundle` does.
    """
    try:
        parameters = conninfo_to_dict(re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql://", url))
    except psycopg.ProgrammingError:
        raise MalformedDatabaseUrl from None  # It would cite a part of the password.
    verified = parameters.get("sslmode") in ("verify-ca", "verify-full") and "sslrootcert" not in parameters
    if verified and (path := find_ca_bundle(ca_bundle)):
        parameters["sslrootcert"] = path
    return parameters
