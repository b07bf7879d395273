"""The compiled receiver repeats a decision about the very same object, and leaves everything else to the broker."""

import contextlib
import ctypes
import errno
import fcntl
import json
import mmap
import os
import resource
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helm_sentry.abi import flags, libc, syscalls
from helm_sentry.abi.arch import native
from helm_sentry.abi.structs import SOCK_FILTER
from helm_sentry.audit import record
from helm_sentry.audit.line import template
from helm_sentry.audit.log import AuditLog
from helm_sentry.decision import Decision, Reason, Verdict
from helm_sentry.decode.operations import file_operation
from helm_sentry.intercept.interceptor import Unserved
from helm_sentry.intercept.notify import Listener
from helm_sentry.native import library
from helm_sentry.operation import Kind, Operation
from tests.kernel.conftest import AFTERWARDS, SYSTEM_PYTHON, Sandbox

pytestmark = pytest.mark.kernel

OPENAT, SOCKET, LOOK, GETPPID = (
    syscalls.number(name, native()) for name in ("openat", "socket", "newfstatat", "getppid")
)
RACE = 2.0  # seconds


def notifying(*numbers: int) -> bytes:
    """Return a filter that notifies these calls."""
    instructions = [
        (0x20, 0, 0, 0),  # load the syscall number
        *((0x15, len(numbers) - at, 0, number) for at, number in enumerate(numbers)),
        (0x06, 0, 0, flags.SECCOMP_RET_ALLOW),
        (0x06, 0, 0, flags.SECCOMP_RET_USER_NOTIF),
    ]
    return b"".join(SOCK_FILTER.pack(*instruction) for instruction in instructions)


class Agent:
    """A child whose calls come to a receiver of the test's own; its getppid(2) marks the end of each question."""

    def __init__(self, directory: Path, body: Callable[[], bytes], *notified: int) -> None:
        self._filter = notifying(*(notified or (OPENAT,)), GETPPID)
        self.refuse = self._refuse  # what becomes of a call that the receiver leaves
        loaded = library.load()
        assert loaded is not None, "the receiver was not built: is there a C compiler?"
        state = loaded.log_state()
        assert state is not None
        self.log = AuditLog(str(directory), "test", state=state)
        ours, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            self._live(theirs, body)
        theirs.close()
        _, (descriptor,), _, _ = socket.recv_fds(ours, 16, 1)
        self.listener = Listener(descriptor)
        self.receiver = loaded.receiver(self.listener, state, native())
        self._channel = ours
        ours.settimeout(30)
        AFTERWARDS.extend((self.log.close, lambda: os.close(descriptor)))  # many are made in one process

    def _live(self, channel: socket.socket, body: Callable[[], bytes]) -> None:
        answer = b"the child failed"
        try:
            libc.prctl(flags.PR_SET_NO_NEW_PRIVS, 1)
            listener = libc.seccomp_listener(self._filter, flags.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)
            socket.send_fds(channel, [b"listener"], [listener])
            os.close(listener)
            channel.recv(1)
            answer = body()
        finally:
            channel.sendall(answer)
            os.getppid()
            os._exit(0)

    def learn(self, path: Path, kind: Kind = Kind.FILE_READ) -> None:
        operation = file_operation(kind, str(path))
        allowed = Decision(Verdict.ALLOW, Reason.RULE, "test")
        self.receiver.learn("openat", os.stat(path), str(path), template("openat", operation, allowed))

    def learn_look(self, path: Path) -> None:
        operation = file_operation(Kind.FILE_STAT, str(path))
        allowed = Decision(Verdict.ALLOW, Reason.RULE, "test")
        text = template("newfstatat", operation, allowed, 0, "value")
        self.receiver.learn("newfstatat", os.lstat(path), str(path), text)

    def learn_socket(self, *arguments: int, epoch: int = 0) -> None:
        operation = Operation(Kind.NET_SOCKET, name="inet")
        allowed = Decision(Verdict.ALLOW, Reason.BUILTIN, "sentry/plain-socket")
        assert len(arguments) == 3
        record_of_all = template("socket", operation, allowed, epoch, "continue")
        self.receiver.learn_to_go_on("socket", arguments, record_of_all, epoch)

    def begin(self) -> None:
        self._channel.sendall(b"!")

    def serve(self) -> tuple[bytes, list[Unserved]]:
        """Let the child go on to its end; return what it answered and what the receiver left to the broker."""
        self.begin()
        left = []
        for unserved in self.receiver.sources()[0]:
            if unserved is None:
                continue
            notification = unserved.notification
            if notification.nr == GETPPID:
                break
            left.append(unserved)
            self.refuse(unserved)
        answer = self._channel.recv(65536)
        self.listener.send_errno(notification.id, errno.EPERM)
        os.waitpid(self.pid, 0)
        return answer, left

    def _refuse(self, unserved: Unserved) -> None:
        self.listener.send_errno(unserved.notification.id, unserved.error or errno.EACCES)

    def fill_disk(self) -> None:
        """From now on there is no room for another record."""
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, self.log._state.file)
        os.close(full)

    def records(self, directory: Path) -> list[dict[str, object]]:
        return [json.loads(line) for line in (directory / "audit.jsonl").read_bytes().splitlines()]


