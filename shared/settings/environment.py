"""All settings: read once per process from `CARINA_*` environment variables, then passed on."""

import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.errors import InvalidSettings
from shared.network.addresses import check_public_url, is_dns_host
from shared.network.redis_url import parse_url
from shared.network.tls import CaBundleUnusable, find_ca_bundle
from shared.network.urls import check_http_url
from shared.settings.import_places import read_places
from shared.settings.secret_files import read_secret_files

Kind = TypeVar("Kind", bound=BaseSettings)


def _check_ca_bundle(path: str) -> str:
    try:
        find_ca_bundle(path)
    except CaBundleUnusable as exc:
        raise ValueError(exc.detail) from exc
    return path


CaBundle = Annotated[
    str,
    AfterValidator(_check_ca_bundle),
    Field(
        validate_default=True,
        description="PEM file of the certificate authorities to trust; empty: `SSL_CERT_FILE`, else those of certifi.",
    ),
]
PublicUrl = Annotated[
    str,
    AfterValidator(check_public_url),
    Field(description="URL of the API for clients, as `https://host/path`; empty: that of each request."),
]


def _check_origins(text: str) -> str:
    try:
        origins = [check_public_url(origin.strip()) for origin in text.split(",") if origin.strip()]
    except ValueError:
        origins = ["/"]
    if any(urlsplit(origin).path for origin in origins):
        raise ValueError("Name each origin as https://viewer.example, without a path, with commas between; no `*`.")
    return ",".join(origins)


def _check_redis_url(url: SecretStr) -> SecretStr:
    parse_url(url.get_secret_value())
    return url


def _check_store_url(url: str) -> str:
    if url and not is_dns_host(urlsplit(check_http_url(url)).hostname or ""):
        raise ValueError("The host must be an IP address or a name of letters, digits, hyphens and dots.")
    return url


StoreUrl = Annotated[str, AfterValidator(_check_store_url)]


