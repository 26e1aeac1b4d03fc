"""Which of PostgreSQL's errors are an outage that passes, and one sentence that says what to do about it."""

import psycopg

#: "Cannot execute … in a read-only transaction": a standby, a demoted primary, or a database that was set so.
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

#: By SQLSTATE or its beginning, the longest first. https://www.postgresql.org/docs/current/errcodes-appendix.html
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
#: A refused connection has no SQLSTATE in libpq, only words. A server that speaks another language gets the general
#: sentence.
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
#: A table or a column does not exist.
_OLDER_SCHEMA = ("42P01", "42703")
#: After these the connection is as good as before.
_HARMLESS = ("40", "55P03", "57014")


def explain_outage(error: psycopg.Error) -> str | None:
    """Return a sentence about an error that the same statement may not meet again, or None for any other error.

    The sentence names no host, user or value, for it is shown to clients of the API.
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
    """Whether the statement named a table or a column that a migration has still to make."""
    return error.sqlstate in _OLDER_SCHEMA


def spoils_connection(error: psycopg.Error) -> bool:
    """Whether the session that met this outage is better not used again."""
    return not (error.sqlstate or "").startswith(_HARMLESS)
