"""What the compiled receiver creates, writes, makes, removes and moves by itself, and what it leaves to the broker."""

import ctypes
import errno
import fcntl
import json
import os
import resource
import stat
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from helm_sentry.abi import flags, libc, syscalls
from helm_sentry.abi.arch import native
from helm_sentry.audit import record
from helm_sentry.audit.line import decision_line, template_beneath
from helm_sentry.decision import Decision, Reason, Verdict
from helm_sentry.decode.operations import file_operation, opening, opening_kinds, tree_operation
from helm_sentry.native.library import MISSING
from helm_sentry.operation import Kind, Operation
from tests.kernel.daemons import until
from tests.kernel.test_receiver import Agent, place, repeating

__all__ = ["place"]
pytestmark = pytest.mark.kernel

FILE = stat.S_IFREG
FUTEX = str(syscalls.number("futex", native()))
CREATES, TRUNCATES, CHANGES = 8, 4, 16
ALLOWED = Decision(Verdict.ALLOW, Reason.RULE, "test")
RACE = 1.0  # seconds
PATIENCE = 20  # times that, for the controls
MAKE, REMOVE, MOVE = (Kind.FILE_CREATE,), (Kind.FILE_DELETE,), (Kind.FILE_RENAME, Kind.FILE_CREATE, Kind.FILE_DELETE)
ENTRIES = {
    **dict.fromkeys(("mkdir", "mkdirat"), MAKE),
    **dict.fromkeys(("unlink", "unlinkat", "rmdir"), REMOVE),
    **dict.fromkeys(("rename", "renameat", "renameat2"), MOVE),
}
NUMBERS = {
    row.name: number for number, row in syscalls.table(native()).items() if row.name in {"open", "openat", *ENTRIES}
}
W, RW, CREAT, EXCL, TRUNC, APPEND = os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_EXCL, os.O_TRUNC, os.O_APPEND


class Changing(Agent):
    """An agent whose receiver may do everything beneath a directory."""

    def __init__(self, directory: Path, body: Callable[[], bytes], beneath: Path, device: int = -1) -> None:
        super().__init__(directory, body, *NUMBERS.values())
        device = os.stat(beneath).st_dev if device < 0 else device
        self._beneath, self._device = str(beneath), device
        for name in NUMBERS:
            if kinds := ENTRIES.get(name):
                self.teach(name, MISSING, CHANGES, kinds, "value")
                continue
            for access in (os.O_RDONLY, W, RW):
                kinds = opening_kinds(access | CREAT, False, False)
                self.teach(name, MISSING, access | CREATES, kinds, "value")
                for truncates in (0, TRUNC) if access else ():
                    kinds = opening_kinds(access | truncates, True, False)
                    manner = access | (TRUNCATES if truncates else 0)
                    self.teach(name, FILE, manner, kinds, "value" if truncates else "fd")

    def teach(self, name: str, kind: int, manner: int, kinds: tuple[Kind, ...], action: record.ActionName) -> None:
        text = template_beneath(name, kinds, ALLOWED, 0, action)
        self.receiver.learn_beneath(name, kind, self._beneath, self._device, text, manner=manner)


def called(name: str, *arguments: object) -> bytes:
    """What a call gives, by number, so that the C library chooses no other: the result or the name of the error."""
    c = ctypes.CDLL(None, use_errno=True)
    # Texts must live until the call is over, which those of a list do.
    given = [os.fsencode(argument) if isinstance(argument, str | Path) else argument for argument in arguments]
    words = [ctypes.c_char_p(word) if isinstance(word, bytes) else ctypes.c_long(word) for word in given]
    result = c.syscall(ctypes.c_long(NUMBERS[name]), *words)
    return b"%d" % result if result >= 0 else errno.errorcode[ctypes.get_errno()].encode()