class Settings(BaseSettings):
    """All settings of servers, workers and the trainer. Frozen; every number is bounded."""

    model_config = SettingsConfigDict(env_prefix="CARINA_", frozen=True, extra="ignore")

    # Servers.
    database_url: SecretStr = Field(description="PostgreSQL, as `postgresql://user:password@host:port/name`.")
    redis_url: Annotated[SecretStr, AfterValidator(_check_redis_url)] = Field(
        description="Redis, as `redis://:password@host:port/0`, `rediss://…` or `sentinel://…/0?master=NAME`."
    )
    s3_endpoint_url: StoreUrl = Field(
        "", description="The S3-compatible object store's URL; empty: AWS, by its region."
    )
    s3_access_key_id: SecretStr = Field(SecretStr(""), description="Its access key; empty: AWS SDK's default chain.")
    s3_secret_access_key: SecretStr = Field(
        SecretStr(""), validate_default=True, description="Its secret key; set both keys or neither."
    )
    s3_session_token: SecretStr = Field(SecretStr(""), description="The token of temporary keys.")
    database_connections: int = Field(20, ge=2, le=1000, description="Maximum connections of a process to PostgreSQL.")
    s3_bucket: str = Field("carina", pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", description="The bucket.")
    s3_region: str = Field("us-east-1", description="The region that requests are signed for.")
    s3_addressing: Literal["auto", "path", "virtual"] = Field(
        "auto", description="Place of the bucket's name: `path`, `virtual` (host); `auto`: `virtual` on AWS only."
    )
    s3_public_url: StoreUrl = Field("", description="The object store's URL for clients that upload; empty: the same.")

    ca_bundle: CaBundle = ""

    # The API.
    api_host: str = Field("127.0.0.1", description="Address of the API: IPv4, IPv6 (`::` for both) or `unix:/path`.")
    api_port: int = Field(8080, ge=0, le=65535, description="The port that the API binds to.")
    public_url: PublicUrl = ""
    api_threads: int = Field(2000, ge=1, le=10_000, description="Requests at the same time, including slow uploads.")
    api_connections: int = Field(4000, ge=2, le=100_000, description="Connections at the same time, also idle ones.")
    connections_per_address: int = Field(
        1024,
        ge=1,
        le=100_000,
        description="The same from one address, except this machine; off behind trusted proxies.",
    )
    max_upload_bytes: int = Field(2 * 1024**3, ge=1024, description="Maximum size of a request body, in bytes.")
    max_files: int = Field(1000, ge=1, le=100_000, description="Maximum number of files in a request.")

    session_secret: SecretStr = Field(SecretStr(""), description="Signs the console's cookies; empty: no console.")
    trusted_proxies: int = Field(0, ge=0, le=10, description="Proxies in front whose `X-Forwarded-*` is trusted.")
    rate_limit: str = Field("", description="Request rate of a key, such as `600/minute`; empty: unlimited.")
    cors_origins: Annotated[str, AfterValidator(_check_origins)] = Field(
        "",
        description="Origins whose web pages may read the API, as `https://a.example,https://b.example`; empty: none.",
    )
    deidentify: Literal["off", "basic"] = Field("off", description="`basic`: PS3.15's Basic Profile at intake.")

    # Bulk submissions.
    direct_uploads: bool = Field(
        False, description="Whether clients upload directly to the object store, at `CARINA_S3_PUBLIC_URL`."
    )
    upload_url_s: int = Field(3600, ge=60, le=604_800, description="Seconds for which an upload's URL is valid.")
    upload_expires_h: float = Field(48, gt=0, le=8760, description="Hours after which unfinished uploads are removed.")
    submission_expires_h: float = Field(168, gt=0, le=8760, description="Hours until an open submission is closed.")
    import_buckets: str = Field(
        "", description="Places from which each project may import: `project:bucket/prefix`, separated by commas."
    )
    intake_threads: int = Field(4, ge=1, le=64, description="Files that one intake worker checks at a time.")
    max_archive_entries: int = Field(100_000, ge=1, description="Maximum number of entries in an archive.")
    max_archive_bytes: int = Field(200 * 1024**3, ge=1024, description="Maximum unpacked size of an archive, in bytes.")
    max_archive_ratio: float = Field(200, ge=1, description="Maximum ratio of unpacked to packed size.")

    # Webhooks.
    webhook_allow_private: bool = Field(False, description="Whether webhooks may point at private addresses.")
    webhook_timeout_s: float = Field(10, ge=1, le=60, description="Seconds within which a receiver must answer.")
    webhook_retry_h: float = Field(24, gt=0, le=168, description="Hours for which a message is retried.")

    # Retention: days after which data is deleted. A project can have other values.
    originals_days: int = Field(0, ge=0, description="Days for which originals are kept; 0: forever.")
    renditions_days: int = Field(0, ge=0, description="Days for which renditions are kept; 0: forever.")
    results_days: int = Field(0, ge=0, description="Days for which results and their reviews are kept; 0: forever.")
    submissions_days: int = Field(0, ge=0, description="Days for which ended submissions are kept; 0: forever.")
    deliveries_days: int = Field(0, ge=0, description="Days for which ended webhook messages are kept; 0: forever.")
    audit_days: int = Field(0, ge=0, description="Days for which audit rows are kept; 0: forever.")
    samples_days: int = Field(7, ge=1, description="Days for which samples of the queue are kept.")
    workers_days: int = Field(7, ge=1, description="Days for which rows of ended processes are kept.")

    # The DICOM listener.
    dicom_host: str = Field("127.0.0.1", description="Address of the DICOM listener; `::` for IPv4 and IPv6.")
    dicom_port: int = Field(11112, ge=0, le=65535, description="The port that the DICOM listener binds to.")
    dicom_ae_title: str = Field("CARINA", pattern=r"^[!-\[\]-~ ]{1,16}$", description="Its application entity title.")
    dicom_allowed_aes: str = Field("", description="Titles that may send, separated by commas; empty: none.")
    dicom_project: str = Field("default", description="The project that owns the received images.")
    dicom_key: str = Field(
        "", max_length=100, description="Prefix of the API key whose daily quota counts C-STORE requests; empty: none."
    )
    dicom_associations: int = Field(32, ge=1, le=1000, description="Maximum number of associations.")
    dicom_pending: int = Field(64, ge=1, le=1000, description="Maximum number of connections without an association.")
    dicom_pending_per_address: int = Field(16, ge=1, le=1000, description="Maximum of these from one address.")
    dicom_tls_certificate: str = Field("", description="PEM file; with it the listener speaks TLS only.")
    dicom_tls_key: str = Field("", description="PEM file of the certificate's key.")
    dicom_tls_ca: str = Field("", description="PEM file; with it senders must present a certificate signed by it.")

    # The queue.
    slot: str = Field(
        "",
        max_length=100,
        description="Name that one process of a host and kind has at a time: its next container takes its work back.",
    )
    max_attempts: int = Field(4, ge=1, le=100, description="Attempts per stage before a job is `failed`.")
    lease_s: float = Field(60, ge=1, le=3600, description="Seconds until a silent worker's lease expires.")
    retry_backoff_s: float = Field(2, ge=0, le=600, description="Pause before the second attempt; doubles each time.")
    sweep_interval_s: float = Field(15, ge=0.2, le=600, description="Seconds between two sweeps.")

    # The prepare stage.
    rendition_px: int = Field(1024, ge=64, le=4096, description="The longest side of a rendition, in pixels.")
    max_image_pixels: int = Field(64_000_000, ge=4096, description="Maximum number of pixels of an image.")
    prepare_threads: int = Field(2, ge=1, le=64, description="Images that one prepare worker decodes at a time.")
    decode_threads: int = Field(
        1, ge=1, le=16, description="Threads for one JPEG 2000 or JPEG XL image; more are faster if cores are idle."
    )
    decode_timeout_s: float = Field(60, ge=1, le=600, description="Seconds until a decode counts as hung.")
    decoder_requires: str = Field(
        "",
        pattern=r"^(|(seccomp|landlock|namespaces)(, ?(seccomp|landlock|namespaces))*)$",
        description="`seccomp`, `landlock`, `namespaces`, separated by commas: required protections.",
    )
    suitability: Literal["off", "flag", "reject"] = Field(
        "flag", description="Treatment of a doubtful image: `off` (none), `flag` or `reject`."
    )
    chest_classifier_folder: str = Field("", description="The folder of the chest classifier; empty: the shipped one.")

    # The detect stage.
    batch_size: int = Field(16, ge=1, le=256, description="Maximum number of images in a forward pass.")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="`auto`, `cpu`, `cuda` or `cuda:N`.")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="`auto`: bf16 where it is faster.")
    torch_threads: int = Field(0, ge=0, le=256, description="CPU threads of the forward pass; 0: PyTorch's choice.")
    fetch_threads: int = Field(8, ge=1, le=64, description="Renditions fetched at a time.")
    step_timeout_s: float = Field(300, ge=1, le=3600, description="Seconds until a forward pass counts as hung.")

    # The trainer.
    trainer_processes: int = Field(0, ge=0, le=64, description="Ranks on this machine; 0: one per GPU, or one.")
    trainer_nodes: str = Field(
        "1",
        pattern=r"^[1-9]\d{0,2}(:[1-9]\d{0,2})?$",
        description="Machines that train together: `2`, or `2:4` for 2 to 4 of them.",
    )
    trainer_node_rank: int = Field(0, ge=0, le=255, description="This machine; 0 leads and takes tasks.")
    trainer_rendezvous: str = Field(
        "", pattern=r"^(|[^:\s]+:\d{1,5})$", description="The leader of several machines, as `host:port`."
    )
    trainer_group: str = Field("", description="Name of the group of machines; empty: its rendezvous.")
    trainer_address: str = Field(
        "", description="This machine's address for its group; empty: the one on the way to the leader."
    )
    trainer_join_timeout_s: float = Field(
        600, ge=1, le=86_400, description="Seconds to wait for machines before a training goes to another trainer."
    )
    trainer_cache_folder: str = Field("", description="Cache of renditions; empty: a temporary folder.")
    trainer_cache_bytes: int = Field(20 * 1024**3, ge=0, description="Maximum size of this cache, in bytes.")
    checkpoint_days: int = Field(
        7, ge=0, le=3650, description="Days for which a failed or cancelled training can be resumed; 0: not at all."
    )
    trainer_stuck_s: float = Field(1800, ge=1, le=86_400, description="Seconds until a silent task counts as hung.")
    trainer_poll_s: float = Field(2, ge=0.1, le=600, description="Seconds between two queries for a task.")

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The lowest level that is logged."
    )

    # The log files of `carina up`.
    log_file_bytes: int = Field(
        8 * 1024**2, ge=65_536, le=1024**4, description="Size at which a log file of `carina up` is rotated."
    )
    log_files: int = Field(2, ge=1, le=100, description="Log files of each process, the current one included.")

    @field_validator("import_buckets")
    @classmethod
    def _names_projects(cls, entries: str) -> str:
        read_places(entries)
        return entries

    @field_validator("trainer_rendezvous")
    @classmethod
    def _is_there_for_several_machines(cls, rendezvous: str, info: ValidationInfo) -> str:
        nodes = info.data.get("trainer_nodes", "1")
        if nodes.rpartition(":")[2] != "1" and not rendezvous:
            raise ValueError("Several machines (CARINA_TRAINER_NODES) need CARINA_TRAINER_RENDEZVOUS.")
        return rendezvous

    @field_validator("trainer_nodes")
    @classmethod
    def _ascends(cls, nodes: str) -> str:
        least, _, most = nodes.partition(":")
        if most and int(most) < int(least):
            raise ValueError("The first of two numbers of machines is the smaller one, as in `2:4`.")
        return nodes

    @field_validator("s3_secret_access_key")
    @classmethod
    def _comes_with_its_key(cls, secret: SecretStr, info: ValidationInfo) -> SecretStr:
        key = info.data.get("s3_access_key_id", SecretStr(""))
        if bool(key.get_secret_value()) != bool(secret.get_secret_value()):
            raise ValueError("Set both CARINA_S3_ACCESS_KEY_ID and CARINA_S3_SECRET_ACCESS_KEY, or neither.")
        return secret

    @field_validator("s3_session_token")
    @classmethod
    def _comes_with_keys(cls, token: SecretStr, info: ValidationInfo) -> SecretStr:
        key = info.data.get("s3_access_key_id", SecretStr(""))
        if token.get_secret_value() and not key.get_secret_value():
            raise ValueError("CARINA_S3_SESSION_TOKEN needs CARINA_S3_ACCESS_KEY_ID and CARINA_S3_SECRET_ACCESS_KEY.")
        return token

    @property
    def node_counts(self) -> tuple[int, int]:
        """The least and the greatest number of machines that train together."""
        least, _, most = self.trainer_nodes.partition(":")
        return int(least), int(most or least)

    @property
    def required_protections(self) -> list[str]:
        """The protections without which no decoder process may start."""
        return [word.strip() for word in self.decoder_requires.split(",") if word.strip()]

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """Read the settings from `env` instead of the process' environment; raise `InvalidSettings`."""
        given = {field: env[name] for field in cls.model_fields if (name := f"CARINA_{field.upper()}") in env}
        given |= read_secret_files(cls, env)
        try:
            return cls.model_validate(given)
        except ValidationError as exc:
            raise InvalidSettings(explain(exc)) from None


