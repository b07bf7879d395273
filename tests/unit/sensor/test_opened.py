"""What the kernel reports of opens, read back."""

import errno
import os
import stat

from helm_sentry.operation import Kind
from helm_sentry.sensor import opened
from helm_sentry.sensor.opened import DEEP, HEAD, LOST, UNNAMED, UNSURE


def report(text: bytes, *, result: int = 3, flags: int = 0, mode: int = stat.S_IFREG, magic: int = 0) -> bytes:
    return HEAD.pack(41, result, 257, flags, mode, (8 << 20) | 1, 77, magic, -100, len(text)) + text


def test_names_stand_from_the_file_up() -> None:
    found = opened.opened(report(b"file/b\xff/a/"))
    assert (found.path, found.kind, found.known, found.sure) == ("/a/b\udcff/file", Kind.FILE_READ, True, True)
    assert found.object == f"{os.makedev(8, 1):x}:4d"
    assert (found.tid, found.syscall, found.result) == (41, 257, 3)


def test_a_directory_is_listed_and_the_root_has_no_name() -> None:
    found = opened.opened(report(b"", mode=stat.S_IFDIR))
    assert (found.path, found.kind) == ("/", Kind.FILE_LIST)


def test_what_is_not_certain_says_so() -> None:
    assert not opened.opened(report(b"a/", flags=UNSURE)).sure
    assert not opened.opened(report(b"a/", flags=DEEP)).known
    assert not opened.opened(report(b"", flags=LOST)).known


def test_pipes_and_memory_are_the_runs_own_and_namespaces_are_not() -> None:
    pipe = opened.opened(report(b"", flags=UNNAMED, mode=stat.S_IFIFO))
    memory = opened.opened(report(b"", flags=UNNAMED, magic=0x01021994))
    namespace = opened.opened(report(b"", flags=UNNAMED, magic=0x6E736673))
    assert (pipe.own, pipe.path) == (True, "pipe:[77]")
    assert (memory.own, namespace.own) == (True, False)
    assert not namespace.path.startswith("/")


def test_a_failed_open_has_the_text_that_was_passed() -> None:
    found = opened.opened(report(b"some/where", result=-errno.EACCES))
    assert (found.path, found.kind, found.directory, found.repeated) == ("some/where", None, -100, False)
    assert opened.opened(report(b"x", result=-512)).repeated
