"""`*.example.com` in a connect rule, with real programs, a name server of the test and addresses that exist.

The controls run the same commands without the supervisor, in the same world (`name_world.py`).
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kernel.conftest import CHECKOUT, Sandbox
from tests.kernel.name_world import SERVER

RULE = "connect: {hosts: ['*.example.com'], ports: [443]}"
POLICY = "extends: [python, node]\nallow:\n  - {id: site, " + RULE + "}\n"
HELLO = """
import socket, sys
for name in sys.argv[1:]:
    try:
        with socket.create_connection((name, 443), timeout=20) as server:
            print(name, server.recv(9).decode())
    except OSError as error:
        print(name, type(error).__name__)
"""


@dataclass(frozen=True)
class Seen:
    status: int
    lines: list[str]
    stderr: str
    asked: list[str]
    reached: list[str]


@dataclass
class World:
    sandbox: Sandbox

    def __call__(self, command: Sequence[str]) -> Seen:
        """Run a command there."""
        report = self.sandbox.root / "report.json"
        ours = [] if os.getuid() == 0 else ["--map-root-user"]
        uid = self.sandbox.uid if os.getuid() == 0 else 0
        argv = ["unshare", *ours, "--net", "--mount", sys.executable, str(Path(__file__).with_name("name_world.py"))]
        done = subprocess.run(
            [*argv, str(report), str(uid), "--", *command],
            cwd=self.sandbox.workspace, text=True, capture_output=True, timeout=120, check=False,
            env=self.sandbox.environment() | {"PYTHONPATH": str(CHECKOUT)},
        )  # fmt: skip
        heard = json.loads(report.read_text())
        return Seen(done.returncode, done.stdout.splitlines(), done.stderr, heard["asked"], heard["reached"])

    def supervised(self, command: Sequence[str], text: str = POLICY) -> Seen:
        """Run a command there, under a policy."""
        return self(self.sandbox.argv(command, self.sandbox.policy(text), ["--no-witness"]))


@pytest.fixture
def world(sandbox: Sandbox) -> World:
    return World(sandbox)


def python(script: str, *arguments: str) -> list[str]:
    return ["/usr/bin/python3", "-c", script, *arguments]


def test_the_c_library_finds_what_lies_beneath_and_nothing_else(world: World) -> None:
    wanted = ["api.example.com", "deep.api.example.com", "elsewhere.test", "inner.example.com", "none.example.com"]
    native = world(python(HELLO, *wanted))
    assert native.lines[:4] == [f"{name} hello" for name in wanted[:4]]
    seen = world.supervised(python(HELLO, *wanted))
    assert seen.lines == [
        "api.example.com hello",
        "deep.api.example.com hello",
        "elsewhere.test gaierror",
        "inner.example.com PermissionError",
        "none.example.com gaierror",
    ]
    assert set(seen.reached) <= {"93.184.216.34", "93.184.216.35", "2606:4700::99"}
    assert {"elsewhere.test", "elsewhere.test.corp.test"} & set(native.asked)
    assert not any("elsewhere" in name for name in seen.asked), "not even the question leaves"
    assert "denied: look up elsewhere.test: no rule states it" in seen.stderr


def test_the_log_tells_what_was_found(world: World) -> None:
    world.supervised(python(HELLO, "api.example.com"))
    (run,) = world.sandbox.runs()
    records = [json.loads(line) for line in (run / "audit.jsonl").read_text().splitlines()]
    (found,) = [record["detail"] for record in records if record.get("code") == "name"]
    assert found == "api.example.com: 93.184.216.34"
    (connected,) = [record for record in records if record.get("target") == "93.184.216.34:443"][:1]
    assert (connected["rule"], connected["hosts"]) == ("site", ["api.example.com"])
    asked = [record for record in records if record.get("rule") == "sentry/name-server"]
    assert asked
    assert all(record["target"].endswith(".53:53") for record in asked)
    assert world.sandbox.verify(run).returncode == 0


@pytest.mark.skipif(not shutil.which("node"), reason="make test installs node")
def test_node_finds_names_by_the_c_library_and_by_its_own_resolver(world: World) -> None:
    script = """
const net = require('net'), dns = require('dns').promises;
const hello = host => new Promise(done => net.connect(443, host)
  .on('data', data => done(String(data))).on('error', error => done(error.code)));
(async () => {
  console.log(await hello('api.example.com'), await hello('elsewhere.test'));
  console.log(...await dns.resolve4('api.example.com'), String(await dns.resolve4('elsewhere.test').catch(e => e.code)));
  console.log(await hello((await dns.resolve4('deep.api.example.com'))[0]), await hello('93.184.216.36'));
})();
"""
    node = shutil.which("node") or ""
    assert world([node, "-e", script]).lines == ["hello hello", "93.184.216.34 93.184.216.36", "hello hello"]
    seen = world.supervised([node, "-e", script])
    assert seen.lines == ["hello ENOTFOUND", "93.184.216.34 ENOTFOUND", "hello EACCES"]


FORGE = f"""
import re, socket, struct, sys
def attempt(address):
    try:
        return socket.create_connection((address, 443), timeout=20).recv(9).decode()
    except OSError as error:
        return type(error).__name__