def wrote(path: str | Path, open_flags: int, text: bytes = b"new", mode: int = 0o666, at: int | None = None) -> bytes:
    """What opening and writing gives: the flags of the description, or the name of the error."""
    try:
        opened = os.open(path, open_flags | os.O_CLOEXEC, mode, dir_fd=at)
    except OSError as error:
        return errno.errorcode[error.errno or 0].encode()
    try:
        with suppress(OSError):
            os.write(opened, text)
        return b"%x" % kept_flags(opened)
    finally:
        os.close(opened)


def kept_flags(opened: int) -> int:
    return fcntl.fcntl(opened, fcntl.F_GETFL) & (os.O_ACCMODE | APPEND | os.O_NONBLOCK)


def tree(root: Path) -> dict[str, tuple[str, bytes]]:
    """What lies beneath a directory: modes and contents."""
    found = {}
    for path in sorted(root.rglob("*")):
        mode = stat.filemode(path.lstat().st_mode)
        held = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        found[str(path.relative_to(root))] = mode, held
    return found


def all_of_it(root: Path) -> bytes:
    """Every call that is served, some of them twice, so that what they fail with is seen, too."""
    os.chdir(root)
    held = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    os.umask(0o027)
    answers = [
        wrote(root / "a", W | CREAT | EXCL, b"a"),
        wrote("b", RW | CREAT | TRUNC, b"b", 0o777),
        wrote("c", W | CREAT | APPEND, b"c", 0o600, held),
        wrote("d", os.O_RDONLY | CREAT | EXCL, mode=0o6755),
        wrote("a", W | TRUNC, b"A"),
        wrote("a", W | APPEND | os.O_NONBLOCK, b"A"),
        wrote("b", RW, b"B"),
        wrote("b", RW | CREAT | TRUNC, b""),
        called("mkdirat", held, "sub", 0o777),
        called("mkdirat", flags.AT_FDCWD, "sub", 0o777),
        called("mkdirat", flags.AT_FDCWD, f"{root}//sub/./deep", 0o1777),
        wrote(".//sub/././e", W | CREAT, b"e"),
        called("renameat2", held, "sub/e", held, "f", 0),
        called("renameat", held, "f", flags.AT_FDCWD, "sub/f"),
        called("renameat", held, "c", flags.AT_FDCWD, "d"),
        called("renameat", held, "d", flags.AT_FDCWD, "d"),
        called("unlinkat", held, "b", 0),
        called("unlinkat", held, "sub/deep", flags.AT_REMOVEDIR),
    ]
    if "mkdir" in NUMBERS:
        answers += [
            called("mkdir", root / "g", 0o700),
            called("rename", root / "a", "g/a"),
            called("unlink", "g/a"),
            called("rmdir", "g"),
            b"%d" % (int(called("open", "h", W | CREAT | EXCL, 0o640)) > 2),
        ]
    return b" ".join(answers)


def test_all_of_it_is_done_as_natively_without_the_interpreter(tmp_path: Path, place: Path) -> None:
    other = place.parent / "natively"
    other.mkdir()
    child = os.fork()
    if child == 0:
        (other.parent / "answers").write_bytes(all_of_it(other))
        os._exit(0)
    os.waitpid(child, 0)
    for path in place.iterdir():
        path.unlink()
    agent = Changing(tmp_path, lambda: all_of_it(place), place)
    agent.learn(place, Kind.FILE_LIST)
    before = os.umask(0o022)
    try:
        answer, left = agent.serve()
    finally:
        os.umask(before)
    assert (answer, left) == ((other.parent / "answers").read_bytes(), [])
    assert b"EEXIST" in answer
    assert tree(place) == tree(other)
    assert tree(place)["d"] == ("-rw-------", b"c")
    counts = agent.receiver.counts()
    assert counts.received == counts.recorded + 1  # the getppid at the end


