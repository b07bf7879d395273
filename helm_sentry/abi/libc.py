"""The kernel calls that Python's `os` does not make, each wrapped once.

Every function raises `OSError` with the kernel's errno. None of them retries after EINTR: a worker that waits for
the agent is interrupted on purpose.
"""

import contextlib
import ctypes
import os
from collections.abc import Callable
from ctypes import c_char_p, c_int, c_long, c_size_t, c_uint, c_ulong, c_void_p
from functools import lru_cache

from helm_sentry.abi import arch, flags, structs, syscalls

_libc = ctypes.CDLL(None, use_errno=True)
_quick = ctypes.PyDLL(None, use_errno=True)
_ARCH = arch.native()
Buffer = bytearray | ctypes.Array[ctypes.c_char]
Transfer = Callable[..., int]


def _raw(name: str, *types: type) -> Callable[..., int]:
    """Return a function that makes syscall `name`; ctypes drops the interpreter lock around it."""
    prototype = ctypes.CFUNCTYPE(c_long, c_long, *types, use_errno=True)
    function = prototype(("syscall", _libc))
    number = syscalls.number(name, _ARCH)

    def call(*arguments: object) -> int:
        result: int = function(number, *arguments)
        if result < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), name)
        return result

    return call


_openat = _raw("openat", c_int, c_char_p, c_int, c_uint)
_openat2 = _raw("openat2", c_int, c_char_p, c_char_p, c_size_t)
_process_vm_readv = _raw("process_vm_readv", c_int, c_void_p, c_ulong, c_char_p, c_ulong, c_ulong)
_process_vm_writev = _raw("process_vm_writev", c_int, c_char_p, c_ulong, c_char_p, c_ulong, c_ulong)
_newfstatat = _raw("newfstatat", c_int, c_char_p, c_void_p, c_int)
_statx = _raw("statx", c_int, c_char_p, c_int, c_uint, c_void_p)
_statfs = _raw("statfs", c_char_p, c_void_p)
_faccessat2 = _raw("faccessat2", c_int, c_char_p, c_int, c_int)
_utimensat = _raw("utimensat", c_int, c_char_p, c_char_p, c_int)
_fchownat = _raw("fchownat", c_int, c_char_p, c_uint, c_uint, c_int)
_renameat2 = _raw("renameat2", c_int, c_char_p, c_int, c_char_p, c_uint)
_linkat = _raw("linkat", c_int, c_char_p, c_int, c_char_p, c_int)
_inotify_add_watch = _raw("inotify_add_watch", c_int, c_char_p, c_uint)
_connect = _raw("connect", c_int, c_char_p, c_uint)
_bind = _raw("bind", c_int, c_char_p, c_uint)
_listen = _raw("listen", c_int, c_int)
_getsockname = _raw("getsockname", c_int, c_void_p, c_void_p)
_getpeername = _raw("getpeername", c_int, c_void_p, c_void_p)
_sendmsg = _raw("sendmsg", c_int, c_char_p, c_uint)
_pidfd_getfd = _raw("pidfd_getfd", c_int, c_int, c_uint)
_madvise = _raw("madvise", c_void_p, c_size_t, c_int)
_tgkill = _raw("tgkill", c_int, c_int, c_int)
_ptrace = _raw("ptrace", c_long, c_long, c_void_p, c_void_p)
_prctl = _raw("prctl", c_int, c_ulong, c_ulong, c_ulong, c_ulong)
_seccomp = _raw("seccomp", c_uint, c_uint, c_void_p)
_landlock_create_ruleset = _raw("landlock_create_ruleset", c_char_p, c_size_t, c_uint)
_landlock_add_rule = _raw("landlock_add_rule", c_int, c_int, c_char_p, c_uint)
_landlock_restrict_self = _raw("landlock_restrict_self", c_int, c_uint)
_unshare = _raw("unshare", c_int)
_setresuid = _raw("setresuid", c_uint, c_uint, c_uint)
_setresgid = _raw("setresgid", c_uint, c_uint, c_uint)
_setgroups = _raw("setgroups", c_size_t, c_void_p)
_capset = _raw("capset", c_char_p, c_char_p)
_bpf = _raw("bpf", c_int, c_char_p, c_uint)
_membarrier = _raw("membarrier", c_int, c_uint)
_signalfd4 = _raw("signalfd4", c_int, c_char_p, c_size_t, c_int)


