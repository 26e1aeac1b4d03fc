"""Every client of Redis is made here, from the one setting `CARINA_REDIS_URL`: redis-py's and Celery's.

    redis://[user:password@]host[:port][/database]           one server; rediss:// for TLS
    sentinel://[user:password@]host[:port][,host[:port]...]/database?master=NAME
                                                             the master that Sentinels name; sentinels:// for TLS

Sentinels with a password of their own: `&sentinel_password=...`, and `&sentinel_user=...`. With TLS the certificate is
checked, unless the URL says `ssl_cert_reqs=none`.
"""

import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, unquote

from shared.errors import HintNotSent, RedisClusterUnsupported
from shared.tls import find_ca_bundle

if TYPE_CHECKING:
    from redis import Redis

    from shared.settings import Settings

#: The schemes, and the port that each implies.
_PORTS = {"redis": 6379, "rediss": 6379, "sentinel": 26379, "sentinels": 26379}
#: `urlsplit` refuses several IPv6 addresses in one URL.
_URL = re.compile(r"(?P<scheme>[a-z+]+)://(?P<netloc>[^/?#]*)(/(?P<path>[^?#]*))?(\?(?P<query>.*))?")
_CERTIFICATE = {"required": True, "CERT_REQUIRED": True, "none": False, "CERT_NONE": False}
_HOST = re.compile(r"(?P<host>\[[0-9a-fA-F:.%]+\]|[^\[\]:]+)(:(?P<port>\d+))?")
#: How long making a connection may take, and an answer, where the caller does not say so.
CONNECT_S, ANSWER_S = 2.0, 5.0


@dataclass(frozen=True)
class RedisAddress:
    """Where Redis is, and how to sign in."""

    #: Of the server, or of each Sentinel.
    hosts: tuple[tuple[str, int], ...]
    tls: bool
    database: int = 0
    username: str | None = None
    password: str | None = None
    #: The name under which Sentinels know the server; empty: `hosts` is the server.
    master: str = ""
    sentinel_username: str | None = None
    sentinel_password: str | None = None
    #: Whether the server's certificate is checked.
    verify: bool = True

    def __str__(self) -> str:
        """The hosts and ports, without secrets."""
        return ",".join(f"{_bracket(host)}:{port}" for host, port in self.hosts)


def parse_url(url: str) -> RedisAddress:
    """Read `CARINA_REDIS_URL`; raise ValueError, whose text repeats no part that may be secret."""
    parts = _URL.fullmatch(url.strip())
    scheme = parts["scheme"] if parts else ""
    if parts is None or scheme not in _PORTS:
        if "cluster" in scheme:
            raise ValueError(RedisClusterUnsupported().detail)
        raise ValueError(f"the URL must start with {', '.join(f'{each}://' for each in _PORTS)}.")
    by_sentinel = scheme.startswith("sentinel")
    user_info, _, addresses = parts["netloc"].rpartition("@")
    user, _, password = user_info.partition(":")
    hosts = []
    for address in addresses.split(","):
        found = _HOST.fullmatch(address.strip())
        port = int(found["port"] or _PORTS[scheme]) if found else 0
        if found is None or not 0 < port < 65536 or not _is_host(found["host"]):
            raise ValueError("the URL must name a host as `host` or `host:port`, or several with commas between.")
        hosts.append((found["host"].strip("[]"), port))
    if len(hosts) > 1 and not by_sentinel:
        raise ValueError("the URL names several hosts, which only sentinel:// and sentinels:// may.")
    database = (parts["path"] or "").strip("/") or "0"
    if not database.isdecimal():
        raise ValueError("the URL's path must be the number of a database, as `/0`.")
    options = dict(parse_qsl(parts["query"] or "", keep_blank_values=True))
    tls = scheme in ("rediss", "sentinels")
    known = {"master", "sentinel_user", "sentinel_password"} if by_sentinel else set()
    known |= {"ssl_cert_reqs"} if tls else set()
    if unknown := sorted(options.keys() - known):
        raise ValueError(f"the URL has the parameter `{unknown[0]}`, which is not known.")
    if by_sentinel and not options.get("master"):
        raise ValueError("a URL of Sentinels must name the master: `?master=NAME`.")
    certificate = options.get("ssl_cert_reqs", "required")
    if certificate not in _CERTIFICATE:
        raise ValueError("the URL's `ssl_cert_reqs` must be `required` or `none`.")
    return RedisAddress(
        hosts=tuple(hosts),
        tls=tls,
        database=int(database),
        username=unquote(user) or None,
        password=unquote(password) or None,
        master=options.get("master", ""),
        sentinel_username=options.get("sentinel_user") or None,
        sentinel_password=options.get("sentinel_password") or None,
        verify=_CERTIFICATE[certificate],
    )