def test_its_records_are_the_brokers_byte_for_byte(tmp_path: Path, place: Path) -> None:
    def body() -> bytes:
        answers = [
            wrote(place / "new", W | CREAT | EXCL),
            wrote(place / "new", RW),
            wrote(place / "new", W | TRUNC),
            called("mkdirat", -100, place / "sub", 0o777),
            called("mkdirat", -100, place / "sub", 0o777),
            called("renameat", -100, place / "file", -100, place / "sub" / "file"),
            called("renameat", -100, place / "other", -100, place / "other"),
            called("unlinkat", -100, place / "other", 0),
        ]
        return b" ".join(answers)

    agent = Changing(tmp_path, body, place)
    assert agent.serve() == (b"1 2 1 0 EEXIST 0 0 0", [])
    new, status = str(place / "new"), os.stat(place / "new")
    same = f"{status.st_dev:x}:{status.st_ino:x}"
    create = file_operation(Kind.FILE_CREATE, str(place / "sub"))

    def moving(name: str, to: str) -> tuple[Operation, ...]:
        old, new = str(place / name), str(place / to)
        return (
            file_operation(Kind.FILE_RENAME, old),
            file_operation(Kind.FILE_CREATE, new),
            tree_operation(Kind.FILE_DELETE, new),
        )

    wanted: list[tuple[str, tuple[Operation, ...], record.ActionName, str] | int] = [
        ("openat", opening(W | CREAT | EXCL, new, False, False), "value", ""),
        ("openat", opening(RW, new, True, False), "fd", same),
        ("openat", opening(W | TRUNC, new, True, False), "value", same),
        ("mkdirat", (create,), "value", ""),
        ("mkdirat", (create,), "value", ""),
        4,
        ("renameat", moving("file", "sub/file"), "value", ""),
        ("renameat", moving("other", "other"), "value", ""),
        ("unlinkat", (tree_operation(Kind.FILE_DELETE, str(place / "other")),), "value", ""),
    ]
    prev = record.FIRST_PREV
    for seq, (line, want) in enumerate(zip((tmp_path / "audit.jsonl").read_bytes().splitlines(), wanted, strict=True)):
        written = record.read(line, seq, prev)  # raises unless canonical, hashed and chained
        when = int(str(written["time"]))
        if isinstance(want, int):
            fields = record.outcome(want, "EEXIST")
            fields |= {"seq": seq, "time": when, "prev": prev}
            assert record.link(fields) == line + b"\n"
        else:
            syscall, operations, action, found = want
            ours = decision_line(agent.pid, syscall, operations, ALLOWED, action, "", found)
            assert ours.fill(prev, seq, when)[0] == line + b"\n"
        prev = str(written["hash"])


def test_a_default_acl_takes_the_place_of_the_mask(tmp_path: Path, place: Path) -> None:
    """As the kernel has it: with one the mask counts for nothing."""
    everybody = b"".join(struct.pack("<HHI", tag, 6, 0xFFFFFFFF) for tag in (0x01, 0x04, 0x20))  # rw for all
    (place / "d").mkdir()
    try:
        os.setxattr(place / "d", "system.posix_acl_default", struct.pack("<I", 2) + everybody)
    except OSError:
        pytest.skip("this file system has no ACLs")

    def body() -> bytes:
        os.umask(0o077)
        return wrote(place / "d" / "with", W | CREAT) + wrote(place / "without", W | CREAT)

    agent = Changing(tmp_path, body, place)
    before = os.umask(0o022)
    try:
        assert agent.serve() == (b"11", [])
    finally:
        os.umask(before)
    assert tree(place)["d/with"][0] == "-rw-rw-rw-"
    assert tree(place)["without"][0] == "-rw-------"