server = re.search(r"nameserver (\\S+)", open("/etc/resolv.conf").read())[1]
name = b"\\x04evil\\x07example\\x03com\\0\\0\\1\\0\\1"
forged = struct.pack(">6H", 7, 0x8180, 1, 1, 0, 0) + name + b"\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\x3c\\0\\4\\x5d\\xb8\\xd8\\x24"
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours:
    ours.connect((server, 53))
    ours.send(forged)                                   # an answer where a question is due
    question = struct.pack(">6H", 8, 0x0100, 1, 1, 0, 0) + name + forged[len(forged) - 16:]
    ours.send(question)                                 # a question that brings its answer along
    ours.settimeout(20)
    ours.recv(512)
    print(attempt("93.184.216.36"))
try:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as theirs:
        theirs.connect(("{SERVER}", 53))
        theirs.send(struct.pack(">6H", 9, 0x0100, 1, 0, 0, 0) + b"\\x09elsewhere\\x04test\\0\\0\\1\\0\\1")
        theirs.settimeout(20)
        print("answered" if theirs.recv(512) else "")
except OSError as error:
    print(type(error).__name__)
print(attempt("93.184.216.36"))
"""


def test_what_the_agent_says_about_names_counts_for_nothing(world: World) -> None:
    """An address gets no name by forged answers, nor by asking another server."""
    assert world(python(FORGE)).lines == ["hello", "answered", "hello"]
    seen = world.supervised(python(FORGE))
    assert (seen.lines, seen.reached) == (["PermissionError"] * 3, [])
    assert seen.asked == ["evil.example.com"]


def test_a_name_that_leads_inside_needs_a_rule_for_the_address(world: World) -> None:
    """Whoever owns the domain, or any name beneath it, could otherwise open the machine's own services."""
    command = python(HELLO, "inner.example.com")
    assert world(command).reached == ["127.0.0.1"]
    assert world.supervised(command).reached == []
    inside = POLICY + "  - {id: inside, connect: {addresses: [127.0.0.1], ports: [443]}}\n"
    assert world.supervised(command, inside).reached == ["127.0.0.1"]


def test_a_socket_that_is_not_connected_is_served_where_the_port_is_free(world: World) -> None:
    """As musl asks: the answer must come from port 53, which an ordinary user cannot listen on."""
    script = """
import re, socket, struct
server = re.search(r"nameserver (\\S+)", open("/etc/resolv.conf").read())[1]
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours:
    ours.settimeout(20)
    ours.sendto(struct.pack(">6H", 7, 0x0100, 1, 0, 0, 0) + b"\\3api\\7example\\3com\\0\\0\\1\\0\\1", (server, 53))
    data, sender = ours.recvfrom(512)
    print(socket.inet_ntoa(data[-4:]), sender == (server, 53))
"""
    assert world(python(script)).lines == ["93.184.216.34 True"]
    root = world.sandbox.uid == 0 or os.getuid() != 0
    assert world.supervised(python(script)).lines == [f"93.184.216.34 {root}"]


def test_a_block_rule_closes_the_name_server_too(world: World) -> None:
    shut = POLICY + "block:\n  - {id: no-loopback, connect: {addresses: [loopback]}}\n"
    seen = world.supervised(python(HELLO, "api.example.com"), shut)
    assert (seen.lines, seen.asked, seen.reached) == (["api.example.com gaierror"], [], [])


def test_exact_names_and_other_files_are_as_they_were(world: World) -> None:
    exact = POLICY.replace("'*.example.com'", "api.example.com")
    show = "print(open('/etc/resolv.conf').read(), end='')"
    assert world.supervised(python(show), exact).lines[1] == f"nameserver {SERVER}"
    assert world.supervised(python(HELLO, "api.example.com"), exact).lines == ["api.example.com hello"]
    lines = world.supervised(python(show)).lines
    assert lines[0].startswith("nameserver 127.")
    assert f"nameserver {SERVER}" not in lines
    assert "search corp.test" in lines


def test_a_dry_run_finds_every_name(world: World) -> None:
    """And what it wrote down is what an enforced run would refuse."""
    policy = world.sandbox.policy(POLICY)
    seen = world(
        world.sandbox.argv(python(HELLO, "api.example.com", "elsewhere.test"), policy, ["--no-witness", "--dry-run"])
    )
    assert seen.lines == ["api.example.com hello", "elsewhere.test hello"]
    assert "would be denied: connect to 93.184.216.36:443" in seen.stderr
    assert "would be denied: connect to 93.184.216.34:443" not in seen.stderr
