"""Sockets: what is allowed gives what it gives natively, what is not allowed reaches nobody."""

import contextlib
import os
import select
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.conftest import Result, Sandbox

pytestmark = pytest.mark.kernel

# What an agent that runs as root has left of root's power: the control must have no more.
POWERLESS = ("setpriv", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all")
LOOPBACK = """
extends: [base]
allow:
  - {id: program, exec: {paths: ["${program}"]}}
  - {id: workspace, file: {do: [all], paths: ["${workspace}/**"]}}
  - {id: bind, bind: {addresses: [any]}}
  - {id: connect, connect: {addresses: [loopback]}}
  - {id: unix, unix: {do: [connect, bind], paths: ["${workspace}/**"]}}
"""
NOTHING = 'extends: [base]\nallow:\n  - {id: program, exec: {paths: ["${program}"]}}\n'


def rule(text: str) -> str:
    return f"{NOTHING}  - {{id: tested, {text}}}\n"


def lines(result: Result) -> list[str]:
    assert result.status == 0, result.stdout + result.stderr
    return result.stdout.splitlines()


def both(sandbox: Sandbox, program: Path, policy: str) -> tuple[list[str], list[str], Result]:
    """Run a program natively and under a policy, each time in an empty workspace."""
    native = lines(sandbox.native([*POWERLESS, str(program)]))
    # Not even its owner may look into a directory that a group has closed.
    subprocess.run(["find", sandbox.workspace, "-mindepth", "1", "-delete"], check=True)
    supervised = sandbox.run([str(program)], sandbox.policy(policy))
    return native, lines(supervised), supervised


# Results without which the comparison would show nothing: each was seen, natively, to be the interesting one.
EXPECTED = {
    "net_inet": {
        "tcp.connect 0 -",
        "tcp.again -1 EISCONN",
        "tcp.text hellohellohello",
        "nonblocking.connect -1 EINPROGRESS",
        "nonblocking.error 0 -",
        "refused.blocking -1 ECONNREFUSED",
        "refused.error 1 -",
        "waiting.already -1 EALREADY",
        "waiting.interrupted -1 EINTR",
        "waiting.restarted 0 -",
        "addresses.in use -1 EADDRINUSE",
        "addresses.not available -1 EADDRNOTAVAIL",
        "addresses.listening unbound 0.0.0.0 port 16",
        "disconnect.dissolve 0 -",
        "disconnect.unix dgram 0 -",
        "lengths.connect 15 -1 EINVAL",
        "lengths.connect 128 0 -",
        "lengths.six connect 23 -1 EINVAL",
        "lengths.six connect 24 0 -",
        "families.mapped peer ::ffff:127.0.0.1 port 28",
        "families.unspecified peer 127.0.0.1 port 16",
        "families.udp no family 4 -",
        "udp.empty received 0 -",
        "udp.sendmmsg, second bad 1 -",
        "udp.too long -1 EMSGSIZE",
        "bad pointers.sendmsg vector -1 EFAULT",
        "no sockets.connect, address bad -1 EBADF",
        "fast open.text early",
    },
    "net_unix": {
        "stream.own unix 9 'stream~'",
        "stream.mode 488 -",
        "stream.wrong type -1 EPROTOTYPE",
        "stream.closed -1 ECONNREFUSED",
        "stream.unlinked -1 ENOENT",
        "datagram.from unix 9 'dgram2~'",
        "datagram.reply received 4 -",
        "packets.received more 4 -",
        "names.relative own unix 19 'directory/inside~'",
        "names.first own again unix 19 'directory/inside~'",
        "names.through a link 0 -",
        "names.bind 108 0 -",
        "names.connect 108 0 -",
        "names.bind 109 -1 EINVAL",
        "forbidden directory.connect -1 EACCES",
        "waits.nonblocking -1 EAGAIN",
        "waits.child 0 -",
        "broken pipes.signals 5 -",
        "broken pipes.default 13 -",
        "rights.text hello",
        "rights.most received 253 -",
        "rights.one too many -1 EINVAL",
    },
    "net_large": {
        "tcp.sendmsg 8388608 -",
        "tcp.lengths 8388608 -",
        "unix.sendmsg of parts 8388608 -",
        "partly.interrupted, some 1 -",
        "cut off.then -1 EPIPE",
    },
}


@pytest.mark.parametrize("name", EXPECTED)
def test_every_call_gives_what_it_gives_natively(sandbox: Sandbox, victims: Path, name: str) -> None:
    native, supervised, result = both(sandbox, victims / name, LOOPBACK)
    assert EXPECTED[name] - set(native) == set()
    assert [line for line in native if ".arrived" in line and not line.endswith(" 0 -")] == []
    assert [line for line in native if ".ended" in line and not line.endswith(" 0 -")] == []
    assert supervised == native
    assert result.denials() == []


def test_what_a_broker_cannot_hide(sandbox: Sandbox, victims: Path) -> None:
    """Differences that are the kernel's: it stamps the process that makes the call, and keeps the name it was told.

    A send with MSG_ZEROCOPY would let the kernel read the supervisor's buffer after the answer, so it is refused with
    the errno upon which callers copy.
    """
    native, supervised, _ = both(sandbox, victims / "net_limits", LOOPBACK)
    assert set(native) - set(supervised) == {
        "credentials.process 1 -",
        "credentials.server process 1 -",
        "passed.process of sendmsg 1 -",
        "answers.from the name 1 -",
        "zero copy.asked for 65536 -",
    }
    assert set(supervised) - set(native) == {
        "credentials.process 0 -",
        "credentials.server process 0 -",
        "passed.process of sendmsg 0 -",
        "answers.from the name 0 -",
        "zero copy.asked for -1 ENOBUFS",
    }
    # What has to hold all the same: the user, and that an answer to the name arrives.
    assert {"credentials.user 1 -", "credentials.server user 1 -", "answers.answered 2 -"} <= set(supervised)


class Target:
    """Live sockets outside of the run: whatever arrives at them can be counted."""

    def __init__(self, family: int, address: str) -> None:
        self.tcp, self.udp = socket.socket(family, socket.SOCK_STREAM), socket.socket(family, socket.SOCK_DGRAM)
        self.tcp.bind((address, 0))
        self.tcp.listen(64)
        self.port: int = self.tcp.getsockname()[1]
        self.udp.bind((address, self.port))
        for each in (self.tcp, self.udp):
            each.setblocking(False)

    def arrivals(self) -> tuple[int, int]:
        """Return how many connections and datagrams have come since the last look."""
        counts = [0, 0]
        with contextlib.suppress(BlockingIOError):
            while True:
                self.tcp.accept()[0].close()
                counts[0] += 1
        with contextlib.suppress(BlockingIOError):
            while True:
                self.udp.recv(100)
                counts[1] += 1
        return counts[0], counts[1]

    def close(self) -> None:
        self.tcp.close()
        self.udp.close()


@pytest.fixture
def target() -> Iterator[Target]:
    made = Target(socket.AF_INET, "127.0.0.1")
    yield made
    made.close()


@pytest.fixture
def target6() -> Iterator[Target]:
    made = Target(socket.AF_INET6, "::1")
    yield made
    made.close()


TCP_WAYS = ("connect", "fastopen")
UDP_WAYS = ("connect", "sendto", "sendto-high", "sendmsg", "sendmmsg")
SPELLINGS = ("127.0.0.1", "0.0.0.0", "::ffff:127.0.0.1", "::ffff:0.0.0.0")
SPELLINGS6 = ("::1", "::")


def attempts(ways: tuple[str, ...], protocol: str, addresses: tuple[str, ...], port: int) -> list[str]:
    return [f"{way},{protocol}{'6' if ':' in host else '4'},{host},{port}" for host in addresses for way in ways]


def every_way(target: Target, addresses: tuple[str, ...]) -> list[str]:
    return attempts(TCP_WAYS, "tcp", addresses, target.port) + attempts(UDP_WAYS, "udp", addresses, target.port)


class TestInternet:
    """Each deny has its control: the same attempt natively, and under a policy with a rule, arrives."""

    @pytest.mark.parametrize("version", [4, 6])
    def test_no_rule_no_way_and_no_spelling(
        self, sandbox: Sandbox, victims: Path, target: Target, target6: Target, version: int
    ) -> None:
        goal, spellings = (target, SPELLINGS) if version == 4 else (target6, SPELLINGS6)
        address = "127.0.0.1" if version == 4 else "::1"
        tries = every_way(goal, spellings)
        command = [str(victims / "net_attempt"), *tries]
        arrived = (len(spellings) * len(TCP_WAYS), len(spellings) * len(UDP_WAYS))
        assert set(lines(sandbox.native(command))) == {"ok"}
        assert goal.arrivals() == arrived
        allowed = sandbox.policy(rule(f"connect: {{addresses: ['{address}'], ports: [{goal.port}]}}"))
        assert set(lines(sandbox.run(command, allowed))) == {"ok"}
        assert goal.arrivals() == arrived
        # The rule is for the neighbour's port: the address alone is not enough.
        forbidden = sandbox.policy(rule(f"connect: {{addresses: ['{address}'], ports: [{goal.port ^ 1}]}}"))
        result = sandbox.run(command, forbidden)
        assert lines(result) == ["EACCES"] * len(tries)
        assert goal.arrivals() == (0, 0)
        spelled = f"[{address}]:{goal.port}" if version == 6 else f"{address}:{goal.port}"
        assert {record["target"] for record in result.denials()} == {spelled}
        assert len(result.denials("net.connect")) == len(spellings) * 3  # both ways of TCP, and connect of UDP
        assert len(result.denials("net.send")) == len(spellings) * 4

    def test_a_rule_for_tcp_is_none_for_udp(self, sandbox: Sandbox, victims: Path, target: Target) -> None:
        tcp = attempts(TCP_WAYS, "tcp", ("127.0.0.1",), target.port)
        udp = attempts(UDP_WAYS, "udp", ("127.0.0.1",), target.port)
        command = [str(victims / "net_attempt"), *tcp, *udp]
        assert set(lines(sandbox.native(command))) == {"ok"}
        assert target.arrivals() == (2, 5)
        text = f"connect: {{addresses: [127.0.0.1], ports: [{target.port}], protocols: [tcp]}}"
        assert lines(sandbox.run(command, sandbox.policy(rule(text)))) == ["ok"] * 2 + ["EACCES"] * 5
        assert target.arrivals() == (2, 0)

    def test_udp_lite_is_judged_as_udp(self, sandbox: Sandbox, victims: Path) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_UDPLITE) as receiver:
            receiver.bind(("127.0.0.1", 0))
            receiver.setblocking(False)
            port = receiver.getsockname()[1]
            command = [str(victims / "net_attempt"), *attempts(UDP_WAYS, "lit", ("127.0.0.1",), port)]
            assert lines(sandbox.native(command)) == ["ok"] * 5
            assert [receiver.recv(9) for _ in range(5)] == [b"x"] * 5
            where = f"addresses: [127.0.0.1], ports: [{port}]"
            allowed = sandbox.policy(rule(f"connect: {{{where}, protocols: [udp]}}"))
            assert lines(sandbox.run(command, allowed)) == ["ok"] * 5
            assert [receiver.recv(9) for _ in range(5)] == [b"x"] * 5
            for refused in (f"{where}, protocols: [tcp]", f"addresses: [127.0.0.1], ports: [{port ^ 1}]"):
                result = sandbox.run(command, sandbox.policy(rule(f"connect: {{{refused}}}")))
                assert lines(result) == ["EACCES"] * 5
                assert {record["protocol"] for record in result.denials()} == {"udp"}
            with pytest.raises(BlockingIOError):
                receiver.recv(9)

    def test_a_block_rule_holds_for_every_spelling(self, sandbox: Sandbox, victims: Path, target: Target) -> None:
        tries = every_way(target, SPELLINGS)
        text = rule("connect: {addresses: [any]}")
        command = [str(victims / "net_attempt"), *tries]
        assert set(lines(sandbox.run(command, sandbox.policy(text)))) == {"ok"}
        assert target.arrivals() == (8, 20)
        text += f"block:\n  - {{id: shut, connect: {{addresses: [127.0.0.1], ports: [{target.port}]}}}}\n"
        result = sandbox.run(command, sandbox.policy(text))
        assert lines(result) == ["EACCES"] * len(tries)
        assert {record["rule"] for record in result.denials()} == {"shut"}
        assert target.arrivals() == (0, 0)

    def test_bind_needs_a_rule(self, sandbox: Sandbox, victims: Path) -> None:
        tries = ["bind,tcp4,127.0.0.1,0", "bind,udp4,127.0.0.1,0", "bind,tcp6,::1,0", "bind,tcp6,::ffff:127.0.0.1,0"]
        tries += ["listen,tcp4", "listen,tcp6", "bind,tcp4,0.0.0.0,0"]
        command = [str(victims / "net_attempt"), *tries]
        assert set(lines(sandbox.native(command))) == {"ok"}
        allowed = sandbox.policy(rule("bind: {addresses: [loopback], ports: [0]}"))
        # To listen on a socket that was never bound is to bind it to every address.
        assert lines(sandbox.run(command, allowed)) == ["ok"] * 4 + ["EACCES"] * 3
        result = sandbox.run(command, sandbox.policy(NOTHING))
        assert lines(result) == ["EACCES"] * 7
        assert len(result.denials("net.bind")) == 7

    def test_partial_failure_of_many_messages(self, sandbox: Sandbox, victims: Path, target: Target) -> None:
        """The first message may go, the second may not: as natively after an error, one is reported as sent."""
        script = (
            "import ctypes, os, socket, struct, sys\n"
            "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
            "names = [struct.pack('=H', 2) + int(p).to_bytes(2, 'big') + bytes((127, 0, 0, 1)) + bytes(8)"
            " for p in sys.argv[1:]]\n"
            "keep = [ctypes.create_string_buffer(n, 16) for n in names]\n"
            "data = ctypes.create_string_buffer(b'x', 1)\n"
            "vector = ctypes.create_string_buffer(struct.pack('=QQ', ctypes.addressof(data), 1), 16)\n"
            "head = b''.join(struct.pack('=QI4xQQQQi4xI4x', ctypes.addressof(k), 16, ctypes.addressof(vector), 1,"
            " 0, 0, 0, 0) for k in keep)\n"
            "print(ctypes.CDLL(None).sendmmsg(s.fileno(), head, 2, 0))\n"
        )
        text = f"extends: [python]\nallow:\n  - {{id: tested, connect: {{addresses: [127.0.0.1], ports: [{target.port}]}}}}\n"
        result = sandbox.run(["/usr/bin/python3", "-c", script, str(target.port), "9"], sandbox.policy(text))
        assert lines(result) == ["1"]
        assert target.arrivals() == (0, 1)
        assert [record["target"] for record in result.denials("net.send")] == ["127.0.0.1:9"]
        second = sandbox.run(["/usr/bin/python3", "-c", script, "9", str(target.port)], sandbox.policy(text))
        assert lines(second) == ["-1"]
        assert target.arrivals() == (0, 0)


