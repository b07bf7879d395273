"""What counts as a host's address is what the supervisor found, for as long as it says; questions only choose names."""

import os
import socket
import struct
import threading
from pathlib import Path

import pytest

from helm_sentry.broker import names as names_module
from helm_sentry.broker.name_server import NameServer
from helm_sentry.broker.names import Names
from helm_sentry.errors import AuditError
from helm_sentry.policy.engine import compile_policy
from helm_sentry.policy.loader import load
from tests.unit.decode.test_dns import asking

WILD = "schema: helm-sentry/policy/v1\nname: t\nallow:\n  - {id: w, connect: {hosts: ['*.example.com', one.test]}}\n"
PLAIN = "schema: helm-sentry/policy/v1\nname: t\nallow: []\n"
OPEN = WILD + "  - {id: dns, connect: {addresses: [any], ports: [53]}}\n"


class Zone:
    """A resolver's view of the world, and what it was asked."""

    def __init__(self) -> None:
        self.addresses: dict[str, frozenset[str] | None] = {}
        self.asked: list[str] = []
        self.may_answer = threading.Event()
        self.may_answer.set()

    def __call__(self, host: str) -> frozenset[str] | None:
        self.asked.append(host)
        assert self.may_answer.wait(30)
        return self.addresses.get(host, frozenset())


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Zone:
    zone = Zone()
    monkeypatch.setattr(names_module, "resolve", zone)
    return zone


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(names_module.time, "monotonic", lambda: now[0])
    return now


class Said:
    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self.failures: list[Exception] = []

    def __call__(self, code: str, detail: str) -> None:
        self.lines.append((code, detail))


def made(text: str, said: Said) -> Names:
    return Names(compile_policy(load(text)), said, said.failures.append)


