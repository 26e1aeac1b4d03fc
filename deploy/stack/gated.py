"""`python -m deploy.stack.gated COMMAND...`: run `carina COMMAND...`, but import its code before its servers are ready.

Some code takes seconds to import. Meanwhile the stack starts its servers and creates the tables.
"""

import importlib
import os
import sys
import time
from pathlib import Path

#: Names the file that is created when everything is ready for the command.
GATE = "CARINA_STACK_GATE"
#: Modules to import until then. The other commands import little, and would only slow down the servers.
_CODE = {
    ("migrate",): ("deploy.bootstrap", "alembic.command"),
    ("api",): ("api.serve",),
    ("worker", "detect"): ("workers.detect", "shared.detector.runtime"),
}
_POLL_S = 0.05


def main() -> None:
    """Import the command's code, wait for the file, and run the command."""
    for module in _CODE.get(tuple(sys.argv[1:]), ()):
        importlib.import_module(module)
    gate = Path(os.environ[GATE])
    while not gate.exists():
        time.sleep(_POLL_S)
    sys.argv[0] = "carina"
    importlib.import_module("deploy.cli").main()


if __name__ == "__main__":
    main()
