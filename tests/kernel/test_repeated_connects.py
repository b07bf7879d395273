"""The compiled receiver repeats a connect to the very same address, from the same sort of socket, and nothing else."""

import contextlib
import ctypes
import errno
import fcntl
import json
import mmap
import os
import select
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import zip_longest
from pathlib import Path

import pytest

from helm_sentry.abi import libc, syscalls
from helm_sentry.abi.arch import native
from helm_sentry.audit import record
from helm_sentry.audit.line import template
from helm_sentry.broker.workers import INTERRUPT
from helm_sentry.decision import Decision, Reason, Verdict
from helm_sentry.decode.address import Internet, parse
from helm_sentry.intercept import sock_diag
from helm_sentry.intercept.interceptor import Unserved
from helm_sentry.operation import Kind, Operation
from tests.kernel.conftest import PYTHON, Result, Sandbox
from tests.kernel.test_receiver import Agent

pytestmark = pytest.mark.kernel

CONNECT = syscalls.number("connect", native())
IPV4, IPV6, STREAM, DGRAM = socket.AF_INET, socket.AF_INET6, socket.SOCK_STREAM, socket.SOCK_DGRAM
PLAIN = (IPV4, STREAM, 0)
ALLOWED = Decision(Verdict.ALLOW, Reason.RULE, "test")
RACE = 1.5  # seconds
connect = ctypes.CDLL(None, use_errno=True).connect


def sockaddr(port: int, host: str = "127.0.0.1") -> bytes:
    if ":" in host:
        return struct.pack("=H2sI16sI", IPV6, port.to_bytes(2, "big"), 0, socket.inet_pton(IPV6, host), 0)
    return struct.pack("=H2s4s8x", IPV4, port.to_bytes(2, "big"), socket.inet_pton(IPV4, host))


def reached(made: socket.socket | int, raw: bytes | int, size: int = -1) -> bytes:
    """What connect(2) gives: `0`, or the name of the error."""
    number = made if isinstance(made, int) else made.fileno()
    pointer = ctypes.c_void_p(raw) if isinstance(raw, int) else raw
    length = size if isinstance(raw, int) or size >= 0 else len(raw)
    return b"0" if connect(number, pointer, length) == 0 else errno.errorcode[ctypes.get_errno()].encode()


def attempt(raw: bytes, kind: tuple[int, int, int] = PLAIN, *, flags: int = 0) -> bytes:
    with socket.socket(kind[0], kind[1] | flags, kind[2]) as made:
        return reached(made, raw)


class Connector(Agent):
    """An agent of connects; the receiver may interrupt those that go on."""

    def __init__(self, directory: Path, body: Callable[[], bytes]) -> None:
        super().__init__(directory, body, CONNECT)
        signal.signal(INTERRUPT, lambda number, frame: None)
        self.receiver.brief(INTERRUPT).allow()

    def learn_connect(self, raw: bytes, domain: int = IPV4, epoch: int = 0) -> None:
        found = parse(raw)
        assert isinstance(found, Internet)
        operation = Operation(Kind.NET_CONNECT, address=found.address, port=found.port, protocol="tcp")
        self.receiver.learn_to_connect(raw, domain, template("connect", operation, ALLOWED, epoch, "value"), epoch)

    def chain(self, directory: Path) -> list[dict[str, object]]:
        """The records, each canonical, hashed and in its place."""
        prev, found = record.FIRST_PREV, []
        for seq, line in enumerate((directory / "audit.jsonl").read_bytes().splitlines()):
            found.append(dict(record.read(line, seq, prev)))
            prev = str(found[-1]["hash"])
        return found


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """What a receiver here does to this process's signals is not for the tests that come after, nor their children."""
    mask, handler = signal.pthread_sigmask(signal.SIG_BLOCK, ()), signal.getsignal(INTERRUPT)
    yield
    signal.signal(INTERRUPT, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=512) as made:
        yield made


@pytest.fixture
def port(server: socket.socket) -> int:
    return int(server.getsockname()[1])