def ask(server: NameServer, message: bytes) -> tuple[int, list[str]]:
    """The code and the addresses that a real socket gets."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(30)
        client.sendto(message, (server.address, server._port))
        return told(client.recv(4096))


def told(answer: bytes) -> tuple[int, list[str]]:
    identity, bits, _, count, _, _ = struct.unpack(">6H", answer[:12])
    assert identity == 0xBEEF
    records = answer[len(answer) - 16 * count :] if count else b""
    return bits & 15, [socket.inet_ntoa(records[at + 12 : at + 16]) for at in range(0, len(records), 16)]


def test_a_name_beneath_a_stated_one_is_looked_up_and_remembered(zone: Zone) -> None:
    said = Said()
    names = made(WILD, said)
    assert names.server
    zone.addresses["api.example.com."] = frozenset({"93.184.216.34"})
    assert names.of("93.184.216.34") == ()
    assert ask(names.server, asking(b"API.example.com")) == (0, ["93.184.216.34"])
    assert names.of("93.184.216.34") == ("api.example.com",)
    assert said.lines == [("name", "api.example.com: 93.184.216.34")]
    ask(names.server, asking(b"api.example.com"))
    assert zone.asked.count("api.example.com.") == 1


@pytest.mark.parametrize("name", ["example.com", "api.example.org", "example.com.evil.net", "xexample.com"])
def test_no_other_name_is_looked_up(zone: Zone, name: str) -> None:
    said = Said()
    names = made(WILD, said)
    assert names.server
    assert ask(names.server, asking(name.encode())) == (3, [])
    assert zone.asked.count(f"{name}.") == 0
    assert [code for code, _ in said.lines] == ["name-refused"]


def test_where_other_servers_may_be_asked_they_are_left_to_answer(
    zone: Zone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = tmp_path / "resolv.conf"
    conf.write_text("search corp\nnameserver 192.0.2.53\noptions ndots:2\n")
    monkeypatch.setattr(names_module, "_RESOLV_CONF", str(conf))
    said = Said()
    free, bound = made(OPEN, said), made(WILD, Said())
    dry = Names(compile_policy(load(WILD)), said, said.failures.append, enforcing=False)
    assert free.server and bound.server and dry.server
    assert ask(free.server, asking(b"other.test")) == ask(dry.server, asking(b"other.test")) == (5, [])
    assert said.lines == []
    assert ask(bound.server, asking(b"other.test")) == (3, [])
    ours, theirs = f"nameserver {free.server.address}\n", f"nameserver {bound.server.address}\n"
    assert read(free, conf) == ours + conf.read_text()
    assert read(bound, conf) == theirs + "search corp\noptions ndots:2\n"
    assert made(PLAIN, Said()).open_instead(str(conf)) == -1


def read(names: Names, path: Path) -> str:
    with os.fdopen(names.open_instead(str(path))) as file:
        return file.read()


@pytest.mark.parametrize(("found", "code", "words"), [(frozenset(), 3, "no address"), (None, 2, "nobody answered")])
def test_nothing_found_and_nobody_there_are_two_answers(
    zone: Zone, found: frozenset[str] | None, code: int, words: str
) -> None:
    said = Said()
    names = made(WILD, said)
    assert names.server
    zone.addresses["api.example.com."] = found
    assert ask(names.server, asking(b"api.example.com")) == (code, [])
    assert said.lines == [("name", f"api.example.com: {words}")], "what left the machine is recorded"


def test_other_kinds_of_record_are_empty(zone: Zone) -> None:
    names = made(WILD, Said())
    assert names.server
    assert ask(names.server, asking(b"api.example.com", 16)) == (0, [])
    assert "api.example.com." not in zone.asked


def test_an_exact_name_is_answered_from_what_is_known(zone: Zone) -> None:
    zone.addresses["one.test"] = frozenset({"192.0.2.7"})
    names = made(WILD, Said())
    assert names.server
    assert ask(names.server, asking(b"one.test")) == (0, ["192.0.2.7"])
    assert names.of("192.0.2.7") == ("one.test",)


def test_garbage_is_not_answered_and_stops_nothing(zone: Zone) -> None:
    names = made(WILD, Said())
    assert names.server
    zone.addresses["api.example.com."] = frozenset({"93.184.216.34"})
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(30)
        client.connect((names.server.address, names.server._port))
        for message in (b"", b"\0" * 12, b"\xff" * 512, asking(b"api.example.com")):
            client.send(message)
        assert told(client.recv(4096)) == (0, ["93.184.216.34"])


def test_an_address_is_forgotten(zone: Zone, clock: list[float]) -> None:
    names = made(WILD, Said())
    assert names.learn("a.example.com", frozenset({"192.0.2.1", "192.0.2.2"}))
    clock[0] += 59
    assert names.fresh("a.example.com") == {"192.0.2.1", "192.0.2.2"}
    clock[0] += 2
    assert names.fresh("a.example.com") == frozenset()
    assert names.learn("a.example.com", frozenset({"192.0.2.2"}))
    clock[0] += 540  # of the first look-up ten minutes ago
    assert (names.of("192.0.2.1"), names.of("192.0.2.2")) == ((), ("a.example.com",))
    clock[0] += 61
    assert names.of("192.0.2.2") == ()


def test_many_names_are_not_remembered_for_ever(zone: Zone, clock: list[float]) -> None:
    names = made(WILD, Said())
    for number in range(names_module._MOST_LEARNT):
        assert names.learn(f"n{number}.example.com", frozenset({"192.0.2.1"}))
    assert not names.learn("one-more.example.com", frozenset({"192.0.2.2"}))
    assert names.learn("n0.example.com", frozenset({"192.0.2.3"}))
    assert names.of("192.0.2.2") == ()
    clock[0] += 601
    assert names.learn("one-more.example.com", frozenset({"192.0.2.2"}))
    assert names.of("192.0.2.2") == ("one-more.example.com",)
    assert names._names_of.keys() == {"192.0.2.2"}


def test_too_many_names_are_an_answer_and_a_record(zone: Zone) -> None:
    said = Said()
    names = made(WILD, said)
    assert names.server
    for number in range(names_module._MOST_LEARNT):
        names.learn(f"n{number}.example.com", frozenset({"192.0.2.1"}))
    zone.addresses["more.example.com."] = frozenset({"93.184.216.34"})
    assert ask(names.server, asking(b"more.example.com")) == (5, [])
    assert [code for code, _ in said.lines] == ["too-many-names"]
    assert names.of("93.184.216.34") == ()


def test_a_flood_of_names_fails_and_one_name_is_looked_up_once(zone: Zone) -> None:
    names = made(WILD, Said())
    assert names.server
    zone.may_answer.clear()
    zone.addresses["n0.example.com."] = frozenset({"93.184.216.34"})
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(30)
        client.connect((names.server.address, names.server._port))
        for number in range(100):
            client.send(asking(f"n{number}.example.com".encode()))
            client.send(asking(b"n0.example.com"))
        code, _ = told(client.recv(4096))  # while all look-ups are under way
        assert code == 2
        zone.may_answer.set()
        assert 3 in {told(client.recv(4096))[0] for _ in range(150)}
    assert zone.asked.count("n0.example.com.") == 1


def test_a_log_that_is_dead_is_told(zone: Zone) -> None:
    failed = threading.Event()

    def dead(code: str, detail: str) -> None:
        raise AuditError("the disk is full")

    names = Names(compile_policy(load(WILD)), dead, lambda error: failed.set())
    assert names.server
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(asking(b"other.test"), (names.server.address, names.server._port))
        assert failed.wait(30)


def test_a_live_policy_may_be_the_first_with_names(zone: Zone) -> None:
    names = made(PLAIN, Said())
    assert names.server is None
    zone.addresses |= {"one.test": frozenset({"192.0.2.7"}), "api.example.com.": frozenset({"93.184.216.34"})}
    names.extend(compile_policy(load(WILD)))
    assert names.of("192.0.2.7") == ("one.test",)
    assert names.server
    assert ask(names.server, asking(b"api.example.com")) == (0, ["93.184.216.34"])


def test_names_of_the_machine_s_hosts_file_are_known(
    zone: Zone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("192.0.2.9 DB.example.com db # www.example.com\n192.0.2.8 elsewhere.test\n")
    monkeypatch.setattr(names_module, "_HOSTS", str(hosts))
    zone.addresses["db.example.com"] = frozenset({"192.0.2.9"})
    names = made(WILD, Said())
    assert names.of("192.0.2.9") == ("db.example.com",)
    assert "elsewhere.test" not in zone.asked
    assert "www.example.com" not in zone.asked


def test_looking_up_tells_what_is_not_there_from_nobody_there() -> None:
    assert "127.0.0.1" in (names_module.resolve("localhost") or ())
    assert not names_module.resolve("a" * 64 + ".example.com")
