"""Forks processes that run programs of this directory: quicker than starting Python for each of them.

Standard input is a Unix socket. A message is JSON with the `program`, its `arguments`, `environment` and working
`directory`, and brings descriptors: the child's standard input, output and error, and others that it inherits. The
answer is the child's process id, and the numbers of those others.
"""

import importlib
import json
import os
import runpy
import signal
import socket
import sys
from typing import Any, NoReturn

for name in ("ctypes", "contextlib", "errno", "fcntl", "mmap", "select", "struct", "subprocess", "threading", "time"):
    importlib.import_module(name)

MOST = 8  # descriptors


def become(task: dict[str, Any], descriptors: list[int]) -> NoReturn:
    """Run the program in this process."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, descriptor in enumerate(descriptors[:3]):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(task["environment"])
    os.chdir(task["directory"])
    sys.stdin, sys.stdout, sys.stderr = (open(number, mode) for number, mode in enumerate("rww"))
    sys.argv = [task["program"], *task["arguments"]]
    try:
        runpy.run_path(task["program"], run_name="__main__")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def main() -> None:
    """Fork a child for each message, until there are no more."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how they ended
    door = socket.socket(fileno=os.dup(0))
    while True:
        message, descriptors, _, _ = socket.recv_fds(door, 1 << 20, MOST)
        if not message:
            return
        pid = os.fork()
        if pid == 0:
            door.close()
            become(json.loads(message), descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        door.send(json.dumps({"pid": pid, "inherited": descriptors[3:]}).encode())


main()
