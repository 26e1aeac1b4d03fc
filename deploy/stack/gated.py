"""`python -m deploy.stack.gated COMMAND...`: what `carina COMMAND...` does, begun before all is ready for it.

Some code takes seconds to import; the stack spends them on its servers and tables meanwhile.
"""

import importlib
import os
import sys
import time
from pathlib import Path

#: Names the file that appears once all is ready for the command.
GATE = "CARINA_STACK_GATE"
#: What is imported until then. The other commands take little: they would only hold up the servers.
_CODE = {
    ("migrate",): ("deploy.bootstrap", "alembic.command"),
    ("api",): ("api.serve",),
    ("worker", "detect"): ("workers.detect", "shared.detector.runtime"),
}
_POLL_S = 0.05


def main() -> None:
    """Import the command's code, wait for the gate and run the command."""
    for module in _CODE.get(tuple(sys.argv[1:]), ()):
        importlib.import_module(module)
    gate = Path(os.environ[GATE])
    while not gate.exists():
        time.sleep(_POLL_S)
    sys.argv[0] = "carina"
    importlib.import_module("deploy.cli").main()


if __name__ == "__main__":
    main()
