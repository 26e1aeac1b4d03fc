"""The programs that tests and `make lint` need, and their Debian packages; prints the packages that are missing here.

`.ci/run` runs this file before anything is installed, so it needs nothing but Python itself.
"""

import os
import shutil
from pathlib import Path

#: By program or plugin, its package in Debian 12 and 13.
PACKAGES = {
    "Orthanc": "orthanc",
    "chromium": "chromium",
    "curl": "curl",
    "dciodvfy": "dicom3tools",
    "dcmcjpeg": "dcmtk",
    "dcmcjpls": "dcmtk",
    "dcmcrle": "dcmtk",
    "dcmdump": "dcmtk",
    "dsrdump": "dcmtk",
    "echoscu": "dcmtk",
    "libOrthancDicomWeb.so": "orthanc-dicomweb",
    "libOrthancPostgreSQLIndex.so": "orthanc-postgresql",
    "make": "make",
    "nginx": "nginx",
    "npm": "npm",
    "openssl": "openssl",
    "pgbouncer": "pgbouncer",
    "redis-server": "redis-server",
    "setpriv": "util-linux",
    "storescu": "dcmtk",
    "unshare": "util-linux",
}
#: Other names that a program has elsewhere.
ALIASES = {"chromium": ("chromium-browser", "google-chrome")}
#: Debian's servers lie where an ordinary user's PATH does not lead.
SERVERS = os.pathsep.join(("/usr/local/sbin", "/usr/sbin", "/sbin"))
PLUGINS = Path("/usr/share/orthanc/plugins")


def find(name: str) -> Path | None:
    """Return where a program or plugin of `PACKAGES` is, if it is installed."""
    for known_as in (name, *ALIASES.get(name, ())):
        if found := shutil.which(known_as) or shutil.which(known_as, path=SERVERS):
            return Path(found)
    plugin = PLUGINS / name
    return plugin if plugin.is_file() else None


if __name__ == "__main__":
    print(*sorted({package for name, package in PACKAGES.items() if find(name) is None}))  # noqa: T201
