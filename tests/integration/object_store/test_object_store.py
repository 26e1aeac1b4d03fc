"""The object store as hospitals have it: least privilege, roles, addresses, and every refusal in a sentence.

AWS is played by moto; the suite's proxy in front of it refuses what a policy does not list, and answers as a store in
trouble does.
"""

import json
import re
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from functools import partial
from hashlib import sha256
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import boto3
import httpx
import pytest

from shared.errors import (
    BucketMissing,
    ClockSkew,
    InvalidSettings,
    NotUploaded,
    ObjectMissing,
    ObjectStoreBusy,
    ObjectStoreRefused,
    ObjectStoreUnavailable,
)
from shared.ids import new_id
from shared.object_store import PART_BYTES, ObjectStore, original_key
from shared.object_store.incoming import Incoming, SourceRefused
from shared.settings import Settings
from tests.certificates import Authority
from tests.http_proxy import Answer, Proxy, Request
from tests.integration import moto_server
from tests.integration.moto_server import action_of
from tests.ports import free_port
from tests.requirements import REPOSITORY

REQUIRED = {"CARINA_DATABASE_URL": "postgresql://x", "CARINA_REDIS_URL": "redis://x"}
KEYS = {"CARINA_S3_ACCESS_KEY_ID": "AKIAEXAMPLE", "CARINA_S3_SECRET_ACCESS_KEY": "secret"}
BUCKET = "carina"


@pytest.fixture(scope="module")
def moto() -> Iterator[int]:
    with moto_server.serving() as port:
        yield port


@pytest.fixture
def proxy(moto: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Proxy]:
    """moto, emptied, behind the proxy; and no credentials of the machine that runs the tests."""
    httpx.post(f"http://127.0.0.1:{moto}/moto-api/reset", trust_env=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    with Proxy(moto).serving() as serving:
        yield serving


def configure(proxy: Proxy, **variables: str) -> Settings:
    return Settings.from_env({**REQUIRED, "CARINA_S3_ENDPOINT_URL": proxy.url, **variables})


def make_bucket(moto: int) -> None:
    s3 = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{moto}",
        region_name="us-east-1",
        aws_access_key_id="admin",
        aws_secret_access_key="admin",
    )
    s3.create_bucket(Bucket=BUCKET)
    s3.close()


# --- least privilege -------------------------------------------------------------------------------------------------


Allowed = Callable[[str, str], bool]


def documented_policy() -> dict:
    text = (REPOSITORY / "docs" / "operations.md").read_text()
    return json.loads(re.search(r"<!-- policy -->\s*```json\n(.*?)```", text, re.DOTALL)[1])


def allows(policy: dict) -> Allowed:
    def is_allowed(action: str, resource: str) -> bool:
        return any(
            action in statement["Action"] and fnmatchcase(resource, statement["Resource"])
            for statement in policy["Statement"]
        )

    return is_allowed


def enforce(proxy: Proxy, is_allowed: Allowed) -> set[str]:
    """Refuse what is not allowed, as AWS does; return the actions that were used, which grows."""
    used: set[str] = set()

    def judge(request: Request) -> Answer | None:
        action, resource = action_of(request)
        used.add(action)
        if "x-amz-copy-source" in request.headers:
            source = "arn:aws:s3:::" + request.headers["x-amz-copy-source"].lstrip("/")
            used.add("s3:GetObject")
            if not is_allowed("s3:GetObject", source):
                return Answer(403, moto_server.error("AccessDenied"))
        return None if is_allowed(action, resource) else Answer(403, moto_server.error("AccessDenied"))

    proxy.judge = judge
    return used


