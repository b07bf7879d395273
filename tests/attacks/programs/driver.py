"""Runs attack programs one after another, each in a fork, and says on standard output how each ended.

Standard input: a line of JSON with the facts, the programs and how long each may take. This is what is started under
the supervisor, or without it for the control.
"""

import contextlib
import importlib
import json
import os
import runpy
import select
import signal
import sys
import traceback

# What most programs need, read once instead of in each of them.
for name in ("ctypes", "errno", "fcntl", "mmap", "socket", "struct", "subprocess", "threading", "time"):
    importlib.import_module(name)

TIMED_OUT = -1


def perform(program: str, facts: str) -> None:
    """Run a program in this process. Never returns."""
    try:
        sys.argv = [program, facts]
        runpy.run_path(program, run_name="__main__")
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(3)


def run(program: str, facts: str, seconds: float) -> tuple[int, str]:
    """Return a program's exit status (of a signal: 128 and its number) and what it said."""
    hear, say = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        os.close(hear)
        for descriptor in (1, 2):
            os.dup2(say, descriptor)
        os.close(say)
        perform(program, facts)
    os.close(say)
    ended = select.select([os.pidfd_open(pid)], [], [], seconds)[0]
    for victim in (-pid, pid):  # what it has started goes with it
        with contextlib.suppress(OSError):
            os.kill(victim, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    os.set_blocking(hear, False)
    try:
        said = os.read(hear, 4096).decode(errors="replace")
    except BlockingIOError:
        said = ""
    os.close(hear)
    if not ended:
        return TIMED_OUT, said
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status), said


def main() -> None:
    """Say `ready`, read the task, carry it out."""
    print("ready", flush=True)
    task = json.loads(sys.stdin.readline())
    facts = task["facts"]
    if facts["supervised"]:
        facts["guardian"] = os.getppid()
    for program in task["programs"]:
        status, said = run(program, json.dumps(facts), task["seconds"])
        print(json.dumps({"program": program, "status": status, "said": said[-600:]}), flush=True)


main()