_SOL_SOCKET = 1  # <asm/socket.h>
_NOWHERE = 1  # an address on the page that is never mapped


def _at_once(name: str, *types: type) -> Callable[..., int]:
    """Return a C function for what never waits: giving up the interpreter for it would cost more than it takes.

    Args:
        name: of the function, which returns an int, negative with errno when it fails.
        types: of its arguments.
    """
    function = _quick[name]
    function.argtypes = types

    def call(*arguments: object) -> int:
        result: int = function(*arguments)
        if result < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), name)
        return result

    return call


_getsockopt = _at_once("getsockopt", c_int, c_int, c_int, c_void_p, c_void_p)


def address_of(buffer: Buffer) -> int:
    """Return where a writable buffer lies in this process; the caller keeps the buffer alive and unresized."""
    return ctypes.addressof((ctypes.c_char * len(buffer)).from_buffer(buffer))


# Files


@lru_cache(maxsize=256)
def _how(open_flags: int, mode: int, resolve: int) -> bytes:
    return structs.OPEN_HOW.pack(open_flags, mode, resolve)


def openat2(directory: int, path: bytes, open_flags: int, mode: int = 0, resolve: int = 0) -> int:
    """Open `path` below `directory` with RESOLVE_* restrictions; see openat2(2)."""
    return _openat2(directory, path, _how(open_flags, mode, resolve), structs.OPEN_HOW.size)


def openat(directory: int, path: bytes, open_flags: int, mode: int = 0) -> int:
    """Open `path` below `directory`; unlike `os.open` a signal interrupts it."""
    return _openat(directory, path, open_flags, mode)


def newfstatat(directory: int, path: bytes, buffer: Buffer, at_flags: int) -> None:
    """Fill `buffer` with the raw `struct stat` of an object."""
    _newfstatat(directory, path, address_of(buffer), at_flags)


def statx(directory: int, path: bytes, at_flags: int, mask: int, buffer: Buffer) -> None:
    """Fill `buffer` with the raw `struct statx` of an object."""
    _statx(directory, path, at_flags, mask, address_of(buffer))


def statfs(path: bytes, buffer: Buffer) -> None:
    """Fill `buffer` with the raw `struct statfs` of the file system of `path`."""
    _statfs(path, address_of(buffer))


def faccessat2(directory: int, path: bytes, mode: int, at_flags: int) -> None:
    """Raise unless the caller may access the object in `mode`; see faccessat2(2)."""
    _faccessat2(directory, path, mode, at_flags)


def utimensat(directory: int, path: bytes, times: bytes | None, at_flags: int) -> None:
    """Set times from a packed pair of timespec, or to now."""
    _utimensat(directory, path, times, at_flags)


def fchownat(directory: int, path: bytes, uid: int, gid: int, at_flags: int) -> None:
    """Change owner; 0xffffffff leaves an id as it is."""
    _fchownat(directory, path, uid, gid, at_flags)


def renameat2(old_dir: int, old: bytes, new_dir: int, new: bytes, rename_flags: int) -> None:
    """Rename with RENAME_* flags."""
    _renameat2(old_dir, old, new_dir, new, rename_flags)


def linkat(old_dir: int, old: bytes, new_dir: int, new: bytes, at_flags: int) -> None:
    """Make a hard link."""
    _linkat(old_dir, old, new_dir, new, at_flags)


def inotify_add_watch(descriptor: int, path: bytes, mask: int) -> int:
    """Add a watch and return its number."""
    return _inotify_add_watch(descriptor, path, mask)


# Sockets


def connect(descriptor: int, address: bytes) -> None:
    """Connect a socket to a raw sockaddr."""
    _connect(descriptor, address, len(address))


def bind(descriptor: int, address: bytes) -> None:
    """Bind a socket to a raw sockaddr."""
    _bind(descriptor, address, len(address))


def listen(descriptor: int, backlog: int) -> None:
    """Make a socket listen; `backlog` is taken as the kernel takes it."""
    _listen(descriptor, backlog)


