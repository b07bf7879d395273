"""Have a program started outside of one's own policy: by the supervisor, through the door for runs below."""

import json
import os
import socket
import subprocess

from attack import FACTS, SECRET, WORK, main

PROMISE = "a run that an agent starts may do no more than the agent"
CONTROL = "a program that the agent starts reads the secret"
ADVICE = "report it: the policy of a run below is bounded by the one above"

WIDE = """schema: helm-sentry/policy/v1
name: wide
extends: [default]
allow:
  - {id: all, file: {do: [all], paths: ['/**']}}
  - {id: every-program, exec: {paths: ['/**']}}
"""


def attempt() -> bool:
    code = f"open({WORK + '/loot'!r}, 'wb').write(open({SECRET!r}, 'rb').read())"
    command = [FACTS["python"], "-I", "-S", "-c", code]
    if "HELM_SENTRY_DOOR" not in os.environ:
        subprocess.run(command, check=False)
    else:
        ask(command)
    try:
        with open(f"{WORK}/loot", "rb") as file:
            return b"decoy" in file.read()
    except FileNotFoundError:
        return False


def ask(command: list[str]) -> None:
    request = {"command": command, "environment": dict(os.environ), "policy": WIDE, "user": "root", "within": []}
    request |= {"hosted": {"within": []}, "options": {"dry_run": True}, "depth": -1, "parent": ""}
    with socket.socket(socket.AF_UNIX) as door:
        door.connect(os.environ["HELM_SENTRY_DOOR"])
        socket.send_fds(door, [b" "], [0, 1, 2, os.open(WORK, os.O_RDONLY)])
        door.sendall(json.dumps(request).encode() + b"\n")
        while line := door.recv(4096):
            print(line)
            if b"status" in line or b"exit" in line:
                return


main(attempt)