SOCKETS = {  # family, type, protocol: name in the record
    "16,3,0": "netlink",
    "17,3,768": "packet",
    "17,10,768": "packet",
    "40,1,0": "vsock",
    "38,5,0": "alg",
    "15,3,2": "key",
    "30,1,0": "tipc",
    "44,3,0": "xdp",
    "31,3,1": "bluetooth",
    "29,3,1": "can",
    "45,1,0": "mctp",
    "2,5,132": "inet/5/132",  # SCTP
    "2,1,132": "inet/1/132",
    "2,1,262": "inet/1/262",  # MPTCP
    "10,1,262": "inet6/1/262",
    "2,3,1": "inet/3/1",  # raw
    "2,3,255": "inet/3/255",
    "2,2,1": "inet/2/1",  # ping
    "10,2,58": "inet6/2/58",
    "2,10,3": "inet/10/3",  # SOCK_PACKET, which the kernel turns into a packet socket
}
EVERYWHERE = {"16,3,0", "17,3,768", "2,3,1", "2,3,255"}  # root can have these on any kernel


class TestFamilies:
    """Sockets that are no plain TCP, UDP or Unix socket."""

    def test_other_families_are_refused_and_named(self, sandbox: Sandbox, victims: Path) -> None:
        command = [str(victims / "net_attempt"), *(f"socket,{each}" for each in SOCKETS)]
        native = dict(zip(SOCKETS, lines(sandbox.native(command)), strict=True))
        assert {each for each in (EVERYWHERE if sandbox.uid == 0 else {"16,3,0"}) if native[each] != "ok"} == set()
        assert not {"EACCES"} & {native[each] for each in native if each not in ("2,2,1", "10,2,58")}
        result = sandbox.run(command, sandbox.policy(NOTHING))
        assert lines(result) == ["EACCES"] * len(SOCKETS)
        assert [record["target"] for record in result.denials("net.socket")] == list(SOCKETS.values())

    def test_a_named_family_is_allowed(self, sandbox: Sandbox, victims: Path) -> None:
        command = [str(victims / "net_attempt"), "socket,16,3,0", "socket,10,1,0"]
        result = sandbox.run(command, sandbox.policy(rule("socket: {families: [netlink]}")))
        assert lines(result) == ["ok", "ok"]

    def test_a_blocked_family_is_refused(self, sandbox: Sandbox, victims: Path) -> None:
        command = [str(victims / "net_attempt"), "socket,2,1,0", "socket,10,1,0"]
        text = NOTHING + "block:\n  - {id: old, socket: {families: [inet6]}}\n"
        result = sandbox.run(command, sandbox.policy(text))
        assert lines(result) == ["ok", "EACCES"]
        assert result.denials()[0]["rule"] == "old"

    def test_source_routes_are_refused(self, sandbox: Sandbox, victims: Path) -> None:
        command = [
            str(victims / "net_attempt"),
            "route,option,127.0.0.1,9",
            "route,cmsg,127.0.0.1,9",
            "route,cmsg6,::1,9",
        ]
        native = lines(sandbox.native(command))
        if sandbox.uid == 0:
            assert native[:2] == ["ok", "ok"]  # newer kernels want a capability for it
        # Whether a message may carry a routing header depends on the kernel's configuration (mobile IPv6).
        assert native[2] in ("ok", "EINVAL")
        result = sandbox.run(command, sandbox.policy(rule("connect: {addresses: [any]}")))
        assert lines(result) == ["EPERM"] * 3
        assert [record["target"] for record in result.denials()] == ["ip-options"] * 3

    def test_routing_headers_are_refused(self, sandbox: Sandbox, victims: Path) -> None:
        """Segment routing sends a datagram to an address that nobody judged, and takes no capability."""
        command = [str(victims / "net_attempt"), "route,option6,::1,9", "route,old-option6,::1,9"]
        assert lines(sandbox.native([*POWERLESS, *command])) == ["ok"] * 2
        result = sandbox.run(command, sandbox.policy(rule("connect: {addresses: [any]}")))
        assert lines(result) == ["EPERM"] * 2
        assert [record["target"] for record in result.denials()] == ["ip-options"] * 2

    def test_explicit_credentials_are_refused(self, sandbox: Sandbox, victims: Path) -> None:
        """They would have to name the supervisor, which makes the call."""
        command = [str(victims / "net_attempt"), "credentials"]
        assert lines(sandbox.native(command)) == ["ok"]
        result = sandbox.run(command, sandbox.policy(NOTHING))
        assert lines(result) == ["EPERM"]
        assert [record["target"] for record in result.denials()] == ["credentials"]


