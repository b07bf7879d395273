"""Structure layouts and constants against the installed C headers, by `_Static_assert`s that the compiler checks.

What a header is too old to know is left out there; a test says how much was compared all the same.
"""

import platform
import re
import shutil
import subprocess
from collections.abc import Iterable
from struct import Struct, calcsize

import pytest

from helm_sentry.abi import flags, structs

INCLUDES = """
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/auxvec.h>
#include <linux/bpf.h>
#include <linux/membarrier.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/inet_diag.h>
#include <linux/landlock.h>
#include <linux/limits.h>
#include <linux/memfd.h>
#include <linux/mman.h>
#include <linux/netlink.h>
#include <linux/openat2.h>
#include <linux/ptrace.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <linux/sock_diag.h>
#include <linux/tcp.h>
#include <linux/wait.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <time.h>
#include <utime.h>
"""

# Members in the order of the format.
LAYOUTS: dict[str, tuple[Struct, str, list[str]]] = {
    "IOVEC": (structs.IOVEC, "struct iovec", ["iov_base", "iov_len"]),
    "OPEN_HOW": (structs.OPEN_HOW, "struct open_how", ["flags", "mode", "resolve"]),
    "SECCOMP_NOTIF": (
        structs.SECCOMP_NOTIF,
        "struct seccomp_notif",
        [
            "id",
            "pid",
            "flags",
            "data.nr",
            "data.arch",
            "data.instruction_pointer",
            *(f"data.args[{n}]" for n in range(6)),
        ],
    ),
    "SECCOMP_NOTIF_RESP": (structs.SECCOMP_NOTIF_RESP, "struct seccomp_notif_resp", ["id", "val", "error", "flags"]),
    "SECCOMP_NOTIF_ADDFD": (
        structs.SECCOMP_NOTIF_ADDFD,
        "struct seccomp_notif_addfd",
        ["id", "flags", "srcfd", "newfd", "newfd_flags"],
    ),
    "PTRACE_SYSCALL_INFO": (
        structs.PTRACE_SYSCALL_INFO,
        "struct ptrace_syscall_info",
        [
            *("op", "arch", "instruction_pointer", "stack_pointer"),
            *("seccomp.nr", *(f"seccomp.args[{n}]" for n in range(6)), "seccomp.ret_data"),
        ],
    ),
    "SOCK_FILTER": (structs.SOCK_FILTER, "struct sock_filter", ["code", "jt", "jf", "k"]),
    "SOCK_FPROG": (structs.SOCK_FPROG, "struct sock_fprog", ["len", "filter"]),
    "LANDLOCK_PATH_BENEATH_ATTR": (
        structs.LANDLOCK_PATH_BENEATH_ATTR,
        "struct landlock_path_beneath_attr",
        ["allowed_access", "parent_fd"],
    ),
    "CAP_HEADER": (structs.CAP_HEADER, "struct __user_cap_header_struct", ["version", "pid"]),
    "CAP_DATA": (
        structs.CAP_DATA,
        "struct { struct __user_cap_data_struct each[_LINUX_CAPABILITY_U32S_3]; }",
        [f"each[{n}].{name}" for n in range(2) for name in ("effective", "permitted", "inheritable")],
    ),
    "TIMESPEC_PAIR": (
        structs.TIMESPEC_PAIR,
        "struct { struct timespec each[2]; }",
        [f"each[{n}].{name}" for n in range(2) for name in ("tv_sec", "tv_nsec")],
    ),
    "UTIMBUF": (structs.UTIMBUF, "struct utimbuf", ["actime", "modtime"]),
    "MSGHDR": (
        structs.MSGHDR,
        "struct msghdr",
        ["msg_name", "msg_namelen", "msg_iov", "msg_iovlen", "msg_control", "msg_controllen", "msg_flags"],
    ),
    "CMSGHDR": (structs.CMSGHDR, "struct cmsghdr", ["cmsg_len", "cmsg_level", "cmsg_type"]),
    "SIGNALFD_SIGINFO": (structs.SIGNALFD_SIGINFO, "struct signalfd_siginfo", ["ssi_signo", "ssi_errno", "ssi_code"]),
    "NLMSGHDR": (
        structs.NLMSGHDR,
        "struct nlmsghdr",
        [f"nlmsg_{name}" for name in ("len", "type", "flags", "seq", "pid")],
    ),
    "INET_DIAG_REQ_V2": (
        structs.INET_DIAG_REQ_V2,
        "struct inet_diag_req_v2",
        ["sdiag_family", "sdiag_protocol", "idiag_ext", "idiag_states"],
    ),
    "INET_DIAG_MSG": (
        structs.INET_DIAG_MSG,
        "struct inet_diag_msg",
        ["idiag_family", "idiag_state", "idiag_timer", "id.idiag_dport", "id.idiag_dst", "id.idiag_cookie"],
    ),
}
# The beginnings of arms of `union bpf_attr`; of a name in characters the first is compared.
ARMS = {
    "BPF_MAP_CREATE": (
        structs.BPF_MAP_CREATE,
        ["map_type", "key_size", "value_size", "max_entries", "map_flags", "map_name[0]"],
    ),
    "BPF_MAP_ELEM": (structs.BPF_MAP_ELEM, ["map_fd", "key", "value", "flags"]),
    "BPF_PROG_LOAD": (
        structs.BPF_PROG_LOAD,
        [
            *("prog_type", "insn_cnt", "insns", "license", "log_level", "log_size", "log_buf", "prog_name[0]"),
            *("expected_attach_type", "attach_btf_id"),
        ],
    ),
    "BPF_OBJECT": (structs.BPF_OBJECT, ["pathname", "bpf_fd"]),
    "BPF_RAW_TRACEPOINT": (structs.BPF_RAW_TRACEPOINT, ["raw_tracepoint.name", "raw_tracepoint.prog_fd"]),
}
# Checked in their own way: headers differ in how much of them they have.
SPECIAL = {"LANDLOCK_RULESET_ATTR", "TCP_INFO"}
SIZES = {
    "struct mmsghdr": structs.MMSGHDR_SIZE,
    "struct statx": structs.STATX_SIZE,
    "struct statfs": structs.STATFS_SIZE,
    "struct stat": structs.STAT_SIZES.get(platform.machine(), 0),
    "struct sockaddr_storage": flags.SOCKADDR_MAX,
    "struct sockaddr_un": 110,
    "struct seccomp_data": 64,
}