@pytest.fixture
def closed() -> Iterator[int]:
    """A port that is taken, and on which nobody listens."""
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        yield int(made.getsockname()[1])


def test_a_known_connect_never_reaches_the_interpreter(tmp_path: Path, server: socket.socket, port: int) -> None:
    agent = Connector(tmp_path, lambda: b" ".join(attempt(sockaddr(port)) for _ in range(20)))
    agent.learn_connect(sockaddr(port))
    assert agent.serve() == (b" ".join([b"0"] * 20), [])
    for _ in range(20):
        server.accept()[0].close()
    server.setblocking(False)
    with pytest.raises(BlockingIOError):
        server.accept()
    assert agent.receiver.counts() == (21, 0, 20, 0)  # with the getppid at the end
    operation = Operation(Kind.NET_CONNECT, address="127.0.0.1", port=port, protocol="tcp")
    wanted = record.decision(agent.pid, "connect", [operation], ALLOWED, "value")
    for written in agent.chain(tmp_path):
        assert {name: value for name, value in written.items() if name not in ("seq", "prev", "hash", "time")} == wanted


def test_every_connection_is_told_of_once_with_its_record(tmp_path: Path, port: int, closed: int) -> None:
    def body() -> bytes:
        with socket.socket() as refused, socket.socket() as made:
            answers = [reached(refused, sockaddr(closed)), reached(made, sockaddr(port))]
            cookies = [sock_diag.cookie_of(each.fileno()) for each in (refused, made)]
        return json.dumps([*[answer.decode() for answer in answers], *cookies]).encode()

    agent = Connector(tmp_path, body)
    agent.learn_connect(sockaddr(port))
    agent.learn_connect(sockaddr(closed))
    answer, left = agent.serve()
    *answers, refused, made = json.loads(answer)
    assert (answers, left) == (["ECONNREFUSED", "0"], [])
    decision, outcome, other = agent.chain(tmp_path)
    assert (outcome["type"], outcome["of"], outcome["errno"]) == ("outcome", 0, "ECONNREFUSED")
    assert (decision["target"], other["target"]) == (f"127.0.0.1:{closed}", f"127.0.0.1:{port}")
    assert agent.receiver.begun() == [(refused, 0, sockaddr(closed)), (made, 2, sockaddr(port))]
    assert agent.receiver.begun() == []


def test_one_that_does_not_wait_is_in_progress(tmp_path: Path, port: int) -> None:
    agent = Connector(tmp_path, lambda: attempt(sockaddr(port), flags=socket.SOCK_NONBLOCK))
    agent.learn_connect(sockaddr(port))
    assert agent.serve() == (b"EINPROGRESS", [])
    assert [(r["type"], r.get("errno")) for r in agent.chain(tmp_path)] == [
        ("decision", None),
        ("outcome", "EINPROGRESS"),
    ]


def test_ipv6(tmp_path: Path) -> None:
    with socket.create_server(("::1", 0), family=IPV6) as made:
        raw = sockaddr(made.getsockname()[1], "::1")
        agent = Connector(tmp_path, lambda: attempt(raw, (IPV6, STREAM, 0)))
        agent.learn_connect(raw, IPV6)
        assert agent.serve() == (b"0", [])
    assert str(agent.chain(tmp_path)[0]["target"]).startswith("[::1]:")


@pytest.mark.parametrize(
    "kind",
    [(IPV4, DGRAM, 0), (IPV6, STREAM, 0), (IPV4, STREAM, 262), (socket.AF_UNIX, STREAM, 0)],
    ids=["udp", "ipv6", "mptcp", "unix"],
)
def test_a_socket_of_another_sort_is_the_brokers(tmp_path: Path, port: int, kind: tuple[int, int, int]) -> None:
    agent = Connector(tmp_path, lambda: attempt(sockaddr(port), kind))
    agent.learn_connect(sockaddr(port))
    answer, left = agent.serve()
    assert (answer, len(left), agent.log.count) == (b"EACCES", 1, 0)