@pytest.fixture
def outside(sandbox: Sandbox) -> Iterator[Path]:
    """A stream and a datagram socket of somebody else, in a directory that no rule names."""
    directory = sandbox.root / "outside"
    directory.mkdir()
    opened = []
    for name, kind in (("stream", socket.SOCK_STREAM), ("dgram", socket.SOCK_DGRAM)):
        made = socket.socket(socket.AF_UNIX, kind)
        made.bind(str(directory / name))
        (directory / name).chmod(0o777)
        opened.append(made)
    opened[0].listen(16)
    (sandbox.workspace / "link").symlink_to(directory / "stream")
    yield directory
    for made in opened:
        made.close()


class TestUnix:
    """Unix sockets need a rule for their path; there is no rule for the abstract namespace."""

    def test_no_rule_no_socket(self, sandbox: Sandbox, victims: Path, outside: Path) -> None:
        tries = [f"unix,stream,{outside}/stream", f"unix,dgram,{outside}/dgram", f"unix,sendto,{outside}/dgram"]
        tries += [f"unix,sendmsg,{outside}/dgram", "unix,stream,link"]
        command = [str(victims / "net_attempt"), *tries]
        assert lines(sandbox.native(command)) == ["ok"] * 5
        files = '  - {id: files, file: {do: [all], paths: ["/**"]}}\n'
        allowed = sandbox.policy(rule(f'unix: {{do: [connect], paths: ["{outside}/*"]}}'))
        assert lines(sandbox.run(command, allowed)) == ["ok"] * 5
        # File rules open no socket, nor does the rule for the link that leads there.
        denied = rule('unix: {do: [connect, bind], paths: ["${workspace}/**"]}') + files
        result = sandbox.run(command, sandbox.policy(denied))
        assert lines(result) == ["EACCES"] * 5
        targets = [f"{outside}/stream", *[f"{outside}/dgram"] * 3, f"{outside}/stream"]
        assert [record["target"] for record in result.denials("unix.connect")] == targets

    def test_no_rule_no_name(self, sandbox: Sandbox, victims: Path) -> None:
        command = [str(victims / "net_attempt"), "unix-bind,stream,mine"]
        connect_only = sandbox.policy(rule('unix: {do: [connect], paths: ["${workspace}/**"]}'))
        result = sandbox.run(command, connect_only)
        assert lines(result) == ["EACCES"]
        assert result.denials("unix.bind")[0]["target"] == f"{sandbox.workspace}/mine"
        assert not (sandbox.workspace / "mine").exists()
        allowed = sandbox.policy(rule('unix: {do: [bind], paths: ["${workspace}/mine"]}'))
        assert lines(sandbox.run(command, allowed)) == ["ok"]
        assert (sandbox.workspace / "mine").is_socket()
        (sandbox.workspace / "mine").unlink()
        assert lines(sandbox.native(command)) == ["ok"]

    def test_the_abstract_namespace_is_closed(self, sandbox: Sandbox, victims: Path) -> None:
        name = f"sentry-test-{os.getpid()}-{sandbox.uid}"
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as live,
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as box,
        ):
            live.bind(f"\0{name}")
            live.listen(4)
            box.bind(f"\0{name}-box")
            tries = [f"unix,stream,@{name}", f"unix,sendto,@{name}-box", f"unix,sendmsg,@{name}-box"]
            tries += [f"unix-bind,stream,@{name}-mine"]
            command = [str(victims / "net_attempt"), *tries]
            assert lines(sandbox.native(command)) == ["ok"] * 4
            result = sandbox.run(command, sandbox.policy(rule('unix: {do: [connect, bind], paths: ["/**"]}')))
        assert lines(result) == ["EACCES"] * 4
        assert [record["target"][:1] for record in result.denials()] == ["@"] * 4


