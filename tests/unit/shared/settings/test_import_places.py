"""From where a project may import."""

import pytest

from shared.errors import InvalidSettings
from shared.settings import Settings
from shared.settings.import_places import limit_prefix, read_places

PLACES = read_places("ward:images/2024/, ward:images/exports/a, lab:images, lab:other/x")


@pytest.mark.parametrize(
    ("project", "bucket", "prefix", "limited"),
    [
        ("ward", "images", "2024", "2024/"),
        ("ward", "images", "2024/", "2024/"),
        ("ward", "images", "2024/a", "2024/a"),
        ("ward", "images", "exports/a/b.png", "exports/a/b.png"),
        ("lab", "images", "", ""),
        ("lab", "images", "anything", "anything"),
        ("ward", "images", "", None),
        ("ward", "images", "20", None),
        ("ward", "images", "2024b", None),
        ("ward", "images", "2024/../lab", None),
        ("ward", "images", "2024/./x", None),
        ("ward", "images", "2024//x", None),
        ("ward", "images", "/2024/x", None),
        ("ward", "images2", "2024/", None),
        ("ward", "other", "x", None),
        ("lab", "images", "a/..", None),
        ("nobody", "images", "2024", None),
        ("Ward", "images", "2024", None),
    ],
)
def test_a_project_reads_below_its_own_prefixes_only(
    project: str, bucket: str, prefix: str, limited: str | None
) -> None:
    assert limit_prefix(PLACES, project, bucket, prefix) == limited


@pytest.mark.parametrize(
    "entry", ["images", "images/2024", ":images", "ward:", "ward:/x", "ward:images/../x", "a:images,b", "ward:Images"]
)
def test_an_entry_that_names_no_project_or_place_is_refused_at_the_start(entry: str) -> None:
    env = {
        "CARINA_DATABASE_URL": "postgresql://db/carina",
        "CARINA_REDIS_URL": "redis://redis/0",
        "CARINA_S3_ENDPOINT_URL": "http://s3",
        "CARINA_S3_ACCESS_KEY_ID": "id",
        "CARINA_S3_SECRET_ACCESS_KEY": "secret",
    }
    Settings.from_env(env | {"CARINA_IMPORT_BUCKETS": "ward:images/2024"})
    with pytest.raises(InvalidSettings, match=r"`project:bucket/prefix`"):
        Settings.from_env(env | {"CARINA_IMPORT_BUCKETS": entry})
