"""Classifies errors of PostgreSQL: which ones are temporary outages, and the message for each."""

import psycopg

#: "Cannot execute … in a read-only transaction": a standby, a demoted primary, or a database set to read-only.
READ_ONLY = "25006"

_TAKES_NO_CHANGES = "PostgreSQL takes no changes: it is a standby or was set to read-only."
_NO_CONNECTION_FREE = (
    "PostgreSQL has no free connection: raise its max_connections or lower CARINA_DATABASE_CONNECTIONS."
)
_STARTS_OR_STOPS = "PostgreSQL is starting, stopping or recovering."
_NO_DATABASE = "The database that CARINA_DATABASE_URL names does not exist."
_NO_AGREEMENT_ON_TLS = "PostgreSQL and CARINA_DATABASE_URL do not agree on TLS: see its sslmode."
_GENERAL = "PostgreSQL does not answer."
_REFUSED = "PostgreSQL refuses the user or the password of CARINA_DATABASE_URL."

#: Messages by SQLSTATE or its prefix, longest prefix first. https://www.postgresql.org/docs/current/errcodes-appendix.html
_BY_SQLSTATE = {
    READ_ONLY: _TAKES_NO_CHANGES,
    "53100": "PostgreSQL's disk is full.",
    "53200": "PostgreSQL is out of memory.",
    "53300": _NO_CONNECTION_FREE,
    "55P03": "The rows or tables of the request stayed locked by another transaction for too long.",
    "57014": "PostgreSQL cancelled the statement: it took longer than statement_timeout, or somebody cancelled it.",
    "57P04": _NO_DATABASE,
    "57P05": "PostgreSQL ended a session that was idle for longer than idle_session_timeout.",
    "57P": _STARTS_OR_STOPS,
    "40": "The request collided with another transaction.",
    "58": "PostgreSQL cannot read or write its files.",
}
#: Messages by words of the error, because libpq has no SQLSTATE for a refused connection. For a server with another
#: language the general message is used.
_BY_WORDS = {
    "password authentication failed": _REFUSED,
    "role ": _REFUSED,
    "no such user": _REFUSED,
    "no password supplied": _REFUSED,
    "database ": _NO_DATABASE,
    "no such database": _NO_DATABASE,
    "pg_hba.conf": "PostgreSQL does not let this host or user in: see its pg_hba.conf.",
    "too many clients": _NO_CONNECTION_FREE,
    "too many connections": _NO_CONNECTION_FREE,
    "remaining connection slots": _NO_CONNECTION_FREE,
    "no more connections allowed": _NO_CONNECTION_FREE,
    "database system is": _STARTS_OR_STOPS,
    "session is read-only": _TAKES_NO_CHANGES,
    "server is in hot standby": _TAKES_NO_CHANGES,
    "resolve host": "The host that CARINA_DATABASE_URL names cannot be found.",
    "translate host name": "The host that CARINA_DATABASE_URL names cannot be found.",
    # A connection lost over TLS is an outage: "SSL SYSCALL error: EOF detected" and the like match nothing here.
    "unexpected eof": _GENERAL,
    "support SSL": _NO_AGREEMENT_ON_TLS,
    "SSL required": _NO_AGREEMENT_ON_TLS,
    "SSL error": _NO_AGREEMENT_ON_TLS,
    "certificate": _NO_AGREEMENT_ON_TLS,
}
#: SQLSTATEs of a missing table and a missing column.
_OLDER_SCHEMA = ("42P01", "42703")
#: SQLSTATEs, or their prefixes, after which the connection remains usable.
_HARMLESS = ("40", "55P03", "57014")


def explain_outage(error: psycopg.Error) -> str | None:
    """Return the message for an outage, after which the same statement may succeed; None for any other error.

    The message contains no host, user or value, because clients of the API see it.
    """
    if not isinstance(error, psycopg.OperationalError) and error.sqlstate != READ_ONLY:
        return None
    if error.sqlstate is not None:
        return next((text for begin, text in _BY_SQLSTATE.items() if error.sqlstate.startswith(begin)), _GENERAL)
    said = str(error)
    for words, text in _BY_WORDS.items():
        if words in said and (not words.endswith(" ") or "does not exist" in said):
            return text
    return _GENERAL


def shows_older_schema(error: psycopg.Error) -> bool:
    """Whether a statement failed because its table or column does not exist: a migration is missing."""
    return error.sqlstate in _OLDER_SCHEMA


def spoils_connection(error: psycopg.Error) -> bool:
    """Whether the connection must be discarded after this outage."""
    return not (error.sqlstate or "").startswith(_HARMLESS)