class SettingsWithoutHints(Settings):
    """Settings for a process that neither sends nor receives hints: the URL of Redis is optional."""

    redis_url: SecretStr = SecretStr("")


class LogFileSettings(Settings):
    """The settings of log files, which `carina up` needs before there are servers."""

    database_url: SecretStr = SecretStr("")
    redis_url: SecretStr = SecretStr("")

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """Read only the settings of log files; raise `InvalidSettings`."""
        names = ("CARINA_LOG_FILE_BYTES", "CARINA_LOG_FILES")
        return super().from_env({name: env[name] for name in names if name in env})


class ClientSettings(BaseSettings):
    """Settings for a client of the API."""

    model_config = SettingsConfigDict(env_prefix="CARINA_", frozen=True, extra="ignore")

    api_url: Annotated[str, AfterValidator(check_public_url)] = Field(
        "http://127.0.0.1:8080", description="URL of the API, for the command line."
    )
    api_key: SecretStr = Field(description="The key sent as `Authorization: Bearer KEY`.")
    public_url: PublicUrl = ""
    ca_bundle: CaBundle = ""


def read_settings(kind: type[Kind]) -> Kind:
    """Read settings from the environment of this process; raise `InvalidSettings`."""
    secrets: dict[str, Any] = read_secret_files(kind, os.environ)
    try:
        return kind(**secrets)
    except ValidationError as exc:
        raise InvalidSettings(explain(exc)) from None


def explain(error: ValidationError) -> str:
    """Return one sentence for each invalid variable. It contains no values, because some are secret."""
    told = error.errors(include_url=False, include_context=False, include_input=False)
    names = {f"CARINA_{'_'.join(map(str, each['loc'])).upper()}": each for each in told}
    missing = [name for name, each in names.items() if each["type"] == "missing"]
    wrong = [
        f"{name}: {each['msg'].removeprefix('Value error, ').rstrip('.')}"
        for name, each in names.items()
        if each["type"] != "missing"
    ]
    unset = f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set" if missing else ""
    return ". ".join(filter(None, [unset, *wrong])) + "."
