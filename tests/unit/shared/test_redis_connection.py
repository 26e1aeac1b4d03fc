"""`CARINA_REDIS_URL`: one form for a server, one for Sentinels, and a sentence for everything else."""

import pytest
from pydantic import ValidationError

from shared.network.redis_url import RedisAddress, parse_url
from shared.settings import Settings


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://h", RedisAddress((("h", 6379),), tls=False)),
        ("redis://h.example.", RedisAddress((("h.example.", 6379),), tls=False)),
        ("redis://:p%40s@h:1/3", RedisAddress((("h", 1),), tls=False, database=3, password="p@s")),
        ("rediss://u:p@[::1]:1/0", RedisAddress((("::1", 1),), tls=True, username="u", password="p")),
        ("rediss://h/0?ssl_cert_reqs=CERT_NONE", RedisAddress((("h", 6379),), tls=True, verify=False)),
        (
            "sentinel://:p@a,[::1]:7,b:8/2?master=m",
            RedisAddress((("a", 26379), ("::1", 7), ("b", 8)), tls=False, database=2, password="p", master="m"),
        ),
        (
            "sentinels://a/0?master=m&sentinel_user=u&sentinel_password=s%26",
            RedisAddress((("a", 26379),), tls=True, master="m", sentinel_username="u", sentinel_password="s&"),
        ),
    ],
)
def test_reads(url: str, address: RedisAddress) -> None:
    assert parse_url(url) == address


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("h:6379", "must start with redis://"),
        ("http://h", "must start with redis://"),
        ("redis+cluster://:secret@h:1", "Redis Cluster"),
        ("rediss+cluster://h:1", "Redis Cluster"),
        ("redis://:secret@a:1,b:2/0", "several hosts"),
        ("redis://:secret@", "must name a host"),
        ("redis://:secret@h:99999", "must name a host"),
        ("redis://:secret@a..b", "must name a host"),
        ("redis://:secret@.a", "must name a host"),
        (f"redis://:secret@{'a' * 64}", "must name a host"),
        ("sentinel://:secret@a,b..c/0?master=m", "must name a host"),
        ("redis://:secret@h/main", "number of a database"),
        ("redis://:secret@h/0?master=m", "`master`, which is not known"),
        ("sentinel://:secret@h/0", "must name the master"),
        ("rediss://:secret@h?ssl_cert_reqs=optional", "must be `required` or `none`"),
    ],
)
def test_refuses_in_a_sentence_without_the_secret(url: str, said: str) -> None:
    with pytest.raises(ValueError, match="URL") as refused:
        parse_url(url)
    assert said in str(refused.value)
    assert "secret" not in str(refused.value)
    others = dict.fromkeys(("database_url", "s3_endpoint_url", "s3_access_key_id", "s3_secret_access_key"), "")
    with pytest.raises(ValidationError, match="redis_url"):
        Settings.model_validate({"redis_url": url, **others})