def use_everything(store: Incoming) -> None:
    """Do with the store what Carina does."""
    data, key = b"data", f"originals/{new_id()}"
    digest = sha256(data).hexdigest()
    store.ensure_bucket()
    store.ping()
    store.put(key, data)
    assert store.get(key, sha256=digest) == b"".join(store.stream(key, sha256=digest)) == store.read(key) == data
    assert (store.get_prefix(key, 2), store.has(key), list(store.keys("originals/"))) == (b"da", True, [key])
    large = bytes(PART_BYTES + 1)
    hashed = sha256(large).hexdigest()
    store.put_stream([large[:PART_BYTES], large[PART_BYTES:]], sha256=lambda: hashed)
    assert store.has(original_key(hashed))
    store.put_parts("incoming/1/1", [data])
    httpx.put(store.presign_put("incoming/1/2", 4, expires_s=60), content=data).raise_for_status()
    upload_id = store.create_upload("incoming/1/3")
    url = store.presign_part("incoming/1/3", upload_id, 1, 4, expires_s=60)
    httpx.put(url, content=data).raise_for_status()
    assert store.uploaded_parts("incoming/1/3", upload_id) == {1: 4}
    assert [upload.upload_id for upload in store.unfinished_uploads()] == [upload_id]
    store.complete_upload("incoming/1/3", upload_id)
    store.abort_upload("incoming/1/4", store.create_upload("incoming/1/4"))
    with store.open("incoming/1/3") as file:
        assert file.read(0, 4) == data
    assert set(store.keys("incoming/1/")) == {f"incoming/1/{number}" for number in (1, 2, 3)}
    assert store.list_page(BUCKET, "incoming/1/", after=None, limit=2)[1]
    store.delete(key)
    assert not store.has(key)


def test_the_documented_policy_is_enough_and_no_more_than_that(proxy: Proxy, moto: int) -> None:
    make_bucket(moto)
    policy = documented_policy()
    used = enforce(proxy, allows(policy))
    use_everything(Incoming(configure(proxy, **KEYS)))
    assert used == {action for statement in policy["Statement"] for action in statement["Action"]}


def test_a_bucket_is_created_where_there_is_none_and_that_is_allowed(proxy: Proxy) -> None:
    policy = documented_policy()
    policy["Statement"][0]["Action"].append("s3:CreateBucket")
    enforce(proxy, allows(policy))
    for region in ("us-east-1", "eu-central-1"):
        store = ObjectStore(configure(proxy, CARINA_S3_REGION=region, CARINA_S3_BUCKET=BUCKET, **KEYS))
        store.ensure_bucket()
        store.ensure_bucket()
        store.put("originals/1", b"data")
        if region == "us-east-1":
            httpx.post(f"http://127.0.0.1:{proxy.upstream_port}/moto-api/reset", trust_env=False)


def test_where_it_may_not_be_created_the_permission_is_named(proxy: Proxy) -> None:
    enforce(proxy, allows(documented_policy()))
    with pytest.raises(BucketMissing, match=r"There is no bucket carina.*allow s3:CreateBucket\."):
        ObjectStore(configure(proxy, **KEYS)).ensure_bucket()


def test_without_the_permission_to_list_objects_are_still_read_and_written(proxy: Proxy, moto: int) -> None:
    make_bucket(moto)
    policy = documented_policy()
    del policy["Statement"][0]
    enforce(proxy, allows(policy))
    store = ObjectStore(configure(proxy, **KEYS))
    store.ensure_bucket()
    store.ping()
    store.put("originals/1", b"data")
    assert store.read("originals/1") == b"data"

    # As AWS answers for an object that is not there to who may not list the bucket.
    missing, is_allowed = "/carina/originals/2", proxy.judge
    proxy.judge = lambda request: Answer(403) if request.path == missing else is_allowed(request)
    assert not store.has("originals/2")


def test_an_upload_that_never_arrived_is_said_without_the_permission_to_list(proxy: Proxy, moto: int) -> None:
    make_bucket(moto)
    policy = documented_policy()
    del policy["Statement"][0]
    enforce(proxy, allows(policy))
    missing, is_allowed = "/carina/incoming/1/1", proxy.judge
    denied = Answer(403, moto_server.error("AccessDenied"))
    proxy.judge = lambda request: denied if request.path == missing else is_allowed(request)
    with pytest.raises(NotUploaded):
        Incoming(configure(proxy, **KEYS)).open("incoming/1/1")