def connect(settings: "Settings", *, connect_s: float = CONNECT_S, answer_s: float = ANSWER_S) -> "Redis":
    """Return a client of the Redis that the settings name, as `connect_to` does."""
    url = settings.redis_url.get_secret_value()
    return connect_to(url, settings.ca_bundle, connect_s=connect_s, answer_s=answer_s)


def connect_to(url: str, ca_bundle: str, *, connect_s: float = CONNECT_S, answer_s: float = ANSWER_S) -> "Redis":
    """Return a client; nothing is connected to before it is used. Thread-safe.

    A connection that an idle time or a restart of Redis has ended is made again, once; silence is not asked twice.
    """
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    address = parse_url(url)
    bounds = {"socket_timeout": answer_s, "socket_connect_timeout": connect_s, "socket_keepalive": True}
    tls = _tls(address, ca_bundle)
    options: dict[str, Any] = {
        **bounds,
        **tls,
        "db": address.database,
        "username": address.username,
        "password": address.password,
        "retry": Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
    }
    if not address.master:
        [(host, port)] = address.hosts
        kind = redis.SSLConnection if address.tls else redis.Connection
        return redis.Redis(connection_pool=redis.ConnectionPool(kind, host=host, port=port, **options))
    sentinels = redis.Sentinel(address.hosts, sentinel_kwargs=_of_sentinels(address, bounds, tls))  # type: ignore[no-untyped-call]
    pool = redis.sentinel.SentinelConnectionPool(address.master, sentinels, ssl=address.tls, **options)  # type: ignore[no-untyped-call]
    return redis.Redis(connection_pool=pool)


def celery_options(settings: "Settings") -> dict[str, Any]:
    """Return the settings with which Celery connects."""
    address = parse_url(settings.redis_url.get_secret_value())
    bounds = {"socket_timeout": ANSWER_S, "socket_connect_timeout": CONNECT_S, "socket_keepalive": True}
    tls = _tls(address, settings.ca_bundle)
    scheme = "sentinel" if address.master else "redis"
    user_info = ":".join(quote(each or "", safe="") for each in (address.username, address.password))
    urls = [f"{scheme}://{user_info}@{_bracket(host)}:{port}/{address.database}" for host, port in address.hosts]
    transport: dict[str, Any] = {**bounds, "visibility_timeout": 3600, "health_check_interval": 5}
    if address.master:
        transport |= {"master_name": address.master, "sentinel_kwargs": _of_sentinels(address, bounds, tls)}
    return {"broker_url": ";".join(urls), "broker_use_ssl": tls or False, "broker_transport_options": transport}


def require_answer(url: str, ca_bundle: str = "") -> None:
    """Raise `HintNotSent` unless Redis answers PING, `RedisClusterUnsupported` where it is part of a cluster."""
    import redis

    client = connect_to(url, ca_bundle, answer_s=CONNECT_S)
    try:
        client.ping()
        with suppress(redis.ResponseError):  # where INFO is not permitted
            if client.info("cluster").get("cluster_enabled"):
                raise RedisClusterUnsupported
    except (redis.RedisError, OSError) as exc:
        reason = str(exc).rstrip(".") or type(exc).__name__
        raise HintNotSent(f"Redis does not answer as it should: {reason}.") from exc
    finally:
        client.close()


def _of_sentinels(address: RedisAddress, bounds: dict[str, Any], tls: dict[str, Any]) -> dict[str, Any]:
    secrets = {"username": address.sentinel_username, "password": address.sentinel_password}
    return {**bounds, **tls, **secrets, "ssl": address.tls}


def _tls(address: RedisAddress, ca_bundle: str) -> dict[str, Any]:
    if not address.tls:
        return {}
    import certifi

    return {
        "ssl_cert_reqs": "required" if address.verify else "none",
        "ssl_check_hostname": address.verify,
        "ssl_ca_certs": find_ca_bundle(ca_bundle) or certifi.where(),
    }


def _is_host(host: str) -> bool:
    """Whether a host can be looked up: every label has 1–63 characters; the root's dot may end a name."""
    return all(0 < len(label) < 64 for label in host.removesuffix(".").split("."))


def _bracket(host: str) -> str:
    return f"[{host}]" if ":" in host else host
