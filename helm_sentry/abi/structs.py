"""Kernel structures as `struct.Struct` formats, named as the kernel names them.

A test compiles each layout against the installed headers.
"""

from struct import Struct

IOVEC = Struct("=QQ")
"""<linux/uio.h>: base, length."""

OPEN_HOW = Struct("=QQQ")
"""<linux/openat2.h>: flags, mode, resolve."""

SECCOMP_NOTIF = Struct("=QIIiIQ6Q")
"""<linux/seccomp.h>: id, pid, flags, then seccomp_data: nr, arch, instruction_pointer, args[6]."""

SECCOMP_NOTIF_RESP = Struct("=QqiI")
"""<linux/seccomp.h>: id, val, error, flags."""

SECCOMP_NOTIF_ADDFD = Struct("=QIIII")
"""<linux/seccomp.h>: id, flags, srcfd, newfd, newfd_flags."""

PTRACE_SYSCALL_INFO = Struct("=B3xIQQQ6QI4x")
"""<linux/ptrace.h>: op, arch, instruction_pointer, stack_pointer, then at a seccomp stop nr, args[6], ret_data."""

SOCK_FILTER = Struct("=HBBI")
"""<linux/filter.h>: code, jt, jf, k."""

SOCK_FPROG = Struct("@HP")
"""<linux/filter.h>: len, filter."""

LANDLOCK_RULESET_ATTR = Struct("=QQQ")
"""<linux/landlock.h>: handled_access_fs, handled_access_net (ABI 4), scoped (ABI 6)."""

LANDLOCK_PATH_BENEATH_ATTR = Struct("=Qi")
"""<linux/landlock.h>: allowed_access, parent_fd; packed."""

CAP_HEADER = Struct("=Ii")
"""<linux/capability.h>: version, pid."""

CAP_DATA = Struct("=6I")
"""<linux/capability.h>: two times effective, permitted, inheritable."""

TIMESPEC_PAIR = Struct("=4q")
"""Two `struct timespec` (or `struct timeval`, on 64-bit): seconds and fraction, twice."""

UTIMBUF = Struct("=qq")
"""<linux/utime.h>: actime, modtime."""

MSGHDR = Struct("=QI4xQQQQi4x")
"""<linux/socket.h> user_msghdr: name, namelen, iov, iovlen, control, controllen, flags."""

MMSGHDR_SIZE = MSGHDR.size + 8
"""<linux/socket.h>: a msghdr, msg_len and padding."""

CMSGHDR = Struct("=Qii")
"""<linux/socket.h>: len, level, type."""

SIGNALFD_SIGINFO = Struct("=Iii116x")
"""<linux/signalfd.h>: signo, errno, code; 128 bytes in all."""

STAT_SIZES = {"x86_64": 144, "aarch64": 128}
"""sizeof(struct stat) as newfstatat fills it."""

STATX_SIZE = 256
STATFS_SIZE = 120

NLMSGHDR = Struct("=IHHII")
"""<linux/netlink.h>: len, type, flags, seq, pid."""

INET_DIAG_REQ_V2 = Struct("=BBBxI48x")
"""<linux/inet_diag.h>: family, protocol, ext, states; an id of zeros, as a dump takes it."""

INET_DIAG_MSG = Struct("=BBBx2xH16x16s4xQ20x")
"""<linux/inet_diag.h>: family, state, timer, retrans, then of the id: dport (big-endian), dst, cookie."""

TCP_INFO = Struct("=B119x8xQ8xI52xQQ")
"""<linux/tcp.h>, up to Linux 4.19: state; bytes_received, notsent_bytes, bytes_sent, bytes_retrans."""
BPF_MAP_CREATE = Struct("=5I8x16s")
"""<linux/bpf.h> union bpf_attr: map_type, key_size, value_size, max_entries, map_flags, then map_name."""

BPF_MAP_ELEM = Struct("=I4xQQQ")
"""<linux/bpf.h> union bpf_attr: map_fd, key, value, flags."""

BPF_PROG_LOAD = Struct("=IIQQIIQ8x16s4xI36xI")
"""<linux/bpf.h> union bpf_attr: prog_type, insn_cnt, insns, license, log_level, log_size, log_buf, then prog_name,
expected_attach_type, attach_btf_id."""

BPF_OBJECT = Struct("=QI4x")
"""<linux/bpf.h> union bpf_attr: pathname, bpf_fd."""

BPF_RAW_TRACEPOINT = Struct("=QI4x")
"""<linux/bpf.h> union bpf_attr: name, prog_fd."""