UNUSUAL: dict[str, Callable[[Path], bytes]] = {
    "an unknown flag": lambda at: wrote(at / "new", W | CREAT | os.O_SYNC),
    "unbuffered": lambda at: wrote(at / "file", W | os.O_DIRECT),
    "a file without a name": lambda at: wrote(at, W | os.O_TMPFILE),
    "a path": lambda at: wrote(at / "file", os.O_PATH | CREAT),
    "a directory that is to be created": lambda at: wrote(at / "new", os.O_RDONLY | CREAT | os.O_DIRECTORY),
    "an access mode that grants nothing": lambda at: wrote(at / "new", 3 | CREAT),
    "to create exclusively what is there": lambda at: wrote(at / "file", W | CREAT | EXCL),
    "to write what is not there": lambda at: wrote(at / "missing", W),
    "to truncate while reading": lambda at: wrote(at / "file", os.O_RDONLY | TRUNC),
    "to create, perhaps, and read": lambda at: wrote(at / "file", os.O_RDONLY | CREAT),
    "a directory": lambda at: wrote(at / "sub", W | CREAT),
    "a link": lambda at: wrote(at / "link", W | TRUNC),
    "a link to nothing": lambda at: wrote(at / "dangling", W | CREAT),
    "a link, exclusively": lambda at: wrote(at / "dangling", W | CREAT | EXCL),
    "a FIFO": lambda at: wrote(at / "fifo", W | os.O_NONBLOCK),
    "through a link": lambda at: wrote(at / "linked" / "new", W | CREAT),
    "the directory itself": lambda at: called("mkdirat", -100, at, 0o777),
    "a slash at the end": lambda at: called("mkdirat", -100, f"{at}/new/", 0o777),
    "a slash at a file's end": lambda at: wrote(f"{at}/new/", W | CREAT),
    "a dot behind a link": lambda at: wrote(f"{at}/linked/./new", W | CREAT),
    "a file in a dot": lambda at: wrote(f"{at}/sub/.", W | CREAT),
    "a dot at the end": lambda at: called("unlinkat", -100, f"{at}/sub/.", flags.AT_REMOVEDIR),
    "two dots": lambda at: wrote(f"{at}/sub/../new", W | CREAT),
    "a slash at the end, twice": lambda at: called("mkdirat", -100, f"{at}/new//", 0o777),
    "outside": lambda at: wrote(at.parent / "outside", W | CREAT),
    "in nothing": lambda at: wrote(at / "missing" / "new", W | CREAT),
    "in a file": lambda at: wrote(at / "file" / "new", W | CREAT),
    "a long name": lambda at: wrote(at / ("n" * 256), W | CREAT),
    "a quotation mark": lambda at: wrote(at / 'n"', W | CREAT),
    "a backslash": lambda at: wrote(at / "n\\", W | CREAT),
    "not ASCII": lambda at: called("mkdirat", -100, at / "ü", 0o777),
    "a control character": lambda at: called("mkdirat", -100, at / "n\n", 0o777),
    "no directory's descriptor": lambda at: called("mkdirat", 999, "new", 0o777),
    "a descriptor of what is no directory": lambda at: called("mkdirat", 0, "new", 0o777),
    "no path": lambda at: called("mkdirat", -100, 8, 0o777),
    "to remove what is not there": lambda at: called("unlinkat", -100, at / "missing", 0),
    "to remove a directory as a file": lambda at: called("unlinkat", -100, at / "sub", 0),
    "to remove a file as a directory": lambda at: called("unlinkat", -100, at / "file", flags.AT_REMOVEDIR),
    "to remove with flags": lambda at: called("unlinkat", -100, at / "file", 1),
    "to move a directory": lambda at: called("renameat", -100, at / "sub", -100, at / "moved"),
    "to move onto a directory": lambda at: called("renameat", -100, at / "file", -100, at / "sub"),
    "to move what is not there": lambda at: called("renameat", -100, at / "missing", -100, at / "moved"),
    "to move out": lambda at: called("renameat", -100, at / "file", -100, at.parent / "moved"),
    "to move in": lambda at: called("renameat", -100, at.parent / "beside", -100, at / "moved"),
    "to move beside a namesake": lambda at: called("renameat", -100, at / "file", -100, f"{at}-beside/moved"),
    "to move and replace nothing": lambda at: called("renameat2", -100, at / "file", -100, at / "moved", 1),
    "to exchange": lambda at: called("renameat2", -100, at / "file", -100, at / "other", 2),
    "to move through a link": lambda at: called("renameat", -100, at / "file", -100, at / "linked" / "moved"),
}