def test_an_upload_that_may_not_be_read_is_no_source_of_others(proxy: Proxy, moto: int) -> None:
    make_bucket(moto)
    refused = "/carina/incoming/1/1"
    proxy.judge = lambda each: Answer(403, moto_server.error("AccessDenied")) if each.path == refused else None
    store = Incoming(configure(proxy, **KEYS))
    with pytest.raises(ObjectStoreRefused, match="denies s3:GetObject"):
        store.open("incoming/1/1")
    with pytest.raises(SourceRefused):
        store.open("incoming/1/1", bucket=BUCKET)


def test_with_a_revoked_key_nothing_is_said_about_an_object(proxy: Proxy, moto: int) -> None:
    make_bucket(moto)
    store = ObjectStore(configure(proxy, **KEYS))
    store.put("originals/1", b"data")
    proxy.judge = answer("InvalidAccessKeyId", 403)
    with pytest.raises(ObjectStoreRefused, match="check CARINA_S3_ACCESS_KEY_ID"):
        store.has("originals/1")


@pytest.mark.parametrize("missing", ["s3:PutObject", "s3:GetObject"])
def test_a_missing_permission_is_named(missing: str, proxy: Proxy, moto: int) -> None:
    make_bucket(moto)
    policy = documented_policy()
    policy["Statement"][0]["Action"].remove("s3:ListBucket")
    policy["Statement"][1]["Action"].remove(missing)
    enforce(proxy, allows(policy))
    with pytest.raises(ObjectStoreRefused, match=rf"denies {missing} on the bucket carina: allow it"):
        ObjectStore(configure(proxy, **KEYS)).ping()


# --- credentials -----------------------------------------------------------------------------------------------------


def signed_with(request: Request) -> tuple[str, str | None]:
    """The access key and the session token of a request, signed in a header or in its URL."""
    if "X-Amz-Credential" in request.query:
        token = request.query.get("X-Amz-Security-Token", [None])[0]
        return request.query["X-Amz-Credential"][0].partition("/")[0], token
    key = re.search(r"Credential=([^/]+)/", request.headers["authorization"])
    assert key is not None
    return key[1], request.headers.get("x-amz-security-token")


def presign(store: ObjectStore) -> list[str]:
    """Return the URL of a whole upload, and that of a part."""
    upload_id = store.create_upload("incoming/1/2")
    return [
        store.presign_put("incoming/1/1", 4, expires_s=60),
        store.presign_part("incoming/1/2", upload_id, 1, 4, expires_s=60),
    ]


def check_signatures(proxy: Proxy, settings: Settings) -> set[tuple[str, str | None]]:
    """Use the store and its presigned URLs; return whom all of that was signed by."""
    store = ObjectStore(settings)
    store.ensure_bucket()
    for url in presign(store):
        httpx.put(url, content=b"data").raise_for_status()
    store.close()
    return {signed_with(request) for request in proxy.requests if request.path.startswith(f"/{BUCKET}")}