def read(path: str | Path, open_flags: int = 0, directory: int | None = None) -> bytes:
    """What an open gives: the contents, or the name of the error."""
    try:
        opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC | open_flags, dir_fd=directory)
    except OSError as error:
        return errno.errorcode[error.errno or 0].encode()
    try:
        return os.read(opened, 100)
    except IsADirectoryError:
        return b"directory"
    finally:
        os.close(opened)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    real = Path(os.path.realpath(tmp_path)) / "place"
    real.mkdir()
    (real / "file").write_bytes(b"good")
    (real / "other").write_bytes(b"other")
    return real


def test_a_known_open_never_reaches_the_interpreter(tmp_path: Path, place: Path) -> None:
    agent = Agent(tmp_path, lambda: b" ".join(read(place / "file") for _ in range(20)))
    agent.learn(place / "file")
    answer, left = agent.serve()
    assert (answer, left) == (b" ".join([b"good"] * 20), [])
    assert agent.log.count == agent.log.counts["ALLOW"] == 20


def open_in_threads(path: Path, threads: int, times: int) -> bytes:
    answers: list[bytes] = []
    every = [threading.Thread(target=lambda: answers.extend(read(path) for _ in range(times))) for _ in range(threads)]
    for thread in every:
        thread.start()
    for thread in every:
        thread.join()
    return str(answers.count(b"good")).encode()


def time_on_processor(tid: int) -> int:
    """Nanoseconds, from schedstat in proc(5); 0 for a thread that has ended."""
    try:
        return int(Path(f"/proc/self/task/{tid}/schedstat").read_text().split()[0])
    except FileNotFoundError:
        return 0


def test_helpers_serve_while_more_calls_wait(tmp_path: Path, place: Path) -> None:
    agent = Agent(tmp_path, lambda: open_in_threads(place / "file", 8, 1000))
    agent.learn(place / "file")
    helpers = agent.receiver.sources()[1:]
    assert len(helpers) == min(3, len(os.sched_getaffinity(0)) - 1)
    spent: list[int] = []  # by a helper that has nothing more to do

    def help_out() -> None:
        next(helpers[0], None)
        spent.append(time.thread_time_ns())

    helper = threading.Thread(target=help_out if helpers else spent.clear, daemon=True)
    helper.start()
    assert helper.native_id
    assert agent.serve() == (b"8000", [])
    assert agent.log.count == agent.log.counts["ALLOW"] == 8000
    assert agent.receiver.counts() == (8001, 0, 8000, 0)  # getppid(2) is not recorded
    if helpers:
        assert (time_on_processor(helper.native_id) or spent[0]) > 1_000_000
    prev = record.FIRST_PREV
    for seq, line in enumerate((tmp_path / "audit.jsonl").read_bytes().splitlines()):
        prev = str(record.read(line, seq, prev)["hash"])