@pytest.mark.parametrize("what", UNUSUAL)
def test_everything_else_is_the_brokers(tmp_path: Path, place: Path, what: str) -> None:
    (place / "sub").mkdir()
    (place.parent / "beside").write_bytes(b"beside")
    place.with_name("place-beside").mkdir()
    (place / "link").symlink_to("file")
    (place / "dangling").symlink_to("missing")
    (place / "linked").symlink_to("sub")
    os.mkfifo(place / "fifo")
    before = tree(place.parent)
    agent = Changing(tmp_path, lambda: UNUSUAL[what](place), place)
    answer, left = agent.serve()
    assert (answer, [unserved.sequence for unserved in left]) == (b"EACCES", [-1])
    after = tree(place.parent)
    assert after.pop("audit.jsonl")[1] == b""
    assert after == before


def one_of_each(at: Path) -> bytes:
    answers = [
        wrote(at / "new", W | CREAT),
        wrote(at / "file", W | TRUNC),
        called("mkdirat", -100, at / "sub", 0o777),
        called("unlinkat", -100, at / "file", 0),
        called("renameat", -100, at / "file", -100, at / "moved"),
    ]
    return b" ".join(answers)


REFUSED = b" ".join([b"EACCES"] * 5)


def test_another_file_system_is_the_brokers(tmp_path: Path, place: Path) -> None:
    agent = Changing(tmp_path, lambda: one_of_each(place), place, os.stat(place).st_dev + 1)
    before = tree(place)
    answer, left = agent.serve()
    assert (answer, len(left), agent.log.count, tree(place)) == (REFUSED, 5, 0, before)


def test_what_is_forgotten_is_the_brokers(tmp_path: Path, place: Path) -> None:
    agent = Changing(tmp_path, lambda: one_of_each(place), place)
    agent.receiver.forget(1)
    before = tree(place)
    answer, left = agent.serve()
    assert (answer, len(left), agent.log.count, tree(place)) == (REFUSED, 5, 0, before)


def test_one_thing_does_not_stand_for_another(tmp_path: Path, place: Path) -> None:
    """Who may create may not truncate, and that a name is missing is no leave to remove or to make it."""
    agent = Changing(tmp_path, lambda: one_of_each(place), place)
    agent.receiver.forget(0)
    agent.teach("openat", MISSING, W | CREATES, opening_kinds(W | CREAT, False, False), "value")
    agent.teach("openat", FILE, W, opening_kinds(W, True, False), "fd")
    for name in ENTRIES:
        agent.teach(name, MISSING, 0, (Kind.FILE_STAT,), "errno")
    answer, left = agent.serve()
    assert (answer, len(left), agent.log.count) == (b"1 " + REFUSED[7:], 4, 1)


@pytest.mark.parametrize("how", ["closed", "full"])
def test_without_a_record_nothing_is_done(tmp_path: Path, place: Path, how: str) -> None:
    agent = Changing(tmp_path, lambda: one_of_each(place), place)
    if how == "closed":
        agent.log.close()
    else:
        agent.fill_disk()
    before = tree(place)
    answer, left = agent.serve()
    assert (answer, len(left), agent.log.count, tree(place)) == (REFUSED, 5, 0, before)


def test_a_full_descriptor_table_is_the_callers_error(tmp_path: Path, place: Path) -> None:
    def body() -> bytes:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
        return wrote(place / "new", W | CREAT)

    answer, (left,) = (agent := Changing(tmp_path, body, place)).serve()
    assert (answer, left.error, left.sequence, agent.log.count) == (b"EMFILE", errno.EMFILE, 0, 1)


def test_what_fails_after_its_record_has_its_error_recorded(tmp_path: Path, place: Path) -> None:
    """The broker writes it."""
    (place / "filled").mkdir()
    (place / "filled" / "file").write_bytes(b"")
    agent = Changing(tmp_path, lambda: called("unlinkat", -100, place / "filled", flags.AT_REMOVEDIR), place)
    answer, (left,) = agent.serve()
    assert (answer, left.error, left.sequence, agent.log.count) == (b"ENOTEMPTY", errno.ENOTEMPTY, 0, 1)
    assert agent.receiver.counts().recorded == 1