def test_another_address_is_the_brokers(tmp_path: Path, port: int) -> None:
    known = sockaddr(port)
    others = [
        sockaddr(port ^ 1),
        sockaddr(port, "127.0.0.2"),
        sockaddr(port, "0.0.0.0"),  # noqa: S104
        known[:8] + b"x" + known[9:],
        known + b"\0",
        known[:15],
        known + bytes(112),
        bytes(16),
        b"\2",
        b"",
    ]

    def body() -> bytes:
        with socket.socket() as made:
            strange = [reached(made, pointer, 16) for pointer in (0, 8)] + [reached(made, known, 1 << 31)]
            nobody = [reached(number, known) for number in (-1, 9999, os.open("/dev/null", os.O_RDONLY))]
        return b" ".join([*strange, *nobody, *(attempt(raw) for raw in others)])

    agent = Connector(tmp_path, body)
    agent.learn_connect(known)
    answer, left = agent.serve()
    assert (answer.split(), len(left), agent.log.count) == ([b"EACCES"] * 16, 16, 0)
    assert agent.receiver.begun() == []


def test_errors_that_are_rare_are_told_by_the_broker(tmp_path: Path, port: int) -> None:
    def body() -> bytes:
        with socket.socket() as made:
            return reached(made, sockaddr(port)) + b" " + reached(made, sockaddr(port))

    agent = Connector(tmp_path, body)
    agent.learn_connect(sockaddr(port))
    answer, (left,) = agent.serve()
    assert (answer, left.sequence, left.error) == (b"0 EISCONN", 1, errno.EISCONN)
    assert len(agent.receiver.begun()) == 2


def test_old_rules_a_closed_log_and_a_full_disk(tmp_path: Path, port: int) -> None:
    for name in ("old", "closed", "full"):
        (tmp_path / name).mkdir()
        agent = Connector(tmp_path / name, lambda: attempt(sockaddr(port)))
        agent.learn_connect(sockaddr(port))
        if name == "old":
            agent.receiver.forget(1)
            agent.learn_connect(sockaddr(port), epoch=0)
        elif name == "closed":
            agent.log.close()
        else:
            agent.fill_disk()
        answer, left = agent.serve()
        assert (answer, len(left), agent.receiver.begun()) == (b"EACCES", 1, [])


def test_no_more_are_begun_than_can_be_told_of(tmp_path: Path, closed: int) -> None:
    agent = Connector(tmp_path, lambda: b" ".join(attempt(sockaddr(closed)) for _ in range(1030)))
    agent.learn_connect(sockaddr(closed))
    answer, left = agent.serve()
    assert answer.split() == [b"ECONNREFUSED"] * 1024 + [b"EACCES"] * 6
    assert (len(left), agent.log.count) == (6, 2048)
    assert [sequence for _, sequence, _ in agent.receiver.begun()] == list(range(0, 2048, 2))


def test_no_descriptor_is_kept(tmp_path: Path, closed: int) -> None:
    answers = [b"ECONNREFUSED", b"EACCES", b"EACCES"]
    questions = [(sockaddr(closed), PLAIN), (sockaddr(closed), (IPV4, DGRAM, 0)), (sockaddr(closed ^ 1), PLAIN)]
    agent = Connector(tmp_path, lambda: b" ".join(attempt(*question) for question in questions * 100))
    agent.learn_connect(sockaddr(closed))
    begun = len(os.listdir("/proc/self/fd"))
    assert agent.serve()[0].split() == answers * 100
    assert len(os.listdir("/proc/self/fd")) <= begun  # an earlier agent may just have been let go