def socket_option(descriptor: int, level: int, option: int, size: int = 4) -> bytes:
    """Return the raw value of a socket option, at most `size` bytes; see getsockopt(2)."""
    buffer, length = ctypes.create_string_buffer(size), ctypes.c_uint(size)
    _getsockopt(descriptor, level, option, buffer, ctypes.byref(length))
    return buffer.raw[: length.value]


def socket_number(descriptor: int, option: int) -> int:
    """Return a SOL_SOCKET option that is a C `int`."""
    value, length = c_int(), ctypes.c_uint(4)
    _getsockopt(descriptor, _SOL_SOCKET, option, ctypes.byref(value), ctypes.byref(length))
    return value.value


def socket_name(descriptor: int, peer: bool) -> bytes:
    """Return the raw sockaddr of a socket or of its peer."""
    buffer, size = bytearray(flags.SOCKADDR_MAX), ctypes.c_uint(flags.SOCKADDR_MAX)
    (_getpeername if peer else _getsockname)(descriptor, address_of(buffer), ctypes.byref(size))
    return bytes(buffer[: size.value])


def sendmsg(
    descriptor: int, name: bytes, data: bytes | bytearray, control: bytes, send_flags: int, unreadable: int = 0
) -> int:
    """Send one message and return the number of bytes taken.

    Args:
        descriptor: the socket.
        name: destination sockaddr, empty for none.
        data: payload.
        control: control data, empty for none.
        send_flags: MSG_* bits.
        unreadable: bytes of payload after `data` that cannot be read: the kernel says what becomes of such a message.
    """
    payload = (
        (ctypes.c_char * len(data)).from_buffer_copy(data)
        if isinstance(data, bytes)
        else (ctypes.c_char * len(data)).from_buffer(data)
    )
    destination, ancillary = (
        ctypes.create_string_buffer(name, len(name)),
        ctypes.create_string_buffer(control, len(control)),
    )
    parts = structs.IOVEC.pack(ctypes.addressof(payload), len(data))
    if unreadable:
        parts += structs.IOVEC.pack(_NOWHERE, unreadable)
    vector = ctypes.create_string_buffer(parts, len(parts))
    header = structs.MSGHDR.pack(
        ctypes.addressof(destination) if name else 0,
        len(name),
        ctypes.addressof(vector),
        len(parts) // structs.IOVEC.size,
        ctypes.addressof(ancillary) if control else 0,
        len(control),
        0,
    )
    return _sendmsg(descriptor, header, send_flags)


# Processes


def process_vm_readv(pid: int, local: bytes, remote: bytes, segments: int) -> int:
    """Read another process's memory; `local` and `remote` are packed iovecs, `segments` counts the remote ones."""
    return _process_vm_readv(pid, local, 1, remote, segments, 0)


def process_vm_writev(pid: int, local: bytes, remote: bytes) -> int:
    """Write another process's memory; page protections hold, unlike through /proc/PID/mem."""
    return _process_vm_writev(pid, local, 1, remote, 1, 0)


def pidfd_getfd(pidfd: int, descriptor: int) -> int:
    """Duplicate another process's descriptor into this one, close-on-exec."""
    return _pidfd_getfd(pidfd, descriptor, 0)


def tgkill(process: int, thread: int, signal: int) -> None:
    """Signal one thread."""
    _tgkill(process, thread, signal)


def ptrace(request: int, pid: int, data: int = 0, address: int = 0) -> int:
    """Make a ptrace request and return what it returns; `data` may be the address of a buffer of this process."""
    return _ptrace(request, pid, address, data)


def prctl(option: int, value: int = 0, third: int = 0) -> int:
    """Make a prctl call."""
    return _prctl(option, value, third, 0, 0)


current_processor: Callable[[], int] = ctypes.PyDLL(None).sched_getcpu
"""Number of the processor this thread runs on, from the vDSO; quick enough to keep the interpreter lock."""


def populate(address: int, size: int) -> None:
    """Make pages this process's own now, not when they are first written to. Linux 5.14."""
    _madvise(address, size, flags.MADV_POPULATE_WRITE)


def unshare(clone_flags: int) -> None:
    """Stop sharing parts of the execution context with other threads."""
    _unshare(clone_flags)


def signalfd(signals: set[int]) -> int:
    """Return a close-on-exec descriptor that reads `signalfd_siginfo` records of the given signals."""
    mask = sum(1 << (number - 1) for number in signals).to_bytes(8, "little")
    return _signalfd4(-1, mask, len(mask), os.O_CLOEXEC | os.O_NONBLOCK)


