"""`python -m deploy.stack.gated COMMAND...`: what `carina COMMAND...` does, begun before the servers answer.

Importing a process' code takes seconds, which the stack spends on its servers and tables meanwhile.
"""

import importlib
import os
import sys
import time
from pathlib import Path

#: Names the file that appears once all is ready for the command.
GATE = "CARINA_STACK_GATE"
_CODE = {
    ("migrate",): ("deploy.bootstrap", "alembic.command"),
    ("api",): ("api.serve",),
    ("worker", "prepare"): ("workers.app", "workers.prepare", "shared.imaging.isolation"),
    ("worker", "detect"): ("workers.app", "workers.detect", "shared.detector.runtime"),
    ("worker", "intake"): ("workers.app", "workers.intake"),
    ("worker", "notify"): ("workers.app", "workers.notify"),
    ("trainer",): ("trainer.agent",),
    ("beat",): ("workers.app", "workers.sweep"),
}
_POLL_S = 0.05


def main() -> None:
    """Import the command's code, wait for the gate and run the command."""
    command = tuple(sys.argv[1:])
    for module in (*_CODE[command], "deploy.cli"):
        importlib.import_module(module)
    gate = Path(os.environ[GATE])
    while not gate.exists():
        time.sleep(_POLL_S)
    sys.argv[0] = "carina"
    sys.modules["deploy.cli"].main()


if __name__ == "__main__":
    main()