class Conversation:
    """A supervised run that waits at each `wait` until the test has changed the world."""

    def __init__(self, sandbox: Sandbox, policy: Path, command: list[str]) -> None:
        self._process = sandbox.popen(
            sandbox.argv(command, policy), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def until_waiting(self) -> list[str]:
        """Return what was printed up to the next `waiting`."""
        assert self._process.stdout is not None
        output, text = self._process.stdout.fileno(), b""
        while not text.endswith(b"waiting\n"):
            ready = readable(output, 30)
            assert ready, f"no answer after {text!r}"
            more = os.read(output, 4096)
            assert more, f"ended after {text!r}"
            text += more
        return text.decode().splitlines()[:-1]

    def go_on(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def end(self) -> list[str]:
        out, err = self._process.communicate(timeout=60)
        assert self._process.returncode == 0, out + err
        return out.splitlines()


OWN = """
extends: [base]
allow:
  - {id: program, exec: {paths: ["${program}"]}}
  - {id: workspace, file: {do: [all], paths: ["${workspace}/**"]}}
  - {id: bind, bind: {addresses: [loopback]}}
  - {id: own, connect: {own: true}}
"""


def readable(source: Any, seconds: int) -> list[tuple[int, int]]:
    """Wait until there is something to read; select(2) takes no descriptor as high as they can be here."""
    waiting = select.poll()
    waiting.register(source, select.POLLIN)
    return waiting.poll(seconds * 1000)


class TestOwnPorts:
    """`connect: {own: true}` means the ports this run listens on, as long as it is this run that does."""

    @pytest.mark.parametrize("kind", ["tcp4", "tcp6", "udp4", "udp6", "lit4"])
    def test_the_runs_own_server_is_reached(self, sandbox: Sandbox, victims: Path, kind: str) -> None:
        command = [str(victims / "net_attempt"), f"serve,{kind},port", f"connect-file,{kind},port"]
        assert lines(sandbox.run(command, sandbox.policy(OWN))) == ["ok", "ok"]

    def test_nobody_elses_server_is_reached(self, sandbox: Sandbox, victims: Path, target: Target) -> None:
        tries = every_way(target, SPELLINGS)
        command = [str(victims / "net_attempt"), *tries]
        assert set(lines(sandbox.native(command))) == {"ok"}
        assert target.arrivals() == (8, 20)
        result = sandbox.run([*command[:1], "serve,tcp4,port", "connect-file,tcp4,port", *tries], sandbox.policy(OWN))
        assert lines(result) == ["ok", "ok"] + ["EACCES"] * len(tries)
        assert target.arrivals() == (0, 0)

    @pytest.mark.parametrize("kind", ["tcp4", "udp4"])
    def test_a_port_that_changed_hands_is_closed(self, sandbox: Sandbox, victims: Path, kind: str) -> None:
        tries = [f"serve,{kind},port", f"connect-file,{kind},port", "stop", "wait", f"connect-file,{kind},port"]
        talk = Conversation(sandbox, sandbox.policy(OWN), [str(victims / "net_attempt"), *tries])
        assert talk.until_waiting() == ["ok", "ok", "ok"]
        port = int((sandbox.workspace / "port").read_text())
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp4" else socket.SOCK_DGRAM) as taker:
            taker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taker.bind(("127.0.0.1", port))
            if kind == "tcp4":
                taker.listen(4)
            native = sandbox.native([str(victims / "net_attempt"), f"connect-file,{kind},port"])
            assert lines(native) == ["ok"]
            if kind == "tcp4":
                taker.accept()[0].close()
            else:
                taker.recv(10)
            talk.go_on()
            assert talk.end() == ["EACCES"]
            assert readable(taker, 0) == []

    def test_a_port_of_udp_is_none_of_anothers_udp_lite(self, sandbox: Sandbox, victims: Path) -> None:
        """The kernel gives out the ports of both apart, so one number can be the run's and somebody else's."""
        tries = ["serve,udp4,port", "connect-file,udp4,port", "wait", "connect-file,lit4,port"]
        talk = Conversation(sandbox, sandbox.policy(OWN), [str(victims / "net_attempt"), *tries])
        assert talk.until_waiting() == ["ok", "ok"]
        port = int((sandbox.workspace / "port").read_text())
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_UDPLITE) as other:
            other.bind(("127.0.0.1", port))
            native = sandbox.native([str(victims / "net_attempt"), "connect-file,lit4,port"])
            assert lines(native) == ["ok"]
            assert other.recv(10) == b"x"
            talk.go_on()
            assert talk.end() == ["EACCES"]
            assert readable(other, 0) == []

    def test_a_port_that_is_shared_is_closed(self, sandbox: Sandbox, victims: Path) -> None:
        """With SO_REUSEPORT the kernel deals connections out; another user's share is not the run's own."""
        script = (
            "import socket, sys\n"
            "s = socket.socket()\n"
            "s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)\n"
            "s.bind(('127.0.0.1', 0))\n"
            "s.listen(8)\n"
            "print(s.getsockname()[1], flush=True)\n"
            "socket.create_connection(s.getsockname()).close()\n"
            "print('waiting', flush=True)\n"
            "sys.stdin.readline()\n"
            "try:\n    socket.create_connection(s.getsockname())\n    print('ok')\n"
            "except OSError as error:\n    print(error.errno)\n"
        )
        policy = sandbox.policy(OWN.replace("[base]", "[python]"))
        talk = Conversation(sandbox, policy, ["/usr/bin/python3", "-c", script])
        (port,) = talk.until_waiting()
        sharer = (
            "import socket, sys\n"
            "s = socket.socket()\n"
            "s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)\n"
            f"s.bind(('127.0.0.1', {port}))\n"
            "s.listen(8)\n"
            "print('listening', flush=True)\n"
            "sys.stdin.readline()\n"
        )
        # The kernel shares a port among sockets of one user only.
        with sandbox.popen(
            ["/usr/bin/python3", "-c", sharer], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "listening\n"
            talk.go_on()
            assert talk.end() == ["13"]
            process.communicate("end\n", timeout=20)

    def test_answers_to_a_datagram_client_arrive(self, sandbox: Sandbox) -> None:
        script = (
            "import socket\n"
            "server, client = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))\n"
            "server.bind(('127.0.0.1', 0))\n"
            "client.sendto(b'who?', server.getsockname())\n"
            "text, sender = server.recvfrom(10)\n"
            "server.sendto(b'me', sender)\n"
            "print(text, client.recv(10))\n"
            "other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
            "other.connect(server.getsockname())\n"
            "other.send(b'again')\n"
            "text, sender = server.recvfrom(10)\n"
            "server.sendto(b'still me', sender)\n"
            "print(text, other.recv(10))\n"
        )
        command = ["/usr/bin/python3", "-c", script]
        native = sandbox.native(command)
        result = sandbox.run(command, sandbox.policy(OWN.replace("[base]", "[python]")))
        assert lines(result) == lines(native) == ["b'who?' b'me'", "b'again' b'still me'"]


class TestHosts:
    """Names in rules are resolved by the supervisor and matched by address."""

    def test_a_named_host_is_reached_on_its_port_alone(self, sandbox: Sandbox, victims: Path, target: Target) -> None:
        other = Target(socket.AF_INET, "127.0.0.1")
        try:
            tries = [f"connect,tcp4,127.0.0.1,{target.port}", f"connect,tcp4,127.0.0.1,{other.port}"]
            command = [str(victims / "net_attempt"), *tries, f"connect,udp4,127.0.0.2,{target.port}"]
            assert lines(sandbox.native(command)) == ["ok", "ok", "ok"]
            target.arrivals(), other.arrivals()
            text = rule(f"connect: {{hosts: [localhost], ports: [{target.port}]}}")
            result = sandbox.run(command, sandbox.policy(text))
            assert lines(result) == ["ok", "EACCES", "EACCES"]
            assert (target.arrivals(), other.arrivals()) == ((1, 0), (0, 0))
        finally:
            other.close()

    def test_the_agent_finds_the_name_in_its_hosts_file(self, sandbox: Sandbox) -> None:
        text = "extends: [shell]\nallow:\n  - {id: tested, connect: {hosts: [localhost]}}\n"
        seen = sandbox.run(["cat", "/etc/hosts"], sandbox.policy(text)).stdout
        machine = Path("/etc/hosts").read_text()
        assert seen.startswith(machine)
        assert "127.0.0.1\tlocalhost\n" in seen[len(machine) :]
        without = sandbox.run(["cat", "/etc/hosts"], sandbox.policy("extends: [shell]\n"))
        assert without.stdout == machine