def test_credentials_of_the_environment(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENVIRONMENT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    assert check_signatures(proxy, configure(proxy)) == {("AKIAENVIRONMENT", "token")}


def test_credentials_of_a_profile(proxy: Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    profiles = tmp_path / "aws_shared_credentials_file"
    profiles.write_text("[hospital]\naws_access_key_id = AKIAPROFILE\naws_secret_access_key = secret\n")
    monkeypatch.setenv("AWS_PROFILE", "hospital")
    assert check_signatures(proxy, configure(proxy)) == {("AKIAPROFILE", None)}
    monkeypatch.setenv("AWS_PROFILE", "clinic")
    with pytest.raises(ObjectStoreRefused, match="clinic"):
        ObjectStore(configure(proxy))


def test_a_session_token_of_our_own_settings(proxy: Proxy) -> None:
    settings = configure(proxy, CARINA_S3_SESSION_TOKEN="token", **KEYS)
    assert check_signatures(proxy, settings) == {("AKIAEXAMPLE", "token")}


def test_our_own_settings_go_before_the_environment(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENVIRONMENT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    assert check_signatures(proxy, configure(proxy, **KEYS)) == {("AKIAEXAMPLE", None)}


def test_a_role_by_web_identity_as_in_kubernetes(proxy: Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a.web.identity")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/carina")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", proxy.url)
    [(key, token)] = check_signatures(proxy, configure(proxy))
    assert key.startswith("ASIA")
    assert token


def test_a_role_that_may_not_be_assumed_is_named(proxy: Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a.web.identity")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/carina")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", proxy.url)
    document = b"<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>"
    proxy.judge = lambda request: Answer(403, document) if request.method == "POST" else None
    with pytest.raises(ObjectStoreRefused, match=r"role for the object store cannot be assumed \(AccessDenied\)"):
        ObjectStore(configure(proxy)).ping()


def assume_role(proxy: Proxy, monkeypatch: pytest.MonkeyPatch, token: Path) -> ObjectStore:
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(token))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/carina")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", proxy.url)
    return ObjectStore(configure(proxy))


def every_use(store: ObjectStore) -> list[Callable[[], object]]:
    return [
        store.ping,
        partial(store.put, "originals/1", b"data"),
        partial(store.presign_put, "incoming/1/1", 4, expires_s=60),
        partial(store.presign_part, "incoming/1/1", "1", 1, 4, expires_s=60),
        partial(store.url_lifetime_s, 60),
    ]


@pytest.mark.parametrize(("kind", "why"), [("missing", "No such file"), ("folder", "Is a directory")])
def test_a_token_file_that_cannot_be_read_costs_no_attempt(
    kind: str, why: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    token = tmp_path if kind == "folder" else tmp_path / "token"
    for use in every_use(assume_role(proxy, monkeypatch, token)):
        with pytest.raises(ObjectStoreRefused, match=rf"assume-role-with-web-identity \({token}: {why}") as caught:
            use()
        assert not caught.value.counts


def test_credentials_that_have_expired_when_they_come_cost_no_attempt(
    proxy: Proxy, moto: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {
        "AccessKeyId": "ASIAOLD",
        "SecretAccessKey": "secret",
        "Token": "token",
        "Expiration": "2020-01-01T00:00:00Z",
    }
    with Proxy(moto).serving() as agent:
        agent.judge = lambda _: Answer(200, json.dumps(keys).encode())
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{agent.url}/credentials")
        for use in every_use(ObjectStore(configure(proxy))):
            with pytest.raises(ObjectStoreRefused, match="they have expired already: check this machine's clock"):
                use()


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("/nowhere/helper", r"\(/nowhere/helper: No such file or directory\)"),
        ("echo rubbish", r"\(JSONDecodeError\)"),
        ("sh -c 'echo PASSWORD >&2; exit 1'", r"cannot be read from custom-process\.$"),
    ],
)
def test_a_helper_for_credentials_that_fails_costs_no_attempt(
    program: str, said: str, proxy: Proxy, tmp_path: Path
) -> None:
    (tmp_path / "aws_config_file").write_text(f"[default]\ncredential_process = {program}\n")
    with pytest.raises(ObjectStoreRefused, match=said):
        ObjectStore(configure(proxy))


@pytest.mark.parametrize(
    ("code", "status", "error", "said"),
    [
        ("Throttling", 400, ObjectStoreBusy, "^AWS STS has too many requests"),
        ("InternalFailure", 500, ObjectStoreUnavailable, "^AWS STS answered AssumeRoleWithWebIdentity with the error"),
    ],
)
def test_a_trouble_of_sts_is_no_matter_of_trust(
    code: str,
    status: int,
    error: type[Exception],
    said: str,
    proxy: Proxy,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (tmp_path / "token").write_text("a.web.identity")
    store = assume_role(proxy, monkeypatch, tmp_path / "token")
    document = f"<ErrorResponse><Error><Code>{code}</Code></Error></ErrorResponse>".encode()
    proxy.judge = lambda _: Answer(status, document)
    with pytest.raises(ObjectStoreUnavailable, match=said) as caught:
        store.ping()
    assert type(caught.value) is error


def test_an_sts_that_cannot_be_reached_is_not_called_the_object_store(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("a.web.identity")
    assume_role(proxy, monkeypatch, tmp_path / "token")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://127.0.0.1:{(closed := free_port())}")
    with pytest.raises(ObjectStoreUnavailable, match=rf"^AWS STS at 127\.0\.0\.1:{closed} refuses connections"):
        ObjectStore(configure(proxy)).ping()


def test_credentials_of_a_container_are_read_anew_for_each_url(
    proxy: Proxy, moto: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_bucket(moto)
    told = 0

    def tell(_: Request) -> Answer:
        nonlocal told
        told += 1
        # About to expire, so that they are renewed before each use.
        expires = (datetime.now(UTC) + timedelta(minutes=9)).strftime("%Y-%m-%dT%H:%M:%SZ")
        keys = {"AccessKeyId": f"ASIACONTAINER{told}", "SecretAccessKey": "secret", "Token": f"token-{told}"}
        return Answer(200, json.dumps({**keys, "Expiration": expires}).encode())

    with Proxy(moto).serving() as agent:
        agent.judge = tell
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{agent.url}/credentials")
        store = ObjectStore(configure(proxy))
        signatures = []
        for number in range(2):
            url = urlsplit(store.presign_put(f"incoming/1/{number}", 4, expires_s=3600))
            signatures.append(signed_with(Request("PUT", url.path, {}, parse_qs(url.query))))
        assert len(set(signatures)) == 2
        for key, token in signatures:
            assert (key.removeprefix("ASIACONTAINER"), key) == ((token or "").removeprefix("token-"), key)
        assert 60 < store.url_lifetime_s(3600) <= 540
        assert store.url_lifetime_s(60) == 60


def test_no_credentials_at_all_are_said(proxy: Proxy) -> None:
    store = ObjectStore(configure(proxy))
    said = "There are no credentials for the object store: set CARINA_S3_ACCESS_KEY_ID"
    with pytest.raises(ObjectStoreRefused, match=said):
        store.ping()
    with pytest.raises(ObjectStoreRefused, match=said):
        store.presign_put("incoming/1/1", 4, expires_s=60)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"CARINA_S3_ACCESS_KEY_ID": "key"}, "Set both CARINA_S3_ACCESS_KEY_ID and CARINA_S3_SECRET_ACCESS_KEY"),
        ({"CARINA_S3_SECRET_ACCESS_KEY": "key"}, "Set both CARINA_S3_ACCESS_KEY_ID and CARINA_S3_SECRET_ACCESS_KEY"),
        (
            {"CARINA_S3_SESSION_TOKEN": "token"},
            "CARINA_S3_SESSION_TOKEN needs CARINA_S3_ACCESS_KEY_ID and CARINA_S3_SECRET_ACCESS_KEY",
        ),
        ({"CARINA_S3_ENDPOINT_URL": "s3.hospital.example:9000"}, "Give a URL such as https://"),
        ({"CARINA_S3_PUBLIC_URL": "http://store:port"}, "Give a URL such as https://"),
        (
            {"CARINA_S3_ENDPOINT_URL": "http://object_store:9000"},
            "CARINA_S3_ENDPOINT_URL: The host must be an IP address",
        ),
        ({"CARINA_S3_PUBLIC_URL": "https://-store.example"}, "CARINA_S3_PUBLIC_URL: The host must be an IP address"),
    ],
)
def test_half_a_setting_is_one_sentence(variables: dict[str, str], said: str) -> None:
    with pytest.raises(InvalidSettings, match=said) as caught:
        Settings.from_env(REQUIRED | variables)
    assert caught.value.detail.count("CARINA_S3") <= 1 + said.count("CARINA_S3")


