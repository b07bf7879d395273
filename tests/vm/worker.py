"""What an agent does, one operation a line: `worker.py`, with JSON on standard input and output.

Each answer is the state of the names before, and the errno. Looking at names is decided by nobody here.
"""

import ctypes
import errno
import json
import mmap
import os
import signal
import socket
import stat
import sys
from collections.abc import Callable
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)
_AT_FDCWD = -100
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_held: dict[str, int] = {}  # descriptors from before there were rules


def main() -> None:
    print("ready", flush=True)
    for line in sys.stdin:
        operations = json.loads(line)
        print(json.dumps([perform(*operation) for operation in operations]), flush=True)


def perform(name: str, *arguments: Any) -> tuple[list[str], int]:
    before = [kind(argument) for argument in arguments if isinstance(argument, str) and argument.startswith("/")]
    try:
        _ACTIONS[name](*arguments)
    except OSError as error:
        return before, error.errno or -1
    return before, 0


def kind(path: str) -> str:
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return ""
    return "directory" if stat.S_ISDIR(mode) else "link" if stat.S_ISLNK(mode) else "file"


def hold(path: str) -> None:
    _held[path] = os.open(path, os.O_RDONLY)


def open_(path: str, flags: int) -> None:
    os.close(os.open(path, flags | os.O_NONBLOCK, 0o600))


def renameat2(old: str, new: str, flags: int) -> None:
    if _libc.renameat2(_AT_FDCWD, os.fsencode(old), _AT_FDCWD, os.fsencode(new), flags):
        raise OSError(ctypes.get_errno(), "")


def execute(path: str) -> None:
    pid = os.posix_spawn(path, ["true"], {})
    if os.waitpid(pid, 0)[1]:
        raise OSError(errno.EIO, "it ran and failed")


def map_code(path: str) -> None:
    mmap.mmap(_held[path], 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC).close()


def protect_code(path: str) -> None:
    size = 4096
    _libc.mmap.restype = ctypes.c_void_p
    place = _libc.mmap(None, ctypes.c_size_t(size), mmap.PROT_READ, mmap.MAP_PRIVATE, _held[path], ctypes.c_long(0))
    failed = _libc.mprotect(ctypes.c_void_p(place), ctypes.c_size_t(size), mmap.PROT_READ | mmap.PROT_EXEC)
    code = ctypes.get_errno()
    _libc.munmap(ctypes.c_void_p(place), ctypes.c_size_t(size))
    if failed:
        raise OSError(code, "")


def _with_socket(version: int, protocol: str, act: Callable[[socket.socket], object]) -> None:
    kind_ = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(_FAMILIES[version], kind_ | socket.SOCK_NONBLOCK) as one:
        act(one)


def connect(version: int, protocol: str, address: str, port: int) -> None:
    _with_socket(version, protocol, lambda one: one.connect((address, port)))


def send(version: int, protocol: str, address: str, port: int) -> None:
    _with_socket(version, protocol, lambda one: one.sendto(b"x", (address, port)))


def fast_open(version: int, protocol: str, address: str, port: int) -> None:
    _with_socket(version, protocol, lambda one: one.sendto(b"x", socket.MSG_FASTOPEN, (address, port)))


def bind(version: int, protocol: str, address: str, port: int) -> None:
    _with_socket(version, protocol, lambda one: one.bind((address, port)))


def unix_connect(path: str, how: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM if how == "stream" else socket.SOCK_DGRAM) as one:
        if how == "send":
            one.sendto(b"x", socket.MSG_DONTWAIT, path)
        else:
            one.setblocking(False)
            one.connect(path)


