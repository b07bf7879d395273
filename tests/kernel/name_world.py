"""A world of names for one command: `python name_world.py REPORT UID -- COMMAND…`, in new net and mount namespaces.

A name server, the machine's only one, answers from ZONE; the addresses there exist and a server accepts on port 443 of
every one. REPORT gets, as JSON, the names that were asked for and the addresses that were reached.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading

from helm_sentry.decode.dns import Code, answer, read_question

SERVER = "127.0.0.99"
ZONE = {
    "api.example.com": ["93.184.216.34"],
    "deep.api.example.com": ["93.184.216.35", "2606:4700::99"],
    "inner.example.com": ["127.0.0.1"],
    "elsewhere.test": ["93.184.216.36"],
}
ADDRESSES = ("93.184.216.34/32", "93.184.216.35/32", "93.184.216.36/32", "2606:4700::99/128")


def names(asked: list[str], server: socket.socket) -> None:
    """Answer questions for ever."""
    while True:
        message, asker = server.recvfrom(4096)
        try:
            question = read_question(message)
        except ValueError:
            continue
        asked.append(question.name)
        found = ZONE.get(question.name)
        server.sendto(answer(question, Code.NO_SUCH_NAME if found is None else Code.FOUND, found or ()), asker)


def arrivals(reached: list[str], server: socket.socket) -> None:
    """Greet everybody for ever."""
    while True:
        client, _ = server.accept()
        reached.append(client.getsockname()[0].removeprefix("::ffff:"))
        client.sendall(b"hello")
        client.close()


def main() -> int:
    report, uid, _, *command = sys.argv[1:]
    for arguments in (["link", "set", "lo", "up"], *(["addr", "add", each, "dev", "lo"] for each in ADDRESSES)):
        subprocess.run(["ip", *arguments], check=True)
    with tempfile.NamedTemporaryFile("w", prefix="resolv-") as conf:
        os.fchmod(conf.fileno(), 0o644)
        conf.write(f"search corp.test\nnameserver {SERVER}\noptions timeout:5 attempts:1\n")
        conf.flush()
        subprocess.run(["mount", "--bind", conf.name, os.path.realpath("/etc/resolv.conf")], check=True)
        asked: list[str] = []
        reached: list[str] = []
        ours = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        ours.bind((SERVER, 53))
        every = socket.create_server(("::", 443), family=socket.AF_INET6, dualstack_ipv6=True, backlog=64)
        for work, heard, where in ((names, asked, ours), (arrivals, reached, every)):
            threading.Thread(target=work, args=(heard, where), daemon=True).start()
        other = {"user": int(uid), "group": int(uid), "extra_groups": []} if int(uid) != os.getuid() else {}
        status = subprocess.run(command, check=False, **other).returncode
    with open(report, "w") as file:
        json.dump({"asked": sorted(set(asked)), "reached": reached}, file)
    return status


if __name__ == "__main__":
    sys.exit(main())
