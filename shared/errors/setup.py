"""Errors of a wrong configuration: a process reports them when it starts."""

from shared.errors.base import CarinaError, Place


class SetupError(CarinaError, shares_code=True):
    """Carina is configured wrongly."""

    places = Place.START


class InvalidSettings(SetupError):
    """A setting is missing or not valid."""

    code = "invalid_settings"


class RedisClusterUnsupported(SetupError):
    """Carina does not support Redis Cluster. Set `CARINA_REDIS_URL` to one server or to Sentinels."""

    code = "redis_cluster_unsupported"


class DecoderUnconfined(SetupError):
    """The sandbox of the decoder processes lacks a protection that `CARINA_DECODER_REQUIRES` names."""

    code = "decoder_unconfined"


class ProxyUnusable(SetupError):
    """The proxy in the environment cannot be used. Use an HTTP or HTTPS proxy, or install `httpx[socks]` for SOCKS."""

    code = "proxy_unusable"


class ChestClassifierUnusable(SetupError):
    """The chest classifier cannot be loaded."""

    code = "chest_classifier_unusable"
