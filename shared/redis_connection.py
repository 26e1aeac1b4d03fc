"""Creates all clients of Redis, for redis-py and Celery, from the setting `CARINA_REDIS_URL`."""

from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from shared.errors import HintNotSent, RedisClusterUnsupported
from shared.network.addresses import join_host_port
from shared.network.redis_url import RedisAddress, parse_url
from shared.network.tls import find_ca_bundle
from shared.settings import Settings

if TYPE_CHECKING:
    from redis import Redis

#: Default time limits for a connection and for an answer, in seconds.
CONNECT_S, ANSWER_S = 2.0, 5.0


def connect(settings: Settings, *, connect_s: float = CONNECT_S, answer_s: float = ANSWER_S) -> "Redis":
    """Return a client of the Redis in the settings: see `connect_to`."""
    url = settings.redis_url.get_secret_value()
    return connect_to(url, settings.ca_bundle, connect_s=connect_s, answer_s=answer_s)


def connect_to(url: str, ca_bundle: str, *, connect_s: float = CONNECT_S, answer_s: float = ANSWER_S) -> "Redis":
    """Return a client, which connects when it is first used. Thread-safe.

    A connection that Redis has closed is opened again, once. A command that times out is not repeated.
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


def celery_options(settings: Settings) -> dict[str, Any]:
    """Return Celery's settings for the connection."""
    address = parse_url(settings.redis_url.get_secret_value())
    bounds = {"socket_timeout": ANSWER_S, "socket_connect_timeout": CONNECT_S, "socket_keepalive": True}
    tls = _tls(address, settings.ca_bundle)
    scheme = "sentinel" if address.master else "redis"
    user_info = ":".join(quote(each or "", safe="") for each in (address.username, address.password))
    urls = [f"{scheme}://{user_info}@{join_host_port(host, port)}/{address.database}" for host, port in address.hosts]
    transport: dict[str, Any] = {**bounds, "visibility_timeout": 3600, "health_check_interval": 5}
    if address.master:
        transport |= {"master_name": address.master, "sentinel_kwargs": _of_sentinels(address, bounds, tls)}
    return {"broker_url": ";".join(urls), "broker_use_ssl": tls or False, "broker_transport_options": transport}


def require_answer(url: str, ca_bundle: str = "") -> None:
    """Raise `HintNotSent` unless Redis answers PING, `RedisClusterUnsupported` if it is part of a cluster."""
    import redis

    client = connect_to(url, ca_bundle, answer_s=CONNECT_S)
    try:
        client.ping()
        with suppress(redis.ResponseError):  # INFO may not be permitted
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
