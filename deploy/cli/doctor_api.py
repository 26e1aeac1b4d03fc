"""What `carina doctor` checks of the API: all that somebody can check who has its URL and a key alone."""

import time
from email.utils import parsedate_to_datetime

import httpx

from deploy.cli.ailment import Ailment
from shared.settings import ClientSettings

#: Signatures of requests to an object store are refused from a quarter of an hour on; half of that is worth a word.
MOST_SKEW_S = 450
_JSON = ("application/json", "application/problem+json")


def check_api(settings: ClientSettings) -> str:
    """Say what answers at the API's URL; raises `Ailment` and the errors of the client."""
    from api.client.unreachable import ApiUnavailable, explain
    from shared.network.proxies import http_client
    from shared.network.tls import make_context

    with http_client(verify=make_context(settings.ca_bundle), timeout=5) as http:
        try:
            ready = http.get(f"{settings.api_url}/readyz")
        except httpx.TransportError as exc:
            raise explain(exc, ApiUnavailable, "The API", settings.api_url) from exc
        if ready.headers.get("Content-Type", "").partition(";")[0] not in _JSON:
            raise Ailment(f"The server at {settings.api_url} is not Carina's API")
        _check_clock(ready.headers.get("Date"))
        if not ready.is_success:
            raise Ailment(f"The API at {settings.api_url} answers, but is not ready")
    return f"ready at {settings.api_url}"


def check_key(settings: ClientSettings) -> str:
    """Say what the key may do; raises `Ailment` where it is not valid."""
    from api.client import Carina, RequestRefused

    key = settings.api_key.get_secret_value()
    with Carina(settings.api_url, key, retry_for_s=0, ca_bundle=settings.ca_bundle) as client:
        try:
            client.models()
        except RequestRefused as exc:
            if exc.status == 403:
                return "valid, without the scope `read`"
            raise Ailment(exc.detail.rstrip(".")) from exc
    return "valid, with the scope `read`"


def _check_clock(date: str | None) -> None:
    if date is None:
        return
    skew_s = time.time() - parsedate_to_datetime(date).timestamp()
    if abs(skew_s) > MOST_SKEW_S:
        raise Ailment(
            f"The clock of this machine and that of the API differ by {abs(skew_s) / 60:.0f} minutes: "
            "set both by a time server"
        )