def test_its_records_are_the_brokers(tmp_path: Path, place: Path) -> None:
    agent = Agent(tmp_path, lambda: read(place / "file"))
    agent.learn(place / "file")
    agent.log.append(record.notice("X", "before"))
    assert agent.serve() == (b"good", [])
    agent.log.append(record.notice("X", "after"))
    prev = record.FIRST_PREV
    for seq, line in enumerate((tmp_path / "audit.jsonl").read_bytes().splitlines()):
        prev = str(record.read(line, seq, prev)["hash"])  # raises unless canonical, hashed and chained
    status = os.stat(place / "file")
    allowed = Decision(Verdict.ALLOW, Reason.RULE, "test")
    operation = file_operation(Kind.FILE_READ, str(place / "file"))
    wanted = record.decision(
        agent.pid, "openat", [operation], allowed, "fd", object=f"{status.st_dev:x}:{status.st_ino:x}"
    )
    _, written, _ = agent.records(tmp_path)
    assert abs(time.time() - int(str(written.pop("time"))) / 1e6) < 60
    assert {name: value for name, value in written.items() if name not in ("seq", "prev", "hash")} == wanted


def test_relative_paths(tmp_path: Path, place: Path) -> None:
    def body() -> bytes:
        os.chdir(place)
        return read("file") + b" " + read("file", directory=3)

    os.set_inheritable(directory := os.open(place, os.O_RDONLY), True)
    try:
        agent = Agent(tmp_path, lambda: (os.dup2(directory, 3), body())[1])
    finally:
        os.close(directory)
    agent.learn(place / "file")
    assert agent.serve() == (b"good good", [])


@pytest.mark.parametrize(
    ("name", "open_flags"),
    [
        ("other", 0),
        ("file", os.O_WRONLY),
        ("file", os.O_RDONLY | os.O_TRUNC),
        ("file", os.O_PATH),
        ("file", os.O_DIRECTORY),
        ("file/.", 0),
        ("../place/file", 0),
        ("file/", 0),
        ("link", 0),
        ("linked/file", 0),
        ("missing", 0),
    ],
)
def test_everything_else_is_the_brokers(tmp_path: Path, place: Path, name: str, open_flags: int) -> None:
    (place / "link").symlink_to("file")
    (place / "linked").symlink_to(place)
    agent = Agent(tmp_path, lambda: read(f"{place}/{name}", open_flags))
    agent.learn(place / "file")
    answer, left = agent.serve()
    assert (answer, len(left), agent.log.count) == (b"EACCES", 1, 0)
    assert left[0].sequence == -1


def test_what_was_a_file_and_is_something_else(tmp_path: Path, place: Path) -> None:
    """A link, a pipe that nobody writes to, a directory, nothing: none is opened, none keeps the receiver waiting."""
    file = place / "file"

    def as_link() -> None:
        file.symlink_to(place / "other")

    def body() -> bytes:
        answers = []
        for make in (as_link, lambda: os.mkfifo(file), file.mkdir, lambda: None):
            make()
            answers.append(read(file))
            with contextlib.suppress(FileNotFoundError):
                file.rmdir() if file.is_dir() and not file.is_symlink() else file.unlink()
        return b" ".join(answers)

    agent = Agent(tmp_path, body)
    agent.learn(file)
    file.unlink()
    answer, left = agent.serve()
    assert answer == b"EACCES EACCES EACCES EACCES"
    assert (len(left), agent.log.count) == (4, 0)


def test_another_object_that_bears_the_name_is_opened(tmp_path: Path, place: Path) -> None:
    def body() -> bytes:
        first = read(place / "file")
        os.replace(place / "other", place / "file")
        return first + b" " + read(place / "file")

    agent = Agent(tmp_path, body)
    agent.learn(place / "file")
    assert agent.serve() == (b"good other", [])
    (first, second) = (entry["object"] for entry in agent.records(tmp_path))
    assert first != second