# How a constant is spelled in C where that is not its own name.
SPELLINGS = {
    "O_TMPFILE_BIT": "O_TMPFILE & ~O_DIRECTORY",
    "NAMESPACE_FLAGS": "CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID"
    " | CLONE_NEWNET | CLONE_NEWTIME",
    "CAPABILITY_VERSION_3": "_LINUX_CAPABILITY_VERSION_3",
    "LANDLOCK_NET_RIGHTS": "LANDLOCK_ACCESS_NET_BIND_TCP | LANDLOCK_ACCESS_NET_CONNECT_TCP",
    "LANDLOCK_SCOPES": "LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | LANDLOCK_SCOPE_SIGNAL",
    "PTRACE_POKEUSER": "PTRACE_POKEUSR",
    "WALL": "__WALL",
    "WNOTHREAD": "__WNOTHREAD",
    "NLM_F_DUMP_REQUEST": "NLM_F_DUMP | NLM_F_REQUEST",
}
# Of no header that programs may include, or a bound of ours and not a value of the kernel's.
ELSEWHERE = {"ERESTARTSYS", "LAST_CAPABILITY", "SOCKADDR_MAX", "TCP_OPEN_STATES"}
ENUMERATED = {
    *("LANDLOCK_RULE_PATH_BENEATH", "SCM_RIGHTS", "SCM_CREDENTIALS", "INET_DIAG_INFO", "MEMBARRIER_CMD_GLOBAL"),
    *(name for name in vars(flags) if name.startswith("BPF_")),
}  # no macro to ask for: always compared
AT_LEAST = 60


def compile_asserts(lines: Iterable[str]) -> subprocess.CompletedProcess[str]:
    cc = shutil.which("cc")
    if cc is None:
        pytest.skip("no C compiler")
    source = INCLUDES + "\n".join(lines) + "\nint main(void) { return 0; }\n"
    command = [cc, "-fsyntax-only", "-D_GNU_SOURCE", "-xc", "-"]
    return subprocess.run(command, input=source, text=True, capture_output=True, check=False)