def test_one_that_waits_is_handed_on_with_its_socket(tmp_path: Path) -> None:
    """The receiver stops waiting; the very socket and address that were judged go on elsewhere."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as waiting:
        raw = sockaddr(full.getsockname()[1])
        for _ in range(2):  # more than it takes
            first = waiting.enter_context(socket.socket())
            first.setblocking(False)
            first.connect_ex(full.getsockname())
        agent = Connector(tmp_path, lambda: attempt(raw))
        agent.learn_connect(raw)
        handed: list[Unserved] = []

        def go_on(unserved: Unserved) -> None:
            handed.append(unserved)
            assert unserved.connecting is not None
            full.accept()[0].close()
            full.accept()[0].close()
            libc.connect(unserved.connecting.descriptor, unserved.connecting.address)
            os.close(unserved.connecting.descriptor)
            agent.listener.send_value(unserved.notification.id, 0)

        agent.refuse = go_on  # type: ignore[method-assign]
        answer, left = agent.serve()
    assert (answer, len(left)) == (b"0", 1)
    assert (handed[0].sequence, handed[0].error) == (0, 0)
    assert handed[0].connecting and handed[0].connecting.address == raw
    ((_, sequence, told),) = agent.receiver.begun()
    assert (sequence, told, agent.log.count) == (0, raw, 1)


# Attacks, each with its control: what it would be without the look that defeats it.


def flip(change: Callable[[int], object]) -> Callable[[], None]:
    """Go to and fro between two states, as fast as can be, until the returned function is called."""
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            change(1)
            change(0)

    thread = threading.Thread(target=swap)
    thread.start()
    return lambda: (stop.set(), thread.join())[1]


def race_for_address(good: int, bad: int) -> bytes:
    """Connect to an address that alternates; how often which port was reached, by what the socket says."""
    shared = mmap.mmap(-1, mmap.PAGESIZE)
    shared[:16] = sockaddr(good)
    number, words = ctypes.c_uint16.from_buffer(shared, 2), [socket.htons(good), socket.htons(bad)]
    changer = os.fork()  # a thread would wait for the interpreter
    processors = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {processors[0] if changer else processors[-1]})
    while changer == 0:
        number.value = words[1]
        number.value = words[0]
    seen = {good: 0, bad: 0, 0: 0}
    end = time.monotonic() + RACE
    while time.monotonic() < end and seen[good] < 1000:  # as many as the receiver may begin untold
        with socket.socket() as made:
            reached_it = reached(made, ctypes.addressof(number) - 2, 16) == b"0"
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
            seen[made.getpeername()[1] if reached_it else 0] += 1
    os.kill(changer, signal.SIGKILL)
    os.waitpid(changer, 0)
    return json.dumps([seen[good], seen[bad], seen[0]]).encode()


def accepting(server: socket.socket, count: list[int]) -> threading.Thread:
    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                server.accept()[0].close()
                count[0] += 1

    thread = threading.Thread(target=accept)
    thread.start()
    return thread


@pytest.mark.parametrize("supervised", [True, False], ids=["repeated", "control"])
def test_an_address_that_changes_after_the_look(tmp_path: Path, server: socket.socket, supervised: bool) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=512) as forbidden:
        good, bad = server.getsockname()[1], forbidden.getsockname()[1]
        arrived = [[0], [0]]
        threads = [accepting(each, count) for each, count in zip((server, forbidden), arrived, strict=True)]
        if supervised:
            agent = Connector(tmp_path, lambda: race_for_address(good, bad))
            agent.learn_connect(sockaddr(good))
            answer, left = agent.serve()
            reached_good, reached_bad, refused = json.loads(answer)
            assert (reached_bad, refused) == (0, len(left)) and min(reached_good, refused) > 10
            assert agent.log.count == reached_good
        else:
            reached_good, reached_bad, _ = json.loads(race_for_address(good, bad))
            assert min(reached_good, reached_bad) > 10
        for each in (server, forbidden):
            each.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()
        assert (arrived[1][0] > 0) == (not supervised)


def swap_in(made: tuple[int, int], number: int, which: int) -> None:
    os.dup2(made[which], number)


def race_for_socket(raw: bytes) -> bytes:
    """Connect a number that alternates between a TCP and a UDP socket; how often which of them was connected."""
    seen = {"tcp": 0, "udp": 0, "": 0}
    number = socket.socket().detach()
    end = time.monotonic() + RACE
    while time.monotonic() < end:
        with socket.socket() as tcp, socket.socket(type=DGRAM) as udp:
            made = (tcp.fileno(), udp.fileno())
            stop = flip(partial(swap_in, made, number))
            for _ in range(20):
                reached(number, raw)
            stop()
            os.close(number)
            number = socket.socket().detach()
            for name, each in (("tcp", tcp), ("udp", udp)):
                with contextlib.suppress(OSError):
                    each.getpeername()
                    seen[name] += 1
    return json.dumps([seen["tcp"], seen["udp"]]).encode()


@pytest.mark.parametrize("supervised", [True, False], ids=["repeated", "control"])
def test_a_descriptor_that_becomes_another_socket(tmp_path: Path, server: socket.socket, supervised: bool) -> None:
    thread = accepting(server, [0])
    raw = sockaddr(server.getsockname()[1])
    if supervised:
        agent = Connector(tmp_path, lambda: race_for_socket(raw))
        agent.learn_connect(raw)
        answer, left = agent.serve()
        tcp, udp = json.loads(answer)
        assert udp == 0 and tcp > 3
        assert any(unserved.sequence < 0 for unserved in left)  # the broker was asked about the other one
    else:
        tcp, udp = json.loads(race_for_socket(raw))
        assert min(tcp, udp) > 3
    server.shutdown(socket.SHUT_RDWR)
    thread.join()


UFFDIO_API, UFFDIO_REGISTER, UFFDIO_COPY = 0xC018AA3F, 0xC020AA00, 0xC028AA03  # <linux/userfaultfd.h>
USERFAULTFD, CLONE3 = (syscalls.number(name, native()) for name in ("userfaultfd", "clone3"))


def missing_page() -> tuple[mmap.mmap, int, int]:
    """Return a page that is not there until somebody fills it, where it is, and what tells who waits for it."""
    faults = ctypes.CDLL(None).syscall(USERFAULTFD, os.O_CLOEXEC | os.O_NONBLOCK)
    fcntl.ioctl(faults, UFFDIO_API, bytearray(struct.pack("=QQQ", 0xAA, 0, 0)))
    memory = mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    page = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    fcntl.ioctl(faults, UFFDIO_REGISTER, bytearray(struct.pack("=QQQQ", page, 4096, 1, 0)))
    return memory, page, faults


def fill(faults: int, page: int, data: bytes) -> None:
    source = ctypes.create_string_buffer(data, 4096)
    fcntl.ioctl(faults, UFFDIO_COPY, bytearray(struct.pack("=QQQQq", page, ctypes.addressof(source), 4096, 0, 0)))


def born_as(pid: int) -> None:
    """Fork a process of a given id, which waits for its end."""
    wanted = ctypes.c_int32(pid)
    arguments = struct.pack("=11Q", 0, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, ctypes.addressof(wanted), 1, 0)
    born = ctypes.PyDLL(None, use_errno=True).syscall(CLONE3, arguments, len(arguments))
    if born == 0:
        while True:
            ctypes.PyDLL(None).pause()
    assert born == pid, os.strerror(ctypes.get_errno())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may choose a process id and fill a page the kernel waits for")
@pytest.mark.parametrize("dies", [True, False], ids=["repeated", "control"])
def test_a_thread_id_that_becomes_somebody_elses(tmp_path: Path, port: int, dies: bool) -> None:
    """The caller dies after the receiver began to read; who has its id then keeps a socket under the same number."""
    ours, theirs = socket.socketpair()
    victim = socket.socket()
    number = victim.fileno()

    def body() -> bytes:
        memory, page, faults = missing_page()
        os.dup2(socket.socket().detach(), number)
        socket.send_fds(theirs, [struct.pack("=Q", page)], [faults])
        with memory:
            return reached(number, page, 16)

    agent = Connector(tmp_path, body)
    agent.learn_connect(sockaddr(port))

    def change_hands() -> None:
        os.kill(agent.pid, signal.SIGKILL)
        os.waitpid(agent.pid, 0)
        born_as(agent.pid)
        theirs_now = libc.pidfd_getfd(os.pidfd_open(agent.pid), number)
        assert sock_diag.cookie_of(theirs_now) == sock_diag.cookie_of(victim.fileno())
        os.close(theirs_now)

    def interfere() -> None:
        data, (faults,), _, _ = socket.recv_fds(ours, 8, 1)
        waiting = select.poll()  # select(2) takes no descriptor as high as they are after many tests
        waiting.register(faults, select.POLLIN)
        try:
            assert waiting.poll(30_000), "the receiver does not wait for the page"
            if dies:
                change_hands()
        finally:  # or it waits for ever
            fill(faults, *struct.unpack("=Q", data), sockaddr(port))
            os.close(faults)

    thread = threading.Thread(target=interfere)
    thread.start()
    if not dies:
        assert agent.serve() == (b"0", [])
        thread.join()
        return
    agent.begin()
    unserved = next(agent.receiver.sources()[0])
    thread.join()
    os.kill(agent.pid, signal.SIGKILL)
    os.waitpid(agent.pid, 0)
    assert unserved is not None and unserved.sequence == -1
    assert (agent.log.count, agent.receiver.begun()) == (0, [])
    with pytest.raises(OSError, match="not connected"):
        victim.getpeername()


# Whole runs: the receiver and the broker together.

POLICY = """
extends: [default]
allow:
  - {id: connect, connect: {addresses: [loopback]}}
  - {id: bind-any, bind: {addresses: [any]}}
