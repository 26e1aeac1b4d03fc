"""From where a project may import."""

import pytest

from shared.errors import InvalidSettings
from shared.settings import Settings
from shared.settings.import_places import limit_prefix, read_places

PLACES = read_places("ward:films/2024/, ward:films/exports/a, lab:films, lab:other/x")


@pytest.mark.parametrize(
    ("project", "bucket", "prefix", "limited"),
    [
        ("ward", "films", "2024", "2024/"),
        ("ward", "films", "2024/", "2024/"),
        ("ward", "films", "2024/a", "2024/a"),
        ("ward", "films", "exports/a/b.png", "exports/a/b.png"),
        ("lab", "films", "", ""),
        ("lab", "films", "anything", "anything"),
        ("ward", "films", "", None),
        ("ward", "films", "20", None),
        ("ward", "films", "2024b", None),
        ("ward", "films", "2024/../lab", None),
        ("ward", "films", "2024/./x", None),
        ("ward", "films", "2024//x", None),
        ("ward", "films", "/2024/x", None),
        ("ward", "films2", "2024/", None),
        ("ward", "other", "x", None),
        ("lab", "films", "a/..", None),
        ("nobody", "films", "2024", None),
        ("Ward", "films", "2024", None),
    ],
)
def test_a_project_reads_below_its_own_prefixes_only(
    project: str, bucket: str, prefix: str, limited: str | None
) -> None:
    assert limit_prefix(PLACES, project, bucket, prefix) == limited


@pytest.mark.parametrize(
    "entry", ["films", "films/2024", ":films", "ward:", "ward:/x", "ward:films/../x", "a:films,b", "ward:Films"]
)
def test_an_entry_that_names_no_project_or_place_is_refused_at_the_start(entry: str) -> None:
    env = {
        "CARINA_DATABASE_URL": "postgresql://db/carina",
        "CARINA_REDIS_URL": "redis://redis/0",
        "CARINA_S3_ENDPOINT_URL": "http://s3",
        "CARINA_S3_ACCESS_KEY_ID": "id",
        "CARINA_S3_SECRET_ACCESS_KEY": "secret",
    }
    Settings.from_env(env | {"CARINA_IMPORT_BUCKETS": "ward:films/2024"})
    with pytest.raises(InvalidSettings, match=r"`project:bucket/prefix`"):
        Settings.from_env(env | {"CARINA_IMPORT_BUCKETS": entry})