def check(*lines: str) -> None:
    done = compile_asserts(lines)
    assert done.returncode == 0, done.stderr


def equal(expression: str, value: int) -> str:
    return f'_Static_assert((unsigned long long)({expression}) == {value}ULL, "{expression}");'


def fields(layout: Struct) -> list[tuple[int, int]]:
    """Return (offset, size) of each value in a format."""
    order, text = layout.format[:1], layout.format[1:]
    found: list[tuple[int, int]] = []
    done = ""
    for count, code in re.findall(r"(\d*)([a-zA-Z])", text):
        if code == "x":
            done += f"{count}x"
            continue
        for _ in range(1 if code == "s" else int(count or 1)):
            code = f"{count}s" if code == "s" else code
            size = calcsize(order + code)
            end = calcsize(order + done + code)
            found.append((end - size, size))
            done += code
    return found


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout(name: str) -> None:
    layout, kind, members = LAYOUTS[name]
    found = fields(layout)
    assert len(found) == len(members)
    lines = [f"typedef {kind} tested;", equal("sizeof(tested)", layout.size)]
    for member, (offset, size) in zip(members, found, strict=True):
        lines += [equal(f"offsetof(tested, {member})", offset), equal(f"sizeof(((tested *)0)->{member})", size)]
    check(*lines)


@pytest.mark.parametrize("name", ARMS)
def test_arm_of_the_bpf_attributes(name: str) -> None:
    layout, members = ARMS[name]
    found = fields(Struct(layout.format.replace("16s", "c15x")))
    assert len(found) == len(members)
    check(
        *(
            equal(f"offsetof(union bpf_attr, {member})", offset)
            for member, (offset, _) in zip(members, found, strict=True)
        ),
        *(
            equal(f"sizeof(((union bpf_attr *)0)->{member})", size)
            for member, (_, size) in zip(members, found, strict=True)
        ),
    )


def test_every_layout_is_compared() -> None:
    named = {name for name, value in vars(structs).items() if isinstance(value, Struct)}
    assert named == set(LAYOUTS) | set(ARMS) | SPECIAL
    sizes = {name for name, value in vars(structs).items() if name.isupper() and isinstance(value, int)}
    assert sizes == {"MMSGHDR_SIZE", "STATX_SIZE", "STATFS_SIZE"}


@pytest.mark.parametrize("kind", SIZES)
def test_size(kind: str) -> None:
    check(equal(f"sizeof({kind})", SIZES[kind]))


def test_landlock_rulesets() -> None:
    """As much of it as the installed header has; the kernel takes a longer one whose tail it knows."""
    assert fields(structs.LANDLOCK_RULESET_ATTR) == [(0, 8), (8, 8), (16, 8)]
    kind = "struct landlock_ruleset_attr"
    check(
        equal(f"offsetof({kind}, handled_access_fs)", 0),
        equal(f"sizeof((({kind} *)0)->handled_access_fs)", 8),
        "#ifdef LANDLOCK_ACCESS_NET_BIND_TCP",
        equal(f"offsetof({kind}, handled_access_net)", 8),
        "#endif",
        "#ifdef LANDLOCK_SCOPE_SIGNAL",
        equal(f"offsetof({kind}, scoped)", 16),
        "#endif",
    )


def test_tcp_info() -> None:
    """The members we read, wherever the installed header ends."""
    members = ["tcpi_state", "tcpi_bytes_received", "tcpi_notsent_bytes", "tcpi_bytes_sent", "tcpi_bytes_retrans"]
    lines = [
        line
        for member, (offset, size) in zip(members, fields(structs.TCP_INFO), strict=True)
        for line in (
            equal(f"offsetof(struct tcp_info, {member})", offset),
            equal(f"sizeof(((struct tcp_info *)0)->{member})", size),
        )
    ]
    check(*lines)