def test_the_same_object_by_another_way_is_the_brokers(tmp_path: Path, place: Path) -> None:
    (place / "directory").mkdir()
    (place / "directory" / "file").write_bytes(b"deep")
    file = place / "directory" / "file"

    def body() -> bytes:
        (place / "directory").rename(place / "moved")
        first = read(place / "moved" / "file")
        (place / "directory").symlink_to(place / "moved")
        return first + b" " + read(file)

    agent = Agent(tmp_path, body)
    agent.learn(file)
    answer, left = agent.serve()
    assert (answer, len(left)) == (b"EACCES EACCES", 2)


def test_a_deleted_directory_is_not_its_namesake(tmp_path: Path, place: Path) -> None:
    gone, namesake = place / "d", place / "d (deleted)"
    gone.mkdir()
    namesake.mkdir()
    (namesake / "file").write_bytes(b"namesake")

    def body() -> bytes:
        os.chdir(gone)
        gone.rmdir()
        return read("file")

    agent = Agent(tmp_path, body)
    agent.learn(namesake / "file")
    answer, left = agent.serve()
    assert (answer, len(left)) == (b"EACCES", 1)


def made(*arguments: int) -> bytes:
    """What socket(2) with these arguments gives: the family and type of what was made, or the name of the error."""
    try:
        with socket.socket(*arguments) as opened:
            kind = opened.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
            return f"{opened.family}:{kind}".encode()
    except OSError as error:
        return errno.errorcode[error.errno or 0].encode()


PLAIN = (socket.AF_INET, socket.SOCK_STREAM, 0)


def test_a_known_socket_never_reaches_the_interpreter(tmp_path: Path) -> None:
    agent = Agent(tmp_path, lambda: b" ".join(made(*PLAIN) for _ in range(20)), SOCKET)
    agent.learn_socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC, 0)  # as Python asks for it
    assert agent.serve() == (b" ".join([b"2:1"] * 20), [])
    assert agent.log.counts["ALLOW"] == 20
    records = agent.records(tmp_path)
    assert {(r["action"], r["syscall"], r["rule"], r["target"]) for r in records} == {
        ("continue", "socket", "sentry/plain-socket", "inet")
    }
    prev = record.FIRST_PREV
    for seq, line in enumerate((tmp_path / "audit.jsonl").read_bytes().splitlines()):
        prev = str(record.read(line, seq, prev)["hash"])  # raises unless canonical, hashed and chained


@pytest.mark.parametrize(
    "arguments",
    [
        (socket.AF_INET6, socket.SOCK_STREAM, 0),
        (socket.AF_INET, socket.SOCK_DGRAM, 0),
        (socket.AF_INET, socket.SOCK_RAW, 1),
        (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP),
        (socket.AF_NETLINK, socket.SOCK_DGRAM, 0),
    ],
)
def test_another_socket_is_the_brokers(tmp_path: Path, arguments: tuple[int, int, int]) -> None:
    agent = Agent(tmp_path, lambda: made(*arguments), SOCKET)
    agent.learn_socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC, 0)
    answer, left = agent.serve()
    assert (answer, len(left), agent.log.count) == (b"EACCES", 1, 0)


def test_calls_that_go_on_have_no_pointer_and_a_reason() -> None:
    """What the receiver compares, three C `int`s in registers, is all that such a call means."""
    row = syscalls.table(native())[SOCKET]
    assert [argument.kind for argument in row.arguments] == ["int"] * 3
    assert row.continue_reason


def test_a_socket_of_old_rules_is_the_brokers(tmp_path: Path) -> None:
    agent = Agent(tmp_path, lambda: made(*PLAIN), SOCKET)
    agent.learn_socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC, 0)
    agent.receiver.forget(1)
    agent.learn_socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC, 0, epoch=0)
    answer, left = agent.serve()
    assert (answer, len(left), agent.log.count) == (b"EACCES", 1, 0)


def seen(path: str | Path | int, *, follow: bool = True) -> bytes:
    """What a look gives: type and inode, or the name of the error."""
    try:
        found = os.stat(path) if follow else os.lstat(path)
    except OSError as error:
        return errno.errorcode[error.errno or 0].encode()
    return f"{found.st_mode:o} {found.st_ino} {found.st_size} {found.st_mtime_ns}".encode()


