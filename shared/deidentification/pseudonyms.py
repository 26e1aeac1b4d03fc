"""Pseudonyms for the UIDs and identifiers that group files by study and patient."""

import base64
import hmac

from pydicom.uid import UID


class Pseudonyms:
    """Pseudonyms derived from a project's key: deterministic, and not reversible without the key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def uid(self, original: str) -> str:
        """Return the pseudonym of an instance, series or study UID (PS3.5 annex B.2)."""
        return f"2.25.{int.from_bytes(self._digest(original)[:16], 'big')}"

    def sop_class(self, original: str) -> str:
        """Return a registered SOP class unchanged; a pseudonym for any other UID."""
        uid = UID(original)
        return original if uid.name != original and "SOP Class" in uid.type else self.uid(original)

    def identifier(self, keyword: str, original: str) -> str:
        """Return the pseudonym of a patient, study or device identifier: 16 capitals and digits."""
        return base64.b32encode(self._digest(f"{keyword} {original}")[:10]).decode()

    def _digest(self, text: str) -> bytes:
        return hmac.digest(self._key, text.encode(), "sha256")