def test_no_descriptor_is_kept(tmp_path: Path, place: Path) -> None:
    (place / "sub").mkdir()

    def body() -> bytes:
        for what in UNUSUAL.values():
            what(place)
        for _ in range(50):
            wrote(place / "sub" / "new", W | CREAT | TRUNC)
            called("renameat", -100, place / "sub" / "new", -100, place / "moved")
            called("unlinkat", -100, place / "moved", 0)
        return b"done"

    agent = Changing(tmp_path, body, place)
    begun = len(os.listdir("/proc/self/fd"))
    assert agent.serve()[0] == b"done"
    assert len(os.listdir("/proc/self/fd")) <= begun + 4  # links of numbers, which it keeps


# Races. The victim lies outside of what the receiver was taught; what leads to it is exchanged for what may be changed.


@contextmanager
def exchanging(pair: tuple[Path, Path]) -> Iterator[list[int]]:
    """Exchange the names of a pair, back and forth, as fast as can be; of the first there may be nothing to begin with."""
    one, other = map(bytes, pair)
    how = flags.RENAME_EXCHANGE if os.path.lexists(one) else 0

    def swap() -> None:
        for old, new in ((other, one), (one, other)):
            with suppress(OSError):
                libc.renameat2(flags.AT_FDCWD, old, flags.AT_FDCWD, new, how)

    with repeating(swap) as turns:
        yield turns


def create_and_remove(at: Path) -> bytes:
    answers = [
        wrote(at / "new", W | CREAT | EXCL, b"bad"),
        called("unlinkat", -100, at / "new", 0),
        called("unlinkat", -100, at / "token", 0),
        wrote(at / "file", W | TRUNC, b"bad"),
        wrote(at / "file", W | CREAT | APPEND, b"bad"),
        called("mkdirat", -100, at / "made", 0o777),
        called("renameat", -100, at / "made", -100, at / "made-again"),
        called("renameat", -100, at / "file", -100, at / "moved"),
        called("renameat", -100, at / "moved", -100, at / "file"),
        called("unlinkat", -100, at / "made", flags.AT_REMOVEDIR),
    ]
    return answers[0] + answers[3]


def repeated(body: Callable[[], bytes]) -> bytes:
    seen: dict[str, int] = {}
    end = time.monotonic() + RACE
    while time.monotonic() < end:
        answer = body().decode()
        seen[answer] = seen.get(answer, 0) + 1
    return json.dumps(seen).encode()


@pytest.fixture
def victim(tmp_path: Path, place: Path) -> Path:
    secrets = place.parent / "secrets"
    secrets.mkdir()
    for name in ("file", "token"):
        (secrets / name).write_bytes(b"untouched")
    (place.parent / "beside").symlink_to(secrets)
    (place.parent / "link").symlink_to(secrets / "file")
    return secrets


UNTOUCHED = {"file": ("-rw-r--r--", b"untouched"), "token": ("-rw-r--r--", b"untouched")}


def exchanged(place: Path) -> tuple[Path, Path]:
    return place, place.parent / "beside"


def exchanged_file(place: Path) -> tuple[Path, Path]:
    return place / "file", place.parent / "link"


def appearing(place: Path) -> tuple[Path, Path]:
    """A name that is missing, and a link to what the victim lacks."""
    (place.parent / "link").unlink()
    (place.parent / "link").symlink_to(place.parent / "secrets" / "more")
    return place / "new", place.parent / "link"


RACES: dict[str, tuple[Callable[[Path], tuple[Path, Path]], Callable[[Path], bytes]]] = {
    "a directory for a link to the victim's": (exchanged, create_and_remove),
    "a file for a link to the victim": (exchanged_file, lambda at: wrote(at / "file", W | TRUNC, b"bad")),
    "nothing for a link to what the victim lacks": (appearing, lambda at: wrote(at / "new", W | CREAT, b"bad")),
}