"""
CONNECTS = """
import ctypes, errno, select, socket, sys
open_port, closed_port = map(int, sys.argv[1:])
for round in range(4):
    for port in (open_port, closed_port):
        for family, host in ((2, "127.0.0.1"), (2, "0.0.0.0"), (10, "::1"), (10, "::ffff:127.0.0.1")):
            for kind in (1, 1 | socket.SOCK_NONBLOCK, 2):
                with socket.socket(family, kind) as made:
                    answers = [made.connect_ex((host, port))]
                    if kind & socket.SOCK_NONBLOCK:
                        select.select([], [made], [], 10)
                    answers += [made.getsockopt(1, socket.SO_ERROR), made.connect_ex((host, port))]
                    if kind == 1 and answers[0] == 0:
                        made.sendall(b"four")
                        answers += [made.recv(9), ctypes.CDLL(None).connect(made.fileno(), bytes(16), 16)]
                    print(port == open_port, host, kind, answers)
"""


@contextlib.contextmanager
def echo() -> Iterator[int]:
    """Answer every connection with what it sends; gives the port, of both families."""
    with socket.create_server(("::", 0), family=IPV6, dualstack_ipv6=True, backlog=512) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    made, _ = listener.accept()
                    with made, contextlib.suppress(OSError):
                        made.sendall(made.recv(9))
                        made.recv(9)

        thread = threading.Thread(target=serve)
        thread.start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def run(sandbox: Sandbox, code: str, *arguments: int, policy: str = POLICY, receiver: bool = True) -> Result:
    environment = {} if receiver else {"HELM_SENTRY_NATIVE": "off"}
    command = [PYTHON, "-c", code, *map(str, arguments)]
    result = sandbox.run(command, sandbox.policy(policy), environment=environment)
    assert result.status == 0, result.stderr
    assert sandbox.verify(result.directory).returncode == 0
    return result


def shape(result: Result) -> list[tuple[object, ...]]:
    """What its records about connections say, each outcome and count with the decision that it names."""
    members = ("type", "syscall", "ops", "target", "protocol", "verdict", "rule", "action", "errno", "own", "hosts")
    members += ("sent", "exact")
    every = result.records
    told = [r for r in every if r.get("ops") == ["net.connect"] or r["type"] in ("outcome", "traffic")]
    named = [(r, every[r["of"]].get("target")) for r in told if "of" in r] + [(r, None) for r in told if "of" not in r]
    named.sort(key=lambda pair: pair[0]["seq"] if pair[0]["type"] != "traffic" else len(every))
    lines = [(*(str(r.get(member)) for member in members), target) for r, target in named]
    first = next((at for at, line in enumerate(lines) if line[0] == "traffic"), len(lines))
    return lines[:first] + sorted(lines[first:])  # the kernel tells of ends when it likes


def test_with_and_without_it_connects_are_the_same(sandbox: Sandbox, closed: int) -> None:
    with echo() as port:
        native_ = sandbox.native([PYTHON, "-c", CONNECTS, str(port), str(closed)])
        repeated = run(sandbox, CONNECTS, port, closed)
        without = run(sandbox, CONNECTS, port, closed, receiver=False)
    assert repeated.stdout == without.stdout == native_.stdout
    assert "[0, 0, 106, b'four', 0]" in repeated.stdout and "[115, 111, 103]" in repeated.stdout
    pairs = list(zip_longest(shape(repeated), shape(without)))
    assert [pair for pair in pairs if pair[0] != pair[1]][:2] == [], "what the records say differs"
    assert len(pairs) > 200


IN_TIME = """
import ctypes, errno, socket, struct, sys
for _ in range(3):
    with socket.socket() as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("=qq", 0, 20_000))
        print(*[errno.errorcode[made.connect_ex(("127.0.0.1", int(sys.argv[1])))] for _ in range(2)])
        print(ctypes.CDLL(None).connect(made.fileno(), b"\\1\\0s", 3))
