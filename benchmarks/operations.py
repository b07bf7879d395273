"""What each brokered operation costs more."""

import os
import socket

from harness import Lab, Row, main
from servers import sink


def measure(lab: Lab) -> list[Row]:
    place, here = lab.workspace, lab.supervised()[:1]
    (place / "link").symlink_to("data")
    files: list[tuple[str, str, tuple[object, ...]]] = [
        ("open of a file that is not there", "missing", (place / "missing",)),
        ("stat", "stat", (lab.data,)),
        ("access", "access", (lab.data,)),
        ("readlink", "readlink", (place / "link",)),
        ("create, write, close", "write", (place / "new",)),
        ("mkdir and rmdir", "directory", (place / "directory",)),
        ("rename, twice", "rename", (lab.data, place / "moved")),
        ("link and unlink", "link", (lab.data, place / "second")),
        ("symlink and unlink", "symlink", ("data", place / "other")),
        ("chmod", "chmod", (lab.data,)),
        ("truncate", "truncate", (lab.data,)),
        ("utimensat", "times", (lab.data,)),
        ("getxattr", "getxattr", (lab.data,)),
    ]
    rows = []
    for question, operation, arguments in files:
        rows += lab.alternate(
            question, "us", lambda s, o=operation, a=arguments: lab.looped(s, o, 1000, *a), here, rounds=5
        )
    with (
        sink(socket.SOCK_STREAM) as tcp,
        sink(socket.SOCK_DGRAM) as udp,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as unix,
    ):
        unix.bind(os.fspath(place / "socket"))
        network: list[tuple[str, str, tuple[object, ...]]] = [
            ("TCP connect", "connect", (tcp,)),
            ("TCP connection: socket, connect, close", "connection", (tcp,)),
            ("Unix connect", "unix-connect", (place / "socket",)),
            ("bind", "bind", ()),
            ("sendto", "sendto", (udp,)),
        ]
        for question, operation, arguments in network:
            rows += lab.alternate(
                question, "us", lambda s, o=operation, a=arguments: lab.looped(s, o, 500, *a), here, rounds=5
            )
    rows += lab.alternate("fork and exec of `true`", "us", lambda s: lab.looped(s, "exec", 200, "/bin/true"), here)
    return rows


if __name__ == "__main__":
    main(measure, __doc__)
