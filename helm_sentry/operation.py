"""Operations: what an agent asks for, in the words of a policy author.

Many syscalls become one kind of operation (`open`, `openat`, `openat2` and `creat` are all `file.read`,
`file.write` …) and one syscall may become several operations (`rename` is `file.rename` there and
`file.create` here).
"""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """Every kind of operation. Policies name these, never syscalls."""

    FILE_READ = "file.read"
    FILE_LIST = "file.list"
    FILE_WRITE = "file.write"
    FILE_CREATE = "file.create"
    FILE_DELETE = "file.delete"
    FILE_RENAME = "file.rename"
    FILE_LINK = "file.link"
    FILE_TRUNCATE = "file.truncate"
    FILE_CHMOD = "file.chmod"
    FILE_CHOWN = "file.chown"
    FILE_XATTR = "file.xattr"
    FILE_UTIME = "file.utime"
    FILE_MKNOD = "file.mknod"
    FILE_STAT = "file.stat"
    EXEC = "exec"
    NET_CONNECT = "net.connect"
    NET_BIND = "net.bind"
    NET_SEND = "net.send"
    NET_SOCKET = "net.socket"
    UNIX_CONNECT = "unix.connect"
    UNIX_BIND = "unix.bind"
    PROCESS_SIGNAL = "process.signal"
    PROCESS_TRACE = "process.trace"
    PROCESS_OUTLIVE = "process.outlive"
    KERNEL_ABI = "kernel.abi"
    KERNEL_BPF = "kernel.bpf"
    KERNEL_CLOCK = "kernel.clock"
    KERNEL_HANDLE = "kernel.handle"
    KERNEL_IOCTL = "kernel.ioctl"
    KERNEL_IO_URING = "kernel.io_uring"
    KERNEL_IPC = "kernel.ipc"
    KERNEL_KEYRING = "kernel.keyring"
    KERNEL_LEASE = "kernel.lease"
    KERNEL_MEMFD = "kernel.memfd"
    KERNEL_MODULE = "kernel.module"
    KERNEL_MOUNT = "kernel.mount"
    KERNEL_NAMESPACE = "kernel.namespace"
    KERNEL_PERF = "kernel.perf"
    KERNEL_PERSONALITY = "kernel.personality"
    KERNEL_PORTS = "kernel.ports"
    KERNEL_QUOTA = "kernel.quota"
    KERNEL_REBOOT = "kernel.reboot"
    KERNEL_SECCOMP = "kernel.seccomp"
    KERNEL_SWAP = "kernel.swap"
    KERNEL_UNKNOWN = "kernel.unknown"
    KERNEL_USERFAULTFD = "kernel.userfaultfd"
    KERNEL_WATCH = "kernel.watch"


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing an agent wants done, with the object already resolved.

    Attributes:
        kind: what is to be done.
        path: canonical absolute path of the object as the kernel names it after all links are followed; for an
            object that does not exist yet, its parent's canonical path and the name. Bytes that are not UTF-8
            are surrogate-escaped as `os.fsdecode` does. Used by files, exec and Unix sockets.
        address: numeric IP address in canonical text; an IPv4-mapped IPv6 address is given as IPv4.
        port: transport port, 0 where there is none.
        protocol: `tcp` or `udp` for the network kinds.
        hosts: names whose supervisor-resolved addresses contain `address`.
        own: the address is a loopback port on which this very run listens.
        directory: the object is a directory, so the operation reaches what is beneath it.
        argv: argument vector of an exec, surrogate-escaped.
        environment: environment of an exec as `NAME=value`, surrogate-escaped; empty unless the policy asks for it.
        pid: target process of a signal or trace, or one that outlived the run.
        size: bytes of a message, or the new length of a file that is truncated; 0 where it is not known.
        name: syscall name for `kernel.*`, signal name for `process.signal`, family name for `net.socket`.
    """

    kind: Kind
    path: str = ""
    address: str = ""
    port: int = 0
    protocol: str = ""
    hosts: tuple[str, ...] = ()
    own: bool = False
    directory: bool = False
    argv: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    pid: int = 0
    size: int = 0
    name: str = ""

    @property
    def target(self) -> str:
        """The object in one word, for logs and people: a path, `address:port`, a name or a process id."""
        if self.path:
            return self.path
        if self.address:
            host = f"[{self.address}]" if ":" in self.address else self.address
            return f"{host}:{self.port}"
        return f"{self.name} {self.pid}".strip() if self.pid else self.name
