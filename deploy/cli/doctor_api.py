"""The checks of `carina doctor` that need only the URL of the API and a key."""

import time
from email.utils import parsedate_to_datetime

from shared.errors import CarinaError
from shared.settings import ClientSettings

#: An object store refuses signed requests if clocks differ by 15 minutes; half of that is reported.
MAX_SKEW_S = 450
_JSON = ("application/json", "application/problem+json")


class CheckFailed(CarinaError, shares_code=True):
    """A check of `carina doctor` failed."""


def check_api(settings: ClientSettings) -> str:
    """Return what answers at the URL of the API; raises `CheckFailed` and the errors of the client."""
    import httpx

    from api.client.unreachable import ApiUnavailable, explain
    from shared.network.proxies import http_client
    from shared.network.tls import make_context

    with http_client(verify=make_context(settings.ca_bundle), timeout=5) as http:
        try:
            ready = http.get(f"{settings.api_url}/readyz")
        except httpx.TransportError as exc:
            raise explain(exc, ApiUnavailable, "The API", settings.api_url) from exc
        if ready.headers.get("Content-Type", "").partition(";")[0] not in _JSON:
            raise CheckFailed(f"The server at {settings.api_url} is not Carina's API")
        _check_clock(ready.headers.get("Date"))
        if not ready.is_success:
            raise CheckFailed(f"The API at {settings.api_url} answers, but is not ready")
    return f"ready at {settings.api_url}"


def check_key(settings: ClientSettings) -> str:
    """Return what the key may do; raises `CheckFailed` if it is not valid."""
    from api.client import Carina, RequestRefused

    key = settings.api_key.get_secret_value()
    with Carina(settings.api_url, key, retry_for_s=0, ca_bundle=settings.ca_bundle) as client:
        try:
            client.models()
        except RequestRefused as exc:
            if exc.status == 403:
                return "valid, without the scope `read`"
            raise CheckFailed(exc.detail.rstrip(".")) from exc
    return "valid, with the scope `read`"


def _check_clock(date: str | None) -> None:
    if date is None:
        return
    skew_s = time.time() - parsedate_to_datetime(date).timestamp()
    if abs(skew_s) > MAX_SKEW_S:
        raise CheckFailed(
            f"The clock of this machine and that of the API differ by {abs(skew_s) / 60:.0f} minutes: "
            "set both by a time server"
        )