"""


def test_a_connect_that_is_given_time_ends_as_natively(sandbox: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as waiting:
        for _ in range(2):  # more than it takes
            first = waiting.enter_context(socket.socket())
            first.setblocking(False)
            first.connect_ex(full.getsockname())
        port = full.getsockname()[1]
        native_ = sandbox.native([PYTHON, "-c", IN_TIME, str(port)])
        supervised = run(sandbox, IN_TIME, port)
    assert supervised.stdout == native_.stdout == "EINPROGRESS EALREADY\n-1\n" * 3


def test_a_port_that_becomes_the_runs_own_is_asked_about_again(sandbox: Sandbox) -> None:
    code = """
import socket, sys
port = int(sys.argv[1])
for _ in range(3): socket.create_connection(("127.0.0.1", port)).close()
with socket.create_connection(("127.0.0.1", port)) as last: last.recv(1)
with socket.create_server(("127.0.0.1", port)) as own:
    for _ in range(3): socket.create_connection(("127.0.0.1", port)).close()
"""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def leave() -> None:
            taken = [server.accept()[0] for _ in range(4)]
            server.close()
            for each in taken:
                each.close()

        thread = threading.Thread(target=leave)
        thread.start()
        result = run(sandbox, code, server.getsockname()[1])
        thread.join()
    connects = [r for r in result.records if r.get("ops") == ["net.connect"]]
    assert [r.get("own", False) for r in connects] == [False] * 4 + [True] * 3


def test_an_address_with_a_name_is_asked_about_each_time(sandbox: Sandbox, server: socket.socket, port: int) -> None:
    code = "import socket, sys\nfor _ in range(3): socket.create_connection(('127.0.0.1', int(sys.argv[1]))).close()"
    policy = f"extends: [default]\nallow:\n  - {{id: named, connect: {{hosts: [localhost], ports: [{port}]}}}}\n"
    thread = accepting(server, arrived := [0])
    result = run(sandbox, code, port, policy=policy)
    server.shutdown(socket.SHUT_RDWR)
    thread.join()
    connects = [r for r in result.records if r.get("ops") == ["net.connect"]]
    assert [(r["rule"], r["hosts"]) for r in connects] == [("named", ["localhost"])] * arrived[0] and arrived == [3]


def test_a_limit_is_counted_each_time(sandbox: Sandbox, server: socket.socket, port: int) -> None:
    code = "import socket, sys\nfor _ in range(5): print(socket.socket().connect_ex(('127.0.0.1', int(sys.argv[1]))))"
    text = f"connect: {{addresses: [loopback], ports: [{port}]}}"
    policy = f"extends: [default]\nallow:\n  - {{id: few, {text}, limit: {{count: 3}}}}\n"
    assert run(sandbox, code, port, policy=policy).stdout.split() == ["0"] * 3 + ["13"] * 2
    unlimited = f"extends: [default]\nallow:\n  - {{id: many, {text}}}\n"
    assert run(sandbox, code, port, policy=unlimited).stdout.split() == ["0"] * 5
