"""Every byte that left for an address is in the log, by the kernel's count; what cannot be counted says so."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.kernel.conftest import PYTHON, Result, Sandbox

pytestmark = pytest.mark.kernel

POLICY = """
extends: [default]
allow:
  - {id: connect, connect: {addresses: [loopback]}}
  - {id: bind-any, bind: {addresses: [any]}}
"""


@contextmanager
def server(answer: bytes = b"", family: int = socket.AF_INET) -> Iterator[tuple[int, Callable[[], bytes]]]:
    """Take one connection, read it to its end, answer; the bytes that arrived are asked for afterwards."""
    got: list[bytes] = []
    with socket.create_server(("127.0.0.1" if family == socket.AF_INET else "::1", 0), family=family) as listener:
        listener.settimeout(30)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                while part := connection.recv(1 << 16):
                    got.append(part)
                connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()

        def arrived() -> bytes:
            thread.join(30)
            assert not thread.is_alive()
            return b"".join(got)

        yield listener.getsockname()[1], arrived


def python(sandbox: Sandbox, code: str) -> Result:
    result = sandbox.run([PYTHON, "-c", f"import socket, os\n{code}"], sandbox.policy(POLICY))
    assert result.status == 0, result.stderr
    assert sandbox.verify(result.directory).returncode == 0
    return result


def traffic(result: Result) -> list[dict[str, Any]]:
    return [record for record in result.records if record["type"] == "traffic"]


WRITES = {
    "sendall": "c.sendall(data)",
    "write(2)": "\nwhile data: data = data[os.write(c.fileno(), data):]",
    "sendmsg": "\nwhile data: data = data[c.sendmsg([data]):]",
    "sendfile": "f = open('data', 'wb'); f.write(data); f.close(); c.sendfile(open('data', 'rb'))",
    "a child": "\nif not os.fork(): c.sendall(data); os._exit(0)\nos.wait()",
}


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=lambda family: family.name)
@pytest.mark.parametrize("how", WRITES)
def test_a_connection_is_counted_however_it_is_written(sandbox: Sandbox, how: str, family: int) -> None:
    with server(b"y" * 77, family) as (port, arrived):
        host = "127.0.0.1" if family == socket.AF_INET else "::1"
        code = f"c = socket.create_connection(({host!r}, {port})); data = bytes(300000); {WRITES[how]}"
        result = python(sandbox, f"{code}\nc.shutdown(1)\nwhile c.recv(100): pass\nc.close()")
        assert arrived() == bytes(300000)
    (record,) = traffic(result)
    assert (record["sent"], record["exact"], record["own"]) == (300000, True, False)
    assert record["received"] in (77, 78)  # the FIN that the other end sent counts as one
    decision = result.records[record["of"]]
    assert (decision["ops"], decision["target"]) == (["net.connect"], record["target"])


def test_what_leaves_after_the_last_process_is_gone_is_counted(sandbox: Sandbox) -> None:
    with server() as (port, arrived):
        code = f"c = socket.create_connection(('127.0.0.1', {port})); c.sendall(b'x' * 50000); os._exit(0)"
        result = python(sandbox, code)
        assert len(arrived()) == 50000
    assert [(record["sent"], record["exact"]) for record in traffic(result)] == [(50000, True)]


def test_a_refused_attempt_sends_nothing(sandbox: Sandbox) -> None:
    with server() as (port, arrived):
        closed = socket.socket()
        closed.bind(("127.0.0.1", 0))
        code = f"""
c = socket.socket()
print(c.connect_ex(('127.0.0.1', {closed.getsockname()[1]})))
c.connect(('127.0.0.1', {port})); c.sendall(b'four'); c.close()
"""
        result = python(sandbox, code)
        assert result.stdout == "111\n"
        assert arrived() == b"four"
    (record,) = traffic(result)
    assert record["target"] == f"127.0.0.1:{port}"
    assert record["sent"] == 4


def test_an_attempt_on_a_connected_socket_does_not_take_its_bytes(sandbox: Sandbox) -> None:
    with server() as (port, arrived), socket.create_server(("127.0.0.1", 0)) as other:
        code = f"""
c = socket.create_connection(('127.0.0.1', {port}))
print(c.connect_ex(('127.0.0.1', {other.getsockname()[1]})))
c.sendall(b'four'); c.close()
"""
        result = python(sandbox, code)
        assert result.stdout == "106\n"
        assert arrived() == b"four"
    assert [record["target"] for record in traffic(result)] == [f"127.0.0.1:{port}"]


def test_a_dissolved_connection_is_counted_before_its_count_is_lost(sandbox: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        code = f"""
import ctypes
c = socket.create_connection(('127.0.0.1', {port})); c.sendall(b'x' * 1000)
print(ctypes.CDLL(None).connect(c.fileno(), bytes(16), 16))
"""
        result = python(sandbox, code)
    assert result.stdout == "0\n"
    assert [(record["sent"], record["exact"]) for record in traffic(result)] == [(1000, False)]


def test_datagrams_are_counted_by_destination(sandbox: Sandbox) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as first, socket.socket(type=socket.SOCK_DGRAM) as second:
        for receiver in (first, second):
            receiver.bind(("127.0.0.1", 0))
        one, two = first.getsockname()[1], second.getsockname()[1]
        code = f"""
c = socket.socket(type=socket.SOCK_DGRAM)
for size in (10, 20, 0): c.sendto(bytes(size), ('127.0.0.1', {one}))
c.sendmsg([bytes(5), bytes(6)], [], 0, ('127.0.0.1', {two}))
d = socket.socket(type=socket.SOCK_DGRAM); d.connect(('127.0.0.1', {two})); d.send(b'unseen')
"""
        result = python(sandbox, code)
        assert [len(second.recv(100)) for _ in range(2)] == [11, 6]
    found = {record["target"]: (record["sent"], record["exact"]) for record in traffic(result)}
    assert found == {f"127.0.0.1:{one}": (30, True), f"127.0.0.1:{two}": (11, False)}


def test_own_servers_are_marked(sandbox: Sandbox) -> None:
    code = """
l = socket.create_server(('127.0.0.1', 0)); c = socket.create_connection(l.getsockname()); s, _ = l.accept()
c.sendall(b'abc'); s.recv(3); c.close(); s.close()
"""
    (record,) = traffic(python(sandbox, code))
    assert (record["sent"], record["own"]) == (3, True)
