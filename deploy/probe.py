"""`carina probe live` and `carina probe ready`: exit code 0 or 1, and one sentence.

For containers and orchestrators. It starts in a fraction of a second and contacts no server; it only reads the state
file of the process. The API has `/healthz` and `/readyz` instead.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from shared.processes.process_state import ALIVE_WITHIN_S, VARIABLE, NoStateFile, ProcessState, find, read
from shared.vocabulary.states import SERVED

#: Names of the processes with a state file.
STAGES = (*SERVED, "beat", "trainer", "dicom-listener")


class ProbeFailed(Exception):
    """The process is not in the requested state; the text gives the reason."""


def main(arguments: Sequence[str]) -> int:
    """Probe one process. Returns the exit code."""
    asked = _parser().parse_args(arguments)
    try:
        state = _the_one(asked.file or os.environ.get(VARIABLE, ""), asked.stage, asked.pid)
        if state.has_ended:
            raise ProbeFailed(f"{state} has ended.")
        if state.silent_s > asked.within:
            raise ProbeFailed(f"{state} has made no progress for {state.silent_s:.0f} s.")
        if asked.what == "ready" and state.not_ready:
            raise ProbeFailed(f"{state} takes no work: {_listed(state.not_ready)}.")
    except (ProbeFailed, NoStateFile) as exc:
        return _say(asked, str(exc), 1)
    slower = f", but slower: {_listed(state.degraded)}" if state.degraded else ""
    return _say(asked, f"{state} is alive." if asked.what == "live" else f"{state} takes work{slower}.", 0)


def _say(asked: argparse.Namespace, sentence: str, code: int) -> int:
    answer = {"what": asked.what, "holds": code == 0, "detail": sentence}
    sys.stdout.write(f"{json.dumps(answer) if asked.json else sentence}\n")
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="carina probe", description="Ask whether a process of Carina is well.")
    parser.add_argument("what", choices=("live", "ready"), help="live: it makes progress; ready: it takes work")
    parser.add_argument("--stage", default="", choices=STAGES, help="which of the processes on this machine")
    parser.add_argument("--pid", type=int, default=0, help="the process' id, where several of a stage run here")
    parser.add_argument("--file", default="", help=f"the process' state file, as {VARIABLE} named it")
    parser.add_argument(
        "--within", type=float, default=ALIVE_WITHIN_S, help="seconds for which a live process may be silent"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("-q", "--quiet", action="store_true", help=argparse.SUPPRESS)
    return parser


def _the_one(file: str, stage: str, pid: int) -> ProcessState:
    if file:
        if state := read(Path(file)):
            return state
        raise ProbeFailed(f"No process has written {file}.")
    states = [state for _, state in find(stage) if pid in (0, state.pid)]
    running = [state for state in states if not state.has_ended]
    if len(running) > 1:
        listed = ", ".join(map(str, running))
        raise ProbeFailed(f"Several processes run here, name one with --stage, --pid or --file: {listed}.")
    if not states:
        raise ProbeFailed(f"No{f' {stage}' if stage else ''} process of Carina has written a state file here.")
    return (running or states)[0]


def _listed(codes: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({code})" for name, code in codes.items())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
