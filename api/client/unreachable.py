"""Errors of httpx as errors of Carina, with the reason in words."""

import re

import httpx

from shared.errors import TransientError
from shared.network.proxies import proxy_of


class ApiUnavailable(TransientError):
    """The API does not answer."""

    code = "api_unavailable"
    #: The seconds of the answer's `Retry-After`.
    retry_after_s = 0.0
    #: The status of the answer, if there was one.
    status: int | None = None


class CertificateNotTrusted(ApiUnavailable):
    """The server's TLS certificate cannot be verified. Set `CARINA_CA_BUNDLE` to its certificate authority."""

    code = "certificate_not_trusted"


#: Messages of httpx, Python and OpenSSL, and their meaning. The first match counts.
_REASONS = {
    r"WRONG_VERSION_NUMBER|RECORD_LAYER_FAILURE|UNEXPECTED_MESSAGE|PACKET_LENGTH": "it does not speak TLS, so its URL"
    " may have to begin with http://",
    r"Connection refused": "nothing listens there",
    r"Name or service not known|name resolution|nodename|No address associated|getaddrinfo|Label (empty|too long)": (
        "there is no host of that name"
    ),
    r"timed out|[Tt]imeout": "it takes too long",
    r"No route to host|unreachable": "the network has no way to it",
    r"reset by peer|disconnected|EOF|Broken pipe|closed": "it ended the connection",
    r"illegal|Invalid|malformed|unexpected|protocol|Protocol": "it does not speak HTTP, or wants TLS",
}


def explain(error: httpx.TransportError, kind: type[TransientError], server: str, url: str) -> TransientError:
    """Return Carina's error for one of httpx; `server` is the subject of its sentence, such as "The API"."""
    where = httpx.URL(url)
    said = _chain(error)
    if found := re.search(r"CERTIFICATE_VERIFY_FAILED\] certificate verify failed:? ?([^(]*)", said):
        reason = found[1].strip(" .") or "unknown"
        return CertificateNotTrusted(
            f"The certificate of {where.host} cannot be verified: {reason}. "
            "CARINA_CA_BUNDLE names a file with the certificate authorities to trust."
        )
    proxy = proxy_of(url)
    by_way_of = f" through the proxy {httpx.URL(proxy).host} of the environment" if proxy else ""
    reason = next((reason for pattern, reason in _REASONS.items() if re.search(pattern, said)), "")
    if isinstance(error, httpx.ProxyError):
        reason = f"the proxy says {str(error) or 'nothing'}"
    because = f": {reason}" if reason else ""
    return kind(f"{server} at {where.scheme}://{where.netloc.decode()} does not answer{by_way_of}{because}.")


def _chain(error: BaseException | None) -> str:
    said = []
    while error is not None:
        said.append(f"{type(error).__name__}: {error}")
        error = error.__cause__ or error.__context__
    return "\n".join(said)
