"""Tell by the errors of denied calls whether a denied file exists."""

import errno
import os
import socket
from collections.abc import Callable
from typing import Any

from attack import AT_FDCWD, OUTSIDE, WORK, call, main

PROMISE = "what is denied looks like what is missing"
CONTROL = "one of the calls tells the two apart"
ADVICE = "report it: the name of the call is in the output"


def outcome(action: Callable[[], Any]) -> int:
    try:
        action()
    except OSError as error:
        return error.errno or 0
    return 0


def probes(path: str) -> dict[str, Callable[[], Any]]:
    """What a program may do with a name without having it changed."""
    return {
        "open": lambda: os.open(path, os.O_RDONLY),
        "open to write": lambda: os.open(path, os.O_WRONLY),
        "O_PATH": lambda: os.open(path, os.O_PATH),
        "O_PATH link": lambda: os.open(path, os.O_PATH | os.O_NOFOLLOW),
        "create": lambda: os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY),
        "as a directory": lambda: os.open(f"{path}/x", os.O_RDONLY),
        "stat": lambda: os.stat(path),
        "lstat": lambda: os.lstat(path),
        "access": lambda: os.access(path, os.F_OK) or call("faccessat2", AT_FDCWD, path, 0, 0),
        "readlink": lambda: os.readlink(path),
        "statfs": lambda: os.statvfs(path),
        "getxattr": lambda: os.getxattr(path, "user.none"),
        "listxattr": lambda: os.listxattr(path),
        "chdir": lambda: os.chdir(path),
        "mkdir": lambda: os.mkdir(path),
        "mknod": lambda: os.mkfifo(path),
        "rmdir": lambda: os.rmdir(path),
        "symlink": lambda: os.symlink("x", path),
        "link": lambda: os.link(path, f"{WORK}/linked"),
        "rename onto": lambda: os.rename(f"{WORK}/none", path),
        "truncate": lambda: os.truncate(path, -1),
        "chmod": lambda: os.chmod(f"{path}/", 0o600),
        "utime": lambda: os.utime(f"{path}/"),
        "execve": lambda: os.execve(path, ["x"], {}),
        "connect": lambda: socket.socket(socket.AF_UNIX).connect(path),
        "bind": lambda: socket.socket(socket.AF_UNIX).bind(path),
        "inotify": lambda: call("inotify_add_watch", call("inotify_init1", 0), path, 0x1000002),
        "handle": lambda: call("name_to_handle_at", AT_FDCWD, path, bytes(8), bytes(8), 0),
        "swapon": lambda: call("swapon", path, 0),
        "chroot": lambda: call("chroot", path),
    }


def attempt() -> bool:
    there, missing = probes(f"{OUTSIDE}/victim"), probes(f"{OUTSIDE}/nothing")
    told = []
    for name in there:
        one, other = outcome(there[name]), outcome(missing[name])
        if one != other:
            told.append(f"{name}: {errno.errorcode.get(one, one)} and {errno.errorcode.get(other, other)}")
    print(*told, sep="\n")
    return bool(told)


main(attempt)