def test_a_known_look_never_reaches_the_interpreter(tmp_path: Path, place: Path) -> None:
    (place / "link").symlink_to("file")
    natively = [seen(place / "file"), seen(place / "link", follow=False), seen(place)]
    agent = Agent(
        tmp_path, lambda: b",".join([seen(place / "file"), seen(place / "link", follow=False), seen(place)]), LOOK
    )
    for name in ("file", "link", ""):
        agent.learn_look(place / name)
    assert agent.serve() == (b",".join(natively), [])
    assert agent.receiver.counts() == (4, 0, 3, 0)  # with the getppid at the end
    records = agent.records(tmp_path)
    assert [(r["action"], r["syscall"], r["target"]) for r in records[:3]] == [
        ("value", "newfstatat", str(place / name).rstrip("/")) for name in ("file", "link", "")
    ]
    prev = record.FIRST_PREV
    for seq, line in enumerate((tmp_path / "audit.jsonl").read_bytes().splitlines()):
        prev = str(record.read(line, seq, prev)["hash"])


def test_a_look_at_a_descriptor_is_answered_without_a_record(tmp_path: Path, place: Path) -> None:
    opened = os.open(place / "file", os.O_RDONLY)
    reading, writing = os.pipe()
    natively = [seen(opened), seen(reading), seen(writing)]
    agent = Agent(tmp_path, lambda: b",".join(seen(number) for number in (opened, reading, writing)), LOOK)
    answer, left = agent.serve()
    assert (answer, left) == (b",".join(natively), [])
    assert agent.receiver.counts() == (4, 0, 0, 3)
    assert agent.log.count == 0


def test_a_look_that_is_not_exactly_known_is_the_brokers(tmp_path: Path, place: Path) -> None:
    (place / "link").symlink_to("file")
    questions = [
        (place / "link", True),  # learnt as a link, asked where it leads
        (place / "other", True),  # learnt as a file, and a link by now
        (place / "gone", True),  # learnt, and not there any more
        (place / "../place/file", True),  # the same by another name
        (12345, True),  # no descriptor
    ]
    (place / "gone").write_text("")
    agent = Agent(tmp_path, lambda: b",".join(seen(path, follow=follow) for path, follow in questions), LOOK)
    for name in ("link", "other", "gone", "file"):
        agent.learn_look(place / name)
    (place / "gone").unlink()
    (place / "other").unlink()
    (place / "other").symlink_to("file")
    answer, left = agent.serve()
    assert (answer, len(left), agent.log.count) == (b",".join([b"EACCES"] * 5), 5, 0)


def test_a_look_whose_answer_has_no_room_is_recorded_as_such(tmp_path: Path, place: Path) -> None:
    path = os.fsencode(place / "file") + b"\0"
    room = ctypes.create_string_buffer(path)
    c = ctypes.CDLL(None, use_errno=True)

    def body() -> bytes:
        result = c.syscall(LOOK, -100, room, ctypes.c_void_p(8), 0)
        return f"{result} {errno.errorcode[ctypes.get_errno()]}".encode()

    agent = Agent(tmp_path, body, LOOK)
    agent.learn_look(place / "file")
    answer, left = agent.serve()
    assert answer == b"-1 EFAULT"
    assert [(unserved.sequence, unserved.error) for unserved in left] == [(0, errno.EFAULT)]
    assert agent.log.count == 1


def test_directories(tmp_path: Path, place: Path) -> None:
    agent = Agent(tmp_path, lambda: read(place, os.O_DIRECTORY) + b" " + read(place))
    agent.learn(place, Kind.FILE_LIST)
    assert agent.serve() == (b"directory directory", [])


def test_bad_pointers(tmp_path: Path, place: Path) -> None:
    openat = ctypes.CDLL(None, use_errno=True).openat
    page = 4096

    def body() -> bytes:
        memory = mmap.mmap(-1, 2 * page)
        start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        ctypes.CDLL(None).munmap(ctypes.c_void_p(start + page), ctypes.c_size_t(page))
        memory[page - 4 : page] = b"/tmp"  # no end before the page that is not there
        return b" ".join(
            b"%d" % openat(flags.AT_FDCWD, ctypes.c_void_p(pointer), 0) for pointer in (0, 1, start + page - 4, start)
        )

    agent = Agent(tmp_path, body)
    agent.learn(place / "file")
    answer, left = agent.serve()
    assert (answer, len(left)) == (b"-1 -1 -1 -1", 4)


