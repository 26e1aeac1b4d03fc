"""The three servers that Carina needs: servers of the stack, or external ones that the environment names."""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

import httpx

from deploy.stack import object_store, postgres, redis_server
from deploy.stack.component import Component, Say
from deploy.stack.errors import StackError
from deploy.stack.folder import Folder
from shared.errors import BucketMissing, CarinaError, InvalidSettings, ObjectStoreUnavailable, TransientError
from shared.network.proxies import http_client
from shared.network.redis_url import parse_url
from shared.network.tls import make_context
from shared.redis_connection import require_answer
from shared.settings import Settings

_EXTERNAL_TIMEOUT_S = 5
#: Additional settings of an external object store.
_MORE_OF_S3 = ("CARINA_S3_REGION", "CARINA_S3_SESSION_TOKEN", "CARINA_S3_ADDRESSING", "CARINA_CA_BUNDLE")


@dataclass(frozen=True)
class External:
    """A server that is not part of the stack."""

    name: str
    setting: str
    #: Host and port, without the password.
    address: str
    #: Raises a `CarinaError` with the reason if the server cannot be used.
    check: Callable[[], object]

    async def wait(self, say: Say) -> None:
        """Return as soon as the server can be used. Raises `StackError` with the reason if it cannot."""
        deadline = time.monotonic() + _EXTERNAL_TIMEOUT_S
        while True:
            try:
                await asyncio.to_thread(self.check)
                break
            except InvalidSettings:
                raise
            except CarinaError as exc:
                if not isinstance(exc, TransientError) or time.monotonic() >= deadline:
                    message = f"{self.setting} is set, but the server at {self.address} cannot be used: {exc.detail}"
                    raise StackError(message) from exc
            await asyncio.sleep(0.2)
        say(f"{self.name:<10} ready   {self.address:<16} not ours: {self.setting} is set")


@dataclass(frozen=True)
class Services:
    """The servers and their addresses."""

    #: The `CARINA_*` settings of the three servers for Carina's processes.
    settings: Mapping[str, str]
    ours: tuple[Component, ...]
    theirs: tuple[External, ...]


def plan(folder: Folder, environ: Mapping[str, str], say: Say, was_killed: bool) -> Services:
    """Return the servers to start. Raises `StackError` if a program or a setting of an external server is missing."""
    plain = {name: value for name, value in environ.items() if not name.startswith(("CARINA_", "NANIO_", "PG", "AWS_"))}
    settings: dict[str, str] = {}
    ours: list[Component] = []
    theirs: list[External] = []

    def usable() -> Settings:
        return Settings.from_env({**environ, **settings})

    if given := _given(environ, "CARINA_DATABASE_URL", folder.secret("postgres_password")):
        address = _address("CARINA_DATABASE_URL", given)
        theirs.append(External("postgres", "CARINA_DATABASE_URL", address, lambda: _use_database(usable())))
    else:
        port = folder.port("postgres", say)
        ours.append(postgres.component(folder, port, plain))
        given = postgres.url(folder.secret("postgres_password"), port)
    settings["CARINA_DATABASE_URL"] = given

    if given := _given(environ, "CARINA_REDIS_URL", folder.secret("redis_password")):
        try:
            address = str(parse_url(given))
        except ValueError as exc:
            raise StackError(f"CARINA_REDIS_URL cannot be used: {exc}") from exc
        check = partial(require_answer, given, environ.get("CARINA_CA_BUNDLE", ""))
        theirs.append(External("redis", "CARINA_REDIS_URL", address, check))
    else:
        port = folder.port("redis", say)
        ours.append(redis_server.component(folder, port, plain))
        given = redis_server.url(folder.secret("redis_password"), port)
    settings["CARINA_REDIS_URL"] = given

    key = ("CARINA_S3_ACCESS_KEY_ID", "CARINA_S3_SECRET_ACCESS_KEY")
    given = environ.get("CARINA_S3_ENDPOINT_URL")
    if given and environ.get(key[0]) != folder.secret("s3_access_key_id"):
        missing = [name for name in key if not environ.get(name)]
        if len(missing) == 1:
            raise StackError(f"Set {missing[0]} too, or neither of {' and '.join(key)}.")
        address = _address("CARINA_S3_ENDPOINT_URL", given)
        theirs.append(External("s3", "CARINA_S3_ENDPOINT_URL", address, lambda: _use_object_store(usable())))
        settings |= {name: environ[name] for name in (*key, *_MORE_OF_S3) if environ.get(name)}
    else:
        port = folder.port("s3", say)
        ours.append(object_store.component(folder, port, plain, was_killed))
        given = f"http://127.0.0.1:{port}"
        settings |= {name: folder.secret(name.removeprefix("CARINA_").lower()) for name in key}
    settings["CARINA_S3_ENDPOINT_URL"] = given
    settings["CARINA_SESSION_SECRET"] = environ.get("CARINA_SESSION_SECRET") or folder.secret("session_secret")
    settings["CARINA_S3_BUCKET"] = environ.get("CARINA_S3_BUCKET") or "carina"
    return Services(settings, tuple(ours), tuple(theirs))


def _given(environ: Mapping[str, str], setting: str, own_password: str) -> str | None:
    """Return the external server in the environment. A URL with the stack's own password comes from its `env` file."""
    value = environ.get(setting)
    return value if value and own_password not in value else None


def _use_database(settings: Settings) -> None:
    from shared.database import Database

    database = Database.from_settings(settings)
    try:
        database.ping()
    finally:
        database.close()


def _use_object_store(settings: Settings) -> None:
    from shared.object_store import ObjectStore

    with http_client(verify=make_context(settings.ca_bundle), timeout=_EXTERNAL_TIMEOUT_S) as client:
        try:
            client.get(settings.s3_endpoint_url)
        except httpx.TimeoutException as exc:  # boto3 would wait for it several times
            raise ObjectStoreUnavailable("It does not answer in time.") from exc
        except httpx.HTTPError:
            pass  # the store's own client reports the reason
    store = ObjectStore(settings)
    try:
        with suppress(BucketMissing):  # `migrate` creates the bucket
            store.ping()
    finally:
        store.close()


def _address(setting: str, url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError as exc:
        raise StackError(f"{setting} is not a URL: an IPv6 address in it stands in brackets, as in [::1].") from exc
    return parts.netloc.rpartition("@")[2] or parts.path
