"""Bodies that schemathesis cannot write by itself."""

from typing import Any

import schemathesis


def _bytes_of(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode(errors="replace")


@schemathesis.serializer("application/dicom")
def send_file(_: Any, value: Any) -> bytes:
    """Send a DICOM file, or whatever was made up in its place."""
    return _bytes_of(value)


@schemathesis.serializer("multipart/related")
def send_parts(_: Any, value: Any) -> bytes:
    """Send it as the one part of a body."""
    return b"--b\r\nContent-Type: application/dicom\r\n\r\n" + _bytes_of(value) + b"\r\n--b--\r\n"


@schemathesis.hook
def before_call(_: Any, case: Any, __: dict[str, Any]) -> None:
    """Name the boundary of these parts."""
    if (case.media_type or "").startswith("multipart/related"):
        case.headers = {**(case.headers or {}), "Content-Type": f"{case.media_type}; boundary=b"}


#: Of what is found before a route is known.
_ELSEWHERE = {405, 411, 414, 431, 501}


@schemathesis.check
def states_the_code(_: Any, response: Any, case: Any) -> None:
    """An error has a code that the operation lists for its status."""
    if not response.headers.get("content-type", [""])[0].startswith("application/problem+json"):
        return
    code = response.json()["code"]
    described = case.operation.definition.raw["responses"].get(str(response.status_code), {})
    listed = described.get("content", {}).get("application/problem+json", {}).get("examples", {})
    assert code in listed or response.status_code in _ELSEWHERE, f"{code} is not listed for {response.status_code}"