def test_a_full_descriptor_table_is_the_callers_error(tmp_path: Path, place: Path) -> None:
    def body() -> bytes:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
        return read(place / "file")

    agent = Agent(tmp_path, body)
    agent.learn(place / "file")
    answer, (left,) = agent.serve()
    assert (answer, left.error, left.sequence) == (b"EMFILE", errno.EMFILE, 0)


def test_flags_arrive_as_they_were_given(tmp_path: Path, place: Path) -> None:
    def body() -> bytes:
        answers = []
        for wanted in (0, os.O_NONBLOCK, os.O_CLOEXEC):
            opened = os.open(place / "file", wanted | os.O_CLOEXEC)
            answers.append(fcntl.fcntl(opened, fcntl.F_GETFL) & (os.O_NONBLOCK | os.O_ACCMODE))
            os.close(opened)
        return repr(answers).encode()

    agent = Agent(tmp_path, body)
    agent.learn(place / "file")
    assert agent.serve() == (repr([0, os.O_NONBLOCK, 0]).encode(), [])


def test_no_descriptor_is_kept(tmp_path: Path, place: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    agent = Agent(tmp_path, lambda: b"".join(read(place / "file") for _ in range(500))[:4])
    agent.learn(place / "file")
    begun = len(os.listdir("/proc/self/fd"))
    assert agent.serve() == (b"good", [])
    links_of_numbers = 1  # it is told by one, the same each time, what it has opened; none of a high number is kept
    assert before < begun <= len(os.listdir("/proc/self/fd")) <= begun + links_of_numbers


@contextlib.contextmanager
def repeating(turn: Callable[[], None]) -> Iterator[list[int]]:
    """Do something again and again on a thread; gives how often it was done."""
    stop, turns = threading.Event(), [0]

    def repeat() -> None:
        while not stop.is_set():
            turn()
            turns[0] += 1

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield turns
    finally:
        stop.set()
        thread.join()


@contextlib.contextmanager
def swapping(file: Path, secret: Path) -> Iterator[list[int]]:
    """Exchange the file and a link to the secret, and the directory and a link to the secret's, as fast as can be."""
    link, beside = file.parent / "link", file.parent.parent / "beside"
    link.symlink_to(secret)
    beside.symlink_to(secret.parent)

    def swap() -> None:
        for _ in range(2):
            libc.renameat2(flags.AT_FDCWD, bytes(file), flags.AT_FDCWD, bytes(link), 2)
        for _ in range(2):
            libc.renameat2(flags.AT_FDCWD, bytes(file.parent), flags.AT_FDCWD, bytes(beside), 2)

    with repeating(swap) as turns:
        yield turns


def race(file: Path) -> bytes:
    seen: dict[bytes, int] = {}
    end = time.monotonic() + RACE
    while time.monotonic() < end:
        answer = read(file)
        seen[answer] = seen.get(answer, 0) + 1
    return json.dumps({name.decode(): count for name, count in seen.items()}).encode()


def test_a_race_for_the_object_is_lost(tmp_path: Path, place: Path) -> None:
    secret = tmp_path / "secrets" / "file"
    secret.parent.mkdir()
    secret.write_bytes(b"secret")
    agent = Agent(tmp_path, lambda: race(place / "file"))
    agent.learn(place / "file")
    with swapping(place / "file", secret) as turns:
        answer, left = agent.serve()
    seen = json.loads(answer)
    assert "secret" not in seen
    assert seen["good"] == agent.log.count > 10
    assert seen["EACCES"] == len(left) > 10 and turns[0] > 10


def test_the_same_race_is_won_without_it(tmp_path: Path, place: Path) -> None:
    """Positive control: a plain open gets the secret."""
    secret = tmp_path / "secrets" / "file"
    secret.parent.mkdir()
    secret.write_bytes(b"secret")
    with swapping(place / "file", secret):
        seen = json.loads(race(place / "file"))
    assert seen["secret"] > 0 and seen["good"] > 0


def test_a_closed_log_serves_nothing(tmp_path: Path, place: Path) -> None:
    agent = Agent(tmp_path, lambda: read(place / "file"))
    agent.learn(place / "file")
    agent.log.close()
    answer, left = agent.serve()
    assert (answer, len(left)) == (b"EACCES", 1)


def test_a_full_disk_serves_nothing(tmp_path: Path, place: Path) -> None:
    agent = Agent(tmp_path, lambda: read(place / "file") + b" " + read(place / "file"))
    agent.learn(place / "file")
    agent.fill_disk()
    answer, left = agent.serve()
    assert (answer, len(left), agent.log.count) == (b"EACCES EACCES", 2, 0)


READS = """
import os, socket, sys
for kind in (socket.SOCK_STREAM, socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_STREAM):
    try:
        socket.socket(socket.AF_INET, kind).close()
    except OSError as error:
        print(kind, error.errno)
os.chdir("data")
for _ in range(3):
    for name in ("a", "./a", "../data/b", os.path.abspath("b"), "missing", "link", os.path.abspath("link")):
        try:
            print(os.stat(name)[:7], os.lstat(name)[:7], os.access(name, os.R_OK))
            with open(name) as file:
                print(name, file.read())
        except OSError as error:
            print(name, error.errno)
    print(sorted(os.listdir(".")))
"""


def test_with_and_without_it_a_run_is_the_same(sandbox: Sandbox) -> None:
    data = sandbox.workspace / "data"
    data.mkdir()
    (data / "a").write_text("1")
    (data / "b").write_text("2")
    (data / "link").symlink_to("a")
    if sandbox.uid:
        os.chown(data, sandbox.uid, sandbox.uid)
    script = sandbox.workspace / "reads.py"
    script.write_text(READS)
    with_it = sandbox.run([SYSTEM_PYTHON, "reads.py"])
    without = sandbox.run([SYSTEM_PYTHON, "reads.py"], environment={"HELM_SENTRY_NATIVE": "off"})
    assert with_it.stdout == without.stdout and "1" in with_it.stdout

    def judged(result: object) -> list[tuple[object, ...]]:
        members = ("syscall", "ops", "target", "verdict", "rule", "action", "object", "errno")
        records = [r for r in result.records if r["type"] == "decision"]  # type: ignore[attr-defined]
        return [
            tuple(map(str, (r.get(m) for m in members)))
            for r in records
            if "data" in str(r.get("target")) or r["syscall"] == "socket"
        ]

    assert judged(with_it) == judged(without)


@pytest.mark.parametrize(("receiver", "processors"), [("on", "all"), ("on", "one"), ("off", "one")])
def test_a_supervisor_that_is_stopped_hands_over_the_right_file(
    sandbox: Sandbox, victims: Path, receiver: str, processors: str
) -> None:
    """Stopped while it hands over a descriptor, as by ^Z or a suspended machine, the supervisor takes it up again."""
    file = sandbox.workspace / "file"
    file.write_text("the file")
    rules = (
        f"allow:\n  - id: program\n    exec: {{paths: ['{victims}/*']}}\n"
        "  - id: files\n    file: {do: [read, stat], paths: ['/**']}\n"
    )
    argv = sandbox.argv([str(victims / "open_often"), str(file), "4000"], sandbox.policy(rules))
    argv = ["taskset", "1", *argv] if processors == "one" else argv
    environment = sandbox.environment() | {"HELM_SENTRY_NATIVE": receiver}
    process = sandbox.popen(argv, env=environment, stdout=subprocess.PIPE)
    stops = 0
    while process.poll() is None:
        process.send_signal(signal.SIGSTOP)
        process.send_signal(signal.SIGCONT)
        stops += 1
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.0002)
    answer, _ = process.communicate(timeout=60)
    assert (answer, process.returncode) == ("0 wrong\n", 0)
    assert stops > 100