@pytest.mark.parametrize("race", RACES)
def test_races_for_what_is_changed_are_lost(tmp_path: Path, place: Path, victim: Path, race: str) -> None:
    pair, body = RACES[race]
    agent = Changing(tmp_path, lambda: repeated(lambda: body(place)), place)
    with exchanging(pair(place)) as turns:
        answer, left = agent.serve()
    assert tree(victim) == UNTOUCHED
    assert turns[0] > 10 and agent.log.count > 10 and len(left) > 10, answer


@pytest.mark.parametrize("race", RACES)
def test_the_same_races_are_won_without_it(place: Path, victim: Path, race: str) -> None:
    pair, body = RACES[race]
    with exchanging(pair(place)):
        for _ in range(PATIENCE):
            repeated(lambda: body(place))
            if tree(victim) != UNTOUCHED:
                return
    pytest.fail("the control did not win")


def test_what_a_descriptor_refers_to_is_changed_and_not_its_namesake(tmp_path: Path, place: Path) -> None:
    """The directory of a relative path is the caller's, also while another one takes its name."""
    other = place.parent / "another"
    other.mkdir()

    def body() -> bytes:
        held = -1
        while held < 0:
            with suppress(PermissionError):  # it has the other's name just now
                held = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
        made, elsewhere, end = 0, 0, time.monotonic() + RACE
        while time.monotonic() < end:
            if wrote("new", W | CREAT | EXCL, at=held) != b"1":
                continue
            made += 1
            try:
                os.stat("new", dir_fd=held)
            except FileNotFoundError:
                elsewhere += 1
            while called("unlinkat", held, "new", 0) == b"EACCES":
                pass
        return json.dumps([made, elsewhere]).encode()

    agent = Changing(tmp_path, body, place)
    agent.learn(place, Kind.FILE_LIST)
    with exchanging((place, other)) as turns:
        answer, left = agent.serve()
    made, elsewhere = json.loads(answer)
    assert turns[0] > 10 and made > 10 and left
    assert elsewhere == 0


def while_it_waits_for_its_turn(agent: Changing, change: Callable[[], object]) -> tuple[bytes, int]:
    """What the agent's one call gives that arrives while the broker changes entries, and how many were left to the broker."""

    def take_the_turn() -> None:
        with agent.receiver.entries:
            held.set()
            # It has the call, and has got as far as it gets: to the lock.
            until(lambda: agent.receiver.counts().received and call_of.read_text().split()[0] == FUTEX)
            change()

    held, call_of = threading.Event(), Path(f"/proc/self/task/{threading.get_native_id()}/syscall")
    broker = threading.Thread(target=take_the_turn)
    broker.start()
    held.wait()
    answer, left = agent.serve()
    broker.join()
    return answer, len(left)


def test_a_directory_that_is_moved_before_its_entry_takes_the_entry_along(tmp_path: Path, place: Path) -> None:
    """An entry is moved under the name that its directory has then, not under the one that it had when the call arrived."""
    (place / "sub").mkdir()
    (place / "sub" / "file").write_bytes(b"taken along")
    held = os.open(place / "sub", os.O_RDONLY | os.O_DIRECTORY)
    agent = Changing(tmp_path, lambda: called("renameat", held, "file", held, "moved"), place)
    elsewhere = place.parent / "elsewhere"
    answer = while_it_waits_for_its_turn(agent, lambda: os.rename(place / "sub", elsewhere))
    os.close(held)
    assert tree(elsewhere) == {"file": ("-rw-r--r--", b"taken along")}
    assert answer == (b"EACCES", 1)
    assert agent.log.count == 0


def test_a_directory_whose_name_was_taken_has_its_makers_mask(tmp_path: Path, place: Path) -> None:
    """Also when the name becomes free while the call is served."""
    (place / "sub").mkdir()

    def body() -> bytes:
        os.umask(0o077)
        return called("mkdirat", -100, place / "sub", 0o777)

    agent = Changing(tmp_path, body, place)
    before = os.umask(0)  # that of whoever was served last
    try:
        answer, left = while_it_waits_for_its_turn(agent, (place / "sub").rmdir)
    finally:
        os.umask(before)
    assert (answer, left) == (b"0", 0)
    assert tree(place)["sub"] == ("drwx------", b"")
