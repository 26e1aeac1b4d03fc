"""CARINA_DATABASE_URL, read as libpq reads it."""

import re
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from shared.errors import CarinaError


class MalformedDatabaseUrl(CarinaError):
    """CARINA_DATABASE_URL is not a URL as postgresql://user:password@host:port/name."""

    code = "malformed_database_url"


def connection_parameters(url: str) -> dict[str, Any]:
    """Return libpq's parameters; a driver's name in the scheme is of no account. Raises `MalformedDatabaseUrl`."""
    try:
        return conninfo_to_dict(re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql://", url))
    except psycopg.ProgrammingError:
        raise MalformedDatabaseUrl from None  # It would cite a part of the password.
