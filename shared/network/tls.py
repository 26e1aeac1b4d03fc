"""Selects the trusted certificate authorities, by one rule for all TLS connections of Carina."""

import os
import ssl
from functools import lru_cache
from pathlib import Path

from shared.errors import SetupError

#: If no file is given, the first of these that is set is used. The last three belong to OpenSSL, Requests and the AWS
#: SDK.
VARIABLES = ("CARINA_CA_BUNDLE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE")


class CaBundleUnusable(SetupError):
    """The file of certificate authorities cannot be used."""

    code = "ca_bundle_unusable"


def find_ca_bundle(given: str = "") -> str | None:
    """Return the PEM file of the trusted authorities; None for those of certifi. Raises `CaBundleUnusable`."""
    variable = next((name for name in VARIABLES if os.environ.get(name)), VARIABLES[0])
    path = given or os.environ.get(variable)
    if not path:
        return None
    try:
        found = Path(path).stat()
        _check_certificates(path, found.st_mtime_ns, found.st_size, found.st_ino)
    except OSError as exc:  # includes `ssl.SSLError`
        reason = "it holds no certificate in PEM format" if isinstance(exc, ssl.SSLError) else exc.strerror
        named = VARIABLES[0] if given else variable
        raise CaBundleUnusable(f"{named} names {path}, which cannot be used: {reason}.") from exc
    return path


@lru_cache(maxsize=8)
def _check_certificates(path: str, *_version: int) -> None:
    """Load the certificates, once for each version of the file: a full bundle takes tens of milliseconds."""
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)


def make_context(given: str = "") -> ssl.SSLContext:
    """Return a TLS context for clients that trusts the authorities of `find_ca_bundle`."""
    if path := find_ca_bundle(given):
        return ssl.create_default_context(cafile=path)
    import httpx  # slow to load, and most processes need no context

    return httpx.create_ssl_context()
