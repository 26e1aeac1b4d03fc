"""The secrets that each process of Carina needs: `carina up` and docker-compose.yml pass no others.

All other settings are passed to all processes: a setting left out by mistake would silently get its default.
"""

from collections.abc import Mapping

from shared.queue.stages import STAGES
from shared.settings import ClientSettings, Settings
from shared.settings.secret_files import secrets_of

DATABASE = frozenset({"CARINA_DATABASE_URL"})
REDIS = frozenset({"CARINA_REDIS_URL"})
OBJECTS = frozenset({"CARINA_S3_ACCESS_KEY_ID", "CARINA_S3_SECRET_ACCESS_KEY", "CARINA_S3_SESSION_TOKEN"})
CONSOLE = frozenset({"CARINA_SESSION_SECRET"})

NEEDS = {
    "api": DATABASE | REDIS | OBJECTS | CONSOLE,
    "dicom-listener": DATABASE | REDIS | OBJECTS,
    "intake": DATABASE | REDIS | OBJECTS,
    **{str(stage): DATABASE | REDIS | OBJECTS for stage in STAGES},
    "notify": DATABASE | REDIS,
    "trainer": DATABASE | OBJECTS,
    "beat": DATABASE | REDIS | OBJECTS,
    "migrate": DATABASE | OBJECTS,
}
#: All secrets of Carina, and the prefix of the AWS SDK's secrets; its CA bundle is not a secret.
SECRETS = frozenset({*secrets_of(Settings).values(), *secrets_of(ClientSettings).values()})
_OF_AWS, _NO_SECRET = "AWS_", "AWS_CA_BUNDLE"


def environment_of(service: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without the secrets that a service does not need, including their `_FILE` variables."""
    needed = NEEDS[service]

    def is_kept(name: str) -> bool:
        if name.startswith(_OF_AWS) and name != _NO_SECRET:
            return needed >= OBJECTS
        secret = name.removesuffix("_FILE")
        return secret not in SECRETS or secret in needed

    return {name: value for name, value in environ.items() if is_kept(name)}