# --- addresses -------------------------------------------------------------------------------------------------------


@pytest.fixture
def virtual_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names below `localhost` are this machine, also where the C library does not say so."""
    resolve = socket.getaddrinfo

    def resolve_here(host: str | bytes | None, *arguments: object, **options: object):
        if isinstance(host, str) and host.endswith(".localhost"):
            host = "127.0.0.1"
        return resolve(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve_here)


@pytest.mark.parametrize(
    ("addressing", "host", "path"),
    [("virtual", "carina.localhost", "/"), ("path", "localhost", "/carina/"), ("auto", "localhost", "/carina/")],
)
def test_the_buckets_name_goes_where_the_setting_says(
    addressing: str, host: str, path: str, proxy: Proxy, virtual_hosts: None
) -> None:
    url = f"http://localhost:{proxy.port}"
    settings = configure(proxy, CARINA_S3_ENDPOINT_URL=url, CARINA_S3_ADDRESSING=addressing, **KEYS)
    store = ObjectStore(settings)
    store.ensure_bucket()
    for url in presign(store):
        parts = urlsplit(url)
        assert (parts.hostname, parts.path.startswith(f"{path}incoming/")) == (host, True)
        httpx.put(url, content=b"data").raise_for_status()
    assert store.read("incoming/1/1") == b"data"
    assert {request.headers["host"] for request in proxy.requests} == {f"{host}:{proxy.port}"}


@pytest.mark.parametrize(
    ("addressing", "url"),
    [
        ("auto", "https://carina.s3.eu-central-1.amazonaws.com/incoming/1/1"),
        ("path", "https://s3.eu-central-1.amazonaws.com/carina/incoming/1/1"),
    ],
)
def test_without_an_endpoint_it_is_that_of_aws(addressing: str, url: str) -> None:
    variables = {**REQUIRED, **KEYS, "CARINA_S3_REGION": "eu-central-1", "CARINA_S3_ADDRESSING": addressing}
    store = ObjectStore(Settings.from_env(variables))
    assert store.presign_put("incoming/1/1", 4, expires_s=60).partition("?")[0] == url


def test_clients_are_told_the_public_url(proxy: Proxy) -> None:
    store = ObjectStore(configure(proxy, CARINA_S3_PUBLIC_URL="https://store.example", **KEYS))
    assert store.presign_put("incoming/1/1", 4, expires_s=60).startswith("https://store.example/carina/incoming/1/1?")


# --- errors ----------------------------------------------------------------------------------------------------------


def answer(code: str, status: int, headers: dict[str, str] | None = None, **elements: str) -> Callable:
    """Answer every request with an error, without its document where HEAD asks."""
    return lambda request: Answer(status, moto_server.error(code, **elements), headers or {})


@pytest.mark.parametrize(
    ("judge", "error", "said"),
    [
        (answer("SlowDown", 503), ObjectStoreBusy, "too many requests"),
        (answer("ServiceUnavailable", 503), ObjectStoreBusy, "too many requests"),
        (answer("TooManyRequests", 429), ObjectStoreBusy, "too many requests"),
        (answer("InvalidAccessKeyId", 403), ObjectStoreRefused, "check CARINA_S3_ACCESS_KEY_ID"),
        (answer("SignatureDoesNotMatch", 403), ObjectStoreRefused, "check CARINA_S3_SECRET_ACCESS_KEY"),
        (answer("ExpiredToken", 400), ObjectStoreRefused, "renew CARINA_S3_SESSION_TOKEN"),
        (answer("AccessDenied", 403), ObjectStoreRefused, "denies s3:PutObject on the bucket carina"),
        (answer("NoSuchBucket", 404), BucketMissing, "There is no bucket carina"),
        (answer("BadThing", 400), ObjectStoreUnavailable, "answered PutObject with the error BadThing"),
        (answer("InternalError", 500), ObjectStoreUnavailable, "with the error 500"),
        (
            answer("PermanentRedirect", 301, Endpoint="s3.eu-west-3.amazonaws.com"),
            ObjectStoreRefused,
            "The bucket carina is in another region: set CARINA_S3_REGION",
        ),
        (
            answer("PermanentRedirect", 301, {"x-amz-bucket-region": "eu-west-3"}),
            ObjectStoreRefused,
            "The bucket carina is in the region eu-west-3: set CARINA_S3_REGION",
        ),
        (
            answer("AuthorizationHeaderMalformed", 400, {"x-amz-bucket-region": "eu-west-3"}),
            ObjectStoreRefused,
            "The bucket carina is in the region eu-west-3: set CARINA_S3_REGION",
        ),
        (
            answer("AuthorizationHeaderMalformed", 400, Region="eu-west-3"),
            ObjectStoreRefused,
            "The bucket carina is in the region eu-west-3: set CARINA_S3_REGION",
        ),
        (
            answer("RequestTimeTooSkewed", 403, RequestTime="20261128T110000Z", ServerTime="2026-11-28T12:00:00Z"),
            ClockSkew,
            "This machine's clock says 20261128T110000Z, the object store's 2026-11-28T12:00:00Z",
        ),
    ],
)
def test_a_refusal_is_a_sentence(
    judge: Callable, error: type[Exception], said: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0)
    proxy.judge = judge
    with pytest.raises(ObjectStoreUnavailable, match=said) as caught:
        ObjectStore(configure(proxy, **KEYS)).ping()
    assert type(caught.value) is error
    assert not caught.value.counts


def test_a_busy_store_is_asked_again_before_anybody_hears_of_it(proxy: Proxy, moto: int) -> None:
    make_bucket(moto)
    answers = iter([Answer(503, moto_server.error("SlowDown"))] * 2)
    proxy.judge = lambda _: next(answers, None)
    ObjectStore(configure(proxy, **KEYS)).put("originals/1", b"data")


def test_an_object_that_is_not_there_is_no_refusal(proxy: Proxy, moto: int) -> None:
    make_bucket(moto)
    with pytest.raises(ObjectMissing, match="holds no originals/1"):
        ObjectStore(configure(proxy, **KEYS)).read("originals/1")


def test_a_certificate_that_cannot_be_verified_is_a_sentence(moto: int, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with Proxy(moto, authority.sign().server_context()).serving() as proxy:
        with pytest.raises(
            ObjectStoreUnavailable,
            match=rf"The certificate of 127.0.0.1:{proxy.port} cannot be verified \(.*certificate.*CARINA_CA_BUNDLE",
        ):
            ObjectStore(configure(proxy, **KEYS)).ping()
        trusting = configure(proxy, CARINA_CA_BUNDLE=str(authority.certificate), **KEYS)
        ObjectStore(trusting).ensure_bucket()


def test_a_host_that_does_not_answer_is_named(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0)
    closed = free_port()
    for url, said in (
        (f"http://127.0.0.1:{closed}", f"The object store at 127.0.0.1:{closed} refuses connections"),
        ("http://store.invalid:9000", "The name store.invalid:9000 of the object store cannot be resolved"),
    ):
        with pytest.raises(ObjectStoreUnavailable, match=said):
            ObjectStore(configure(proxy, CARINA_S3_ENDPOINT_URL=url, **KEYS)).ping()


# --- erasing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("may_list_versions", [True, False])
def test_an_erased_object_leaves_no_version_where_versions_may_be_listed(
    proxy: Proxy, moto: int, *, may_list_versions: bool
) -> None:
    make_bucket(moto)
    store = ObjectStore(configure(proxy, **KEYS))
    store.put("originals/a", b"from before there were versions")
    store._s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    for data in (b"one", b"two"):
        store.put("originals/a", data)
        store.put("originals/ab", data)
    store.delete("originals/a")

    def judge(request: Request) -> Answer | None:
        refused = "versions" in request.query and not may_list_versions
        return Answer(403, moto_server.error("AccessDenied")) if refused else None

    proxy.judge = judge
    store.erase("originals/a")
    store.erase("originals/never")
    proxy.judge = lambda _: None
    page = store._s3.list_object_versions(Bucket=BUCKET)
    left = [entry["Key"] for entry in (*page.get("Versions", ()), *page.get("DeleteMarkers", ()))]
    assert left.count("originals/ab") == 2, "another object is left alone"
    assert ("originals/a" in left) is not may_list_versions
    assert not store.has("originals/a")
    store.close()
