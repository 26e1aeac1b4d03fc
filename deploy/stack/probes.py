"""Asks a server over its own protocol whether it answers."""

import asyncio
from pathlib import Path

import httpx
import psycopg

from deploy.stack.component import Probe
from shared.database.url import connection_parameters
from shared.errors import HintNotSent
from shared.processes import process_state
from shared.redis_connection import require_answer

_TIMEOUT_S = 2


def postgres(url: str, create: str | None = None) -> Probe:
    """Return a probe that connects to PostgreSQL, then creates the database `create` if it does not exist.

    Raises `MalformedDatabaseUrl` immediately.
    """
    parameters = connection_parameters(url)

    async def answers() -> bool:
        try:
            connection = await psycopg.AsyncConnection.connect(
                autocommit=True, **{**parameters, "connect_timeout": _TIMEOUT_S}
            )
            async with connection:
                if create and not await _exists(connection, create):
                    await connection.execute(
                        psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(create))
                    )
        except psycopg.OperationalError:
            return False
        return True

    return answers


async def _exists(connection: psycopg.AsyncConnection[tuple[object, ...]], database: str) -> bool:
    found = await connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [database])
    return await found.fetchone() is not None


def redis_server(url: str) -> Probe:
    """Return a probe that sends PING to Redis, which fails while Redis loads its data."""

    async def answers() -> bool:
        try:
            await asyncio.to_thread(require_answer, url)
        except HintNotSent:
            return False
        return True

    return answers


def http(url: str, below: int = 500) -> Probe:
    """Return a probe that checks whether an HTTP server answers with a status below `below`."""
    # One client for all attempts. It connects only to the stack's own servers: plain HTTP, without a proxy.
    client = httpx.AsyncClient(verify=False, timeout=_TIMEOUT_S, trust_env=False, headers={"Connection": "close"})

    async def answers() -> bool:
        try:
            return (await client.get(url)).status_code < below
        except httpx.HTTPError:
            return False

    return answers


def process(path: Path) -> Probe:
    """Return a probe that checks whether the process with this state file takes work."""

    async def answers() -> bool:
        state = process_state.read(path)
        return state is not None and not state.not_ready and not state.has_ended

    return answers