def test_tcp_states() -> None:
    """<net/tcp_states.h> is not for programs; <netinet/tcp.h> has the same numbers."""
    names = [*("ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "CLOSE_WAIT", "LAST_ACK", "CLOSING")]
    numbers = [1, 2, 3, 4, 5, 8, 9, 11]
    assert sum(1 << number for number in numbers) == flags.TCP_OPEN_STATES
    source = "#include <netinet/tcp.h>\n" + "\n".join(
        f'_Static_assert(TCP_{name} == {number}, "{name}");' for name, number in zip(names, numbers, strict=True)
    )
    cc = shutil.which("cc")
    if cc is None:
        pytest.skip("no C compiler")
    subprocess.run([cc, "-fsyntax-only", "-xc", "-"], input=source, text=True, check=True)


def test_landlock_rights() -> None:
    """Each ABI's rights are the lowest bits, without a gap; so many names has the header that defines them."""
    names = [*("EXECUTE", "WRITE_FILE", "READ_FILE", "READ_DIR", "REMOVE_DIR", "REMOVE_FILE", "MAKE_CHAR", "MAKE_DIR")]
    names += [*("MAKE_REG", "MAKE_SOCK", "MAKE_FIFO", "MAKE_BLOCK", "MAKE_SYM", "REFER", "TRUNCATE", "IOCTL_DEV")]
    assert flags.LANDLOCK_FS_RIGHTS_BY_ABI == {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
    lines: list[str] = []
    for bit, name in enumerate(names):
        macro = f"LANDLOCK_ACCESS_FS_{name}"
        lines += [f"#ifdef {macro}", equal(macro, 1 << bit), "#endif"]
    check(*lines)


def constants() -> dict[str, int]:
    return {name: value for name, value in vars(flags).items() if name.isupper() and isinstance(value, int)}


def spellings() -> dict[str, tuple[str, list[str]]]:
    """Return for each constant how C spells it, and the macros in that."""
    spelled = {name: SPELLINGS.get(name, name) for name in constants() if name not in ELSEWHERE}
    return {name: (text, re.findall(r"\w+", text)) for name, text in spelled.items()}


def test_constants() -> None:
    lines: list[str] = []
    for name, (text, macros) in spellings().items():
        assertion = f'_Static_assert((unsigned int)({text}) == {constants()[name] & 0xFFFFFFFF}u, "{name}");'
        known = " && ".join(f"defined({macro})" for macro in macros)
        lines += [assertion] if name in ENUMERATED else [f"#if {known}", assertion, "#endif"]
    check(*lines)


def test_most_constants_are_known_to_the_headers() -> None:
    """Otherwise the comparison above would compare nothing."""
    cc = shutil.which("cc")
    if cc is None:
        pytest.skip("no C compiler")
    command = [cc, "-E", "-dM", "-D_GNU_SOURCE", "-xc", "-"]
    defined = subprocess.run(command, input=INCLUDES, text=True, capture_output=True, check=True).stdout
    there = set(re.findall(r"^#define (\w+) ", defined, re.MULTILINE))
    known = {name for name, (_, macros) in spellings().items() if name in ENUMERATED or there.issuperset(macros)}
    assert len(known) >= AT_LEAST
    # Newer than some headers; everything else must be there.
    recent = (
        *("LANDLOCK_", "MFD_", "SECCOMP_IOCTL_NOTIF_SET_FLAGS", "SECCOMP_USER_NOTIF_FD", "SECCOMP_FILTER_FLAG_WAIT"),
        "SO_PEERPIDFD",
    )
    assert [name for name in spellings() if name not in known and not name.startswith(recent)] == []


def test_ioctl_numbers_follow_from_their_structures() -> None:
    """Spelled out for headers that do not have the newest one: _IOC(direction, '!', number, size)."""
    read, write = 2, 1
    for name, direction, number, size in (
        ("RECV", read | write, 0, structs.SECCOMP_NOTIF.size),
        ("SEND", read | write, 1, structs.SECCOMP_NOTIF_RESP.size),
        ("ID_VALID", write, 2, 8),
        ("ADDFD", write, 3, structs.SECCOMP_NOTIF_ADDFD.size),
        ("SET_FLAGS", write, 4, 8),
    ):
        assert constants()[f"SECCOMP_IOCTL_NOTIF_{name}"] == direction << 30 | size << 16 | ord("!") << 8 | number


def test_a_wrong_value_is_found() -> None:
    """The control of this module: the compiler really looks."""
    for lie in (
        equal("sizeof(struct iovec)", 17),
        equal("offsetof(struct sock_filter, k)", 3),
        equal("AT_EMPTY_PATH", 1),
    ):
        done = compile_asserts([lie])
        assert done.returncode != 0
        assert "static assertion failed" in done.stderr