# Credentials, of the calling thread alone: glibc's wrappers would change every thread


def set_thread_identity(uid: int, gid: int, groups: tuple[int, ...]) -> None:
    """Change all user and group ids of the calling thread; needs CAP_SETUID and CAP_SETGID."""
    packed = (c_uint * len(groups))(*groups)
    _setgroups(len(groups), ctypes.cast(packed, c_void_p))
    _setresgid(gid, gid, gid)
    _setresuid(uid, uid, uid)


def drop_capabilities() -> None:
    """Empty the calling thread's effective, permitted and inheritable capability sets."""
    _capset(structs.CAP_HEADER.pack(flags.CAPABILITY_VERSION_3, 0), structs.CAP_DATA.pack(0, 0, 0, 0, 0, 0))


# seccomp and Landlock


def seccomp_listener(program: bytes, filter_flags: int) -> int:
    """Install a classic BPF program (packed `sock_filter`s) on this thread and return its listener."""
    code = ctypes.create_string_buffer(program, len(program))
    count = len(program) // structs.SOCK_FILTER.size
    header = structs.SOCK_FPROG.pack(count, ctypes.addressof(code))
    mode = flags.SECCOMP_FILTER_FLAG_NEW_LISTENER | filter_flags
    return _seccomp(flags.SECCOMP_SET_MODE_FILTER, mode, header)


_syscall = ctypes.CFUNCTYPE(c_long, c_long, *[c_ulong] * 6, use_errno=True)(("syscall", _libc))


def syscall_result(number: int, *arguments: int) -> int:
    """Make any system call; a negative errno is its error."""
    result: int = _syscall(number, *arguments)
    return -ctypes.get_errno() if result < 0 else result


def seccomp_filter(program: bytes) -> None:
    """Install a classic BPF program on this thread, without a listener."""
    code = ctypes.create_string_buffer(program, len(program))
    count = len(program) // structs.SOCK_FILTER.size
    header = structs.SOCK_FPROG.pack(count, ctypes.addressof(code))
    _seccomp(flags.SECCOMP_SET_MODE_FILTER, 0, header)


def seccomp_flag_known(flag: int) -> bool:
    """Whether the kernel knows a filter flag: a null program gives EFAULT if so and EINVAL if not."""
    try:
        _seccomp(flags.SECCOMP_SET_MODE_FILTER, flags.SECCOMP_FILTER_FLAG_NEW_LISTENER | flag, None)
    except OSError as error:
        return error.errno == 14
    return False


def landlock_abi() -> int:
    """Return the Landlock ABI version, 0 when the kernel has none or it is switched off."""
    try:
        return _landlock_create_ruleset(None, 0, flags.LANDLOCK_CREATE_RULESET_VERSION)
    except OSError:
        return 0


def landlock_create_ruleset(attributes: bytes) -> int:
    """Return a descriptor of a new ruleset."""
    return _landlock_create_ruleset(attributes, len(attributes), 0)


def landlock_allow_path(ruleset: int, rights: int, descriptor: int) -> None:
    """Grant `rights` on the object of `descriptor` and on everything beneath it."""
    rule = structs.LANDLOCK_PATH_BENEATH_ATTR.pack(rights, descriptor)
    _landlock_add_rule(ruleset, flags.LANDLOCK_RULE_PATH_BENEATH, rule, 0)


def landlock_restrict_self(ruleset: int) -> None:
    """Enter the domain; needs no_new_privs."""
    _landlock_restrict_self(ruleset, 0)


# BPF; see bpf(2)

_LOG_BYTES = 1 << 24  # room for what the verifier says, which it does not cut short


def bpf_map_create(kind: int, key_size: int, value_size: int, entries: int, name: str, map_flags: int = 0) -> int:
    """Return a close-on-exec descriptor of a new map."""
    attributes = structs.BPF_MAP_CREATE.pack(kind, key_size, value_size, entries, map_flags, name.encode()[:15])
    return _bpf(flags.BPF_MAP_CREATE, attributes, len(attributes))