def unix_bind(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(path)


def flood(path: str, most: int) -> None:
    """Open again and again, until it is refused."""
    for _ in range(most):
        os.close(os.open(path, os.O_RDONLY))


def hammer(allowed: str, denied: str, times: int) -> None:
    """Fail unless one is always allowed and the other never."""
    for _ in range(times):
        os.close(os.open(allowed, os.O_RDONLY))
        try:
            os.close(os.open(denied, os.O_RDONLY))
        except PermissionError:
            continue
        raise OSError(errno.EIO, "let through")


def call(number: int, *arguments: int) -> None:
    """Make a system call; each argument is a register."""
    result = _libc.syscall(ctypes.c_long(number), *(ctypes.c_long(argument) for argument in arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), "")


def bind_itself(path: str) -> None:
    if _libc.mount(os.fsencode(path), os.fsencode(path), None, ctypes.c_ulong(4096), None):  # MS_BIND
        raise OSError(ctypes.get_errno(), "")
    _libc.umount2(os.fsencode(path), 0)


def in_child(*action: Any) -> None:
    """Do something that changes a process for good."""
    pid = os.fork()
    if pid == 0:
        _, code = perform(*action)
        os._exit(code)
    if code := os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        raise OSError(code, "")


def ring(parameters: bytes = bytes(120)) -> None:
    buffer = ctypes.create_string_buffer(parameters)
    call(425, 1, ctypes.addressof(buffer))  # io_uring_setup


def watch_with_perf() -> None:
    attributes = ctypes.create_string_buffer((1).to_bytes(4, "little") + (64).to_bytes(4, "little") + bytes(56))
    call(298, ctypes.addressof(attributes), 0, -1, -1, 0)  # perf_event_open of a software event


def make_map() -> None:
    attributes = ctypes.create_string_buffer(b"".join(n.to_bytes(4, "little") for n in (2, 4, 4, 1)) + bytes(56))
    call(321, 0, ctypes.addressof(attributes), 72)  # bpf(BPF_MAP_CREATE)


def notify_of(path: str) -> None:
    descriptor = _libc.inotify_init()
    failed = _libc.inotify_add_watch(descriptor, os.fsencode(path), 2) < 0
    code = ctypes.get_errno()
    os.close(descriptor)
    if failed:
        raise OSError(code, "")


_ACTIONS: dict[str, Callable[..., Any]] = {
    "hold": hold,
    "open": open_,
    "mkdir": os.mkdir,
    "rmdir": os.rmdir,
    "unlink": os.unlink,
    "symlink": lambda path: os.symlink("nowhere", path),
    "mkfifo": os.mkfifo,
    "mksock": lambda path: os.mknod(path, stat.S_IFSOCK | 0o600),
    "mknod": lambda path: os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3)),
    "link": os.link,
    "rename": renameat2,
    "truncate": lambda path: os.truncate(path, 1),
    "chmod": lambda path: os.chmod(path, 0o711),
    "chown": lambda path: os.chown(path, 0, 0),
    "exec": execute,
    "map": map_code,
    "protect": protect_code,
    "connect": connect,
    "send": send,
    "fastopen": fast_open,
    "bind": bind,
    "unix.connect": unix_connect,
    "unix.bind": unix_bind,
    "kill": lambda pid: os.kill(pid, signal.SIGCONT),
    "kill.self": lambda: os.kill(os.getpid(), signal.SIGCONT),
    "trace": lambda pid: os.readlink(f"/proc/{pid}/exe"),
    "flood": flood,
    "hammer": hammer,
    "bpf": make_map,
    "io_uring": ring,
    "perf": watch_with_perf,
    "userfaultfd": lambda: call(323, 0),
    "mount": bind_itself,
    "userns": lambda: in_child("call", 272, 0x10000000),  # unshare(CLONE_NEWUSER)
    "chroot": lambda path: in_child("chroot.itself", path),
    "chroot.itself": os.chroot,
    "call": call,
    "shm": lambda: call(29, 0, 4096, 0o1600),  # shmget(IPC_PRIVATE)
    "watch": notify_of,
    "utime": os.utime,
    "xattr": lambda path: os.setxattr(path, "trusted.x", b"1"),
    "raw": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).close(),
    "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).close(),
    "listen": lambda: socket.socket(socket.AF_INET).listen(),
    "abstract": lambda: socket.socket(socket.AF_UNIX).bind("\0name"),
    "pair": lambda: [one.send(b"x") for one in socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)],
}

if __name__ == "__main__":
    main()
