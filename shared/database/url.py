"""Parses `CARINA_DATABASE_URL` with libpq."""

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
    """Return the parameters for libpq; a driver name in the scheme is ignored. Raises `MalformedDatabaseUrl`.

    If `sslmode` verifies the server's certificate and the URL has no `sslrootcert`, it is set by `find_ca_bundle`.
    """
    try:
        parameters = conninfo_to_dict(re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql://", url))
    except psycopg.ProgrammingError:
        raise MalformedDatabaseUrl from None  # its text may contain a part of the password
    verified = parameters.get("sslmode") in ("verify-ca", "verify-full") and "sslrootcert" not in parameters
    if verified and (path := find_ca_bundle(ca_bundle)):
        parameters["sslrootcert"] = path
    return parameters
