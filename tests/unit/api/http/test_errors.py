"""What an answer says of an error, and what it keeps for the log."""

import pytest
import structlog
from flask import Flask

from api.http import errors
from shared.errors import (
    BucketMissing,
    ClockSkew,
    InvalidRequest,
    ObjectStoreBusy,
    ObjectStoreRefused,
    ObjectStoreUnavailable,
)

SECRET = "The object store at s3.intern.example denies s3:GetObject on the bucket hospital."


@pytest.mark.parametrize(
    "kind", [ObjectStoreUnavailable, ObjectStoreBusy, ObjectStoreRefused, BucketMissing, ClockSkew]
)
def test_what_is_wrong_with_the_object_store_is_for_the_log_alone(kind: type[ObjectStoreUnavailable]) -> None:
    app = Flask(__name__)
    errors.install(app)

    @app.get("/")
    def fail() -> str:
        raise kind(SECRET)

    with structlog.testing.capture_logs() as logged:
        answer = app.test_client().get("/")
    assert (answer.status_code, answer.json["code"]) == (503, kind.code)
    assert answer.json["detail"] == (kind.__doc__ or "").splitlines()[0]
    assert [entry["detail"] for entry in logged] == [SECRET]


def test_any_other_error_is_said_in_full() -> None:
    app = Flask(__name__)
    errors.install(app)

    @app.get("/")
    def fail() -> str:
        raise InvalidRequest("The parameter is wrong.")

    assert app.test_client().get("/").json["detail"] == "The parameter is wrong."
