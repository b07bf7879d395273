"""Have a shell connect to a server that no rule names: bash's /dev/tcp and /dev/udp, which are no files."""

import subprocess

from attack import FACTS, main

PROMISE = "what an agent starts has the agent's rules"
CONTROL = "the server's answer comes through the shell"
ADVICE = "narrow the connect rule that allows it"

WAYS = (
    "exec 3<>/dev/tcp/127.0.0.1/{port}; head -c 1 <&3",
    "exec 3<>/dev/tcp/localhost/{port}; head -c 1 <&3",
    "cat < /dev/tcp/127.0.0.1/{port} & wait",
)


def attempt() -> bool:
    for way in WAYS:
        command = ["timeout", "2", "bash", "-c", way.format(port=FACTS["tcp_port"])]
        if b"b" in subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False).stdout:
            return True
    return False


main(attempt)