def bpf_map_lookup(descriptor: int, key: bytes, size: int) -> bytes:
    """Return the value of a key; `size` is that of all processors' values for a per-processor map."""
    value = ctypes.create_string_buffer(size)
    _bpf_element(flags.BPF_MAP_LOOKUP_ELEM, descriptor, key, value)
    return value.raw


def bpf_map_update(descriptor: int, key: bytes, value: bytes) -> None:
    """Set the value of a key."""
    _bpf_element(flags.BPF_MAP_UPDATE_ELEM, descriptor, key, ctypes.create_string_buffer(value, len(value)))


def bpf_map_delete(descriptor: int, key: bytes) -> None:
    """Take a key out of a map."""
    _bpf_element(flags.BPF_MAP_DELETE_ELEM, descriptor, key, ctypes.create_string_buffer(1))


def _bpf_element(command: int, descriptor: int, key: bytes, value: ctypes.Array[ctypes.c_char]) -> None:
    name = ctypes.create_string_buffer(key, len(key))
    place = 0 if command == flags.BPF_MAP_DELETE_ELEM else ctypes.addressof(value)
    attributes = structs.BPF_MAP_ELEM.pack(descriptor, ctypes.addressof(name), place, 0)
    _bpf(command, attributes, len(attributes))


def bpf_load(code: bytes, name: str, kind: int, attach_type: int = 0, attach_to: int = 0) -> int:
    """Return a close-on-exec descriptor of a program, verified by the kernel.

    Args:
        code: instructions.
        name: for people who list programs.
        kind: BPF_PROG_TYPE_*.
        attach_type: BPF_* attach type, where the kind asks for one.
        attach_to: the kernel's number (BTF id) for the function it is to run at.

    Raises:
        OSError: refused; the text says what the verifier did not like.
    """
    try:
        return _bpf_load(code, name, kind, attach_type, attach_to, None)
    except OSError as error:
        log = ctypes.create_string_buffer(_LOG_BYTES)
        with contextlib.suppress(OSError):
            return _bpf_load(code, name, kind, attach_type, attach_to, log)
        lines = [line for line in log.value.decode(errors="replace").splitlines() if line]
        raise OSError(error.errno, f"{error.strerror}: {' | '.join(lines[-2:])}", name) from error


def _bpf_load(
    code: bytes, name: str, kind: int, attach_type: int, attach_to: int, log: ctypes.Array[ctypes.c_char] | None
) -> int:
    program = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.create_string_buffer(b"GPL")  # the helpers that read kernel memory ask for it
    attributes = structs.BPF_PROG_LOAD.pack(
        kind,
        len(code) // 8,
        ctypes.addressof(program),
        ctypes.addressof(licence),
        1 if log else 0,
        len(log) if log else 0,
        ctypes.addressof(log) if log else 0,
        name.encode()[:15],
        attach_type,
        attach_to,
    )
    return _bpf(flags.BPF_PROG_LOAD, attributes, len(attributes))


def bpf_attach(tracepoint: str, program: int) -> int:
    """Run a program for as long as the returned close-on-exec descriptor is open, or pinned.

    Args:
        tracepoint: name of the raw tracepoint; empty for a program that was loaded for one function.
        program: its descriptor.
    """
    name = ctypes.create_string_buffer(tracepoint.encode())
    attributes = structs.BPF_RAW_TRACEPOINT.pack(ctypes.addressof(name) if tracepoint else 0, program)
    return _bpf(flags.BPF_RAW_TRACEPOINT_OPEN, attributes, len(attributes))


def bpf_pin(descriptor: int, path: str) -> None:
    """Keep a map or a link for as long as `path`, in a bpf file system, is there."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    attributes = structs.BPF_OBJECT.pack(ctypes.addressof(name), descriptor)
    _bpf(flags.BPF_OBJ_PIN, attributes, len(attributes))


def bpf_pinned(path: str) -> int:
    """Return a close-on-exec descriptor of what is kept at `path`."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    attributes = structs.BPF_OBJECT.pack(ctypes.addressof(name), 0)
    return _bpf(flags.BPF_OBJ_GET, attributes, len(attributes))


def wait_for_readers() -> None:
    """Return when every program that was in the middle of its work has ended (membarrier(2), a grace period)."""
    _membarrier(flags.MEMBARRIER_CMD_GLOBAL, 0)
