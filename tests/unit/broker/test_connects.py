"""What the receiver was taught of connects it forgets when a port or an address comes to mean something else."""

import contextlib
import socket
from collections.abc import Iterator

import pytest

from helm_sentry.broker import names as names_module
from helm_sentry.broker.connects import Connects
from helm_sentry.broker.names import Names
from helm_sentry.broker.ports import OwnPorts
from helm_sentry.policy.engine import compile_policy
from helm_sentry.policy.loader import load

PLAIN = "schema: helm-sentry/policy/v1\nname: t\nallow: []\n"
NAMED = "schema: helm-sentry/policy/v1\nname: t\nallow:\n  - {id: n, connect: {hosts: [one.test]}}\n"
WILD = "schema: helm-sentry/policy/v1\nname: t\nallow:\n  - {id: w, connect: {hosts: ['*.example.com']}}\n"


class Forgetful:
    """Stands for a receiver: counts how often it forgets, and whether the broker rested."""

    def __init__(self) -> None:
        self.forgotten: list[bool] = []
        self.resting = False

    def forget(self, epoch: int | None = None) -> None:
        assert epoch is None
        self.forgotten.append(self.resting)

    @contextlib.contextmanager
    def between_calls(self) -> Iterator[None]:
        self.resting = True
        yield
        self.resting = False


class World:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, policy: str = PLAIN) -> None:
        self.addresses: dict[str, frozenset[str]] = {}
        monkeypatch.setattr(names_module, "resolve", lambda host: self.addresses.get(host, frozenset()))
        self.names = Names(compile_policy(load(policy)), lambda code, detail: None, lambda error: None)
        self.ports, self.receiver = OwnPorts(), Forgetful()
        self.connects = Connects(self.receiver, self.names, self.ports, self.receiver.between_calls)  # type: ignore[arg-type]


def bound(kind: int = socket.SOCK_STREAM, port: int = 0) -> socket.socket:
    made = socket.socket(type=kind)
    made.bind(("127.0.0.1", port))
    return made


def test_a_port_that_was_taught_and_becomes_the_runs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    with bound() as taught, bound() as other, bound(socket.SOCK_DGRAM) as datagrams:
        port = taught.getsockname()[1]
        world.connects._ports.add(port)
        world.ports.add(other.fileno(), "tcp")
        world.ports.add(datagrams.fileno(), "udp")
        assert world.receiver.forgotten == [] and not world.ports.has_been(port, "tcp")
        world.ports.add(taught.fileno(), "tcp")
        assert world.receiver.forgotten == [False] and world.ports.has_been(port, "tcp")
        world.ports.add(taught.fileno(), "tcp")
        assert world.receiver.forgotten == [False]
    assert world.ports.has_been(port, "tcp")  # when it is closed, too


def test_an_address_of_this_host_that_gets_or_loses_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, NAMED)
    seen = []
    for found in (["192.0.2.1"], ["192.0.2.1", "192.0.2.2"], ["127.0.0.1"], ["127.0.0.1", "192.0.2.1"], ["192.0.2.1"], ["::1"]):  # fmt: skip
        world.names._found("one.test", frozenset(found))
        seen.append(len(world.receiver.forgotten))
    assert seen == [0, 0, 1, 1, 2, 3]
    assert all(world.receiver.forgotten)
    world.names._found("one.test", None)  # a name server that fails changes nothing
    assert world.names.of("::1") == ("one.test",) and len(world.receiver.forgotten) == 3


def test_a_policy_to_come_that_brings_a_name_server(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    world.names.extend(compile_policy(load(NAMED)))
    assert world.receiver.forgotten == []
    world.names.extend(compile_policy(load(WILD)))
    assert world.receiver.forgotten == [True] and world.names.server
