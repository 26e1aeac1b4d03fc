"""A private certificate authority, and certificates that it signs for servers and clients of tests."""

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.requirements import needs

#: The names of a server on this machine.
HERE = ("DNS:localhost", "DNS:*.localhost", "IP:127.0.0.1")


@dataclass(frozen=True)
class Certificate:
    """A certificate and its key, as files in PEM format."""

    path: Path
    key: Path

    def server_context(self) -> ssl.SSLContext:
        """TLS of a server that shows this certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.path, self.key)
        return context


class Authority:
    """Makes its own certificate at once, and others on request."""

    def __init__(self, folder: Path) -> None:
        """Make the folder and the authority's certificate in it."""
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self.certificate = folder / "authority.pem"
        self._request("authority", "-x509", "-days", "2", "-addext", "keyUsage=critical,keyCertSign,cRLSign")

    def sign(self, *names: str, called: str = "server") -> Certificate:
        """Return a certificate for subject alternative names, as `DNS:localhost`; by default a server's here."""
        made = Certificate(self._folder / f"{called}.pem", self._folder / f"{called}.key")
        # OpenSSL would make it an authority's by default, and Python 3.13 refuses such a one without these uses.
        extensions = (
            f"subjectAltName={','.join(names or HERE)}",
            "basicConstraints=critical,CA:FALSE",
            "keyUsage=critical,digitalSignature",
        )
        added = [word for extension in extensions for word in ("-addext", extension)]
        signing = ("-CA", "authority.pem", "-CAkey", "authority.key")
        self._request(called, "-x509", "-days", "2", *added, *signing)
        return made

    def _request(self, called: str, *words: str) -> None:
        new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={called}")
        files = ("-keyout", f"{called}.key", "-out", f"{called}.pem")
        command = [needs("openssl"), *new, *files, *words]
        subprocess.run(command, cwd=self._folder, check=True, capture_output=True)
