"""The syscall table against the kernel's headers, and the rules that every row keeps."""

import errno
import platform
import re
import shutil
import subprocess
from collections import Counter

import pytest

from helm_sentry.abi import syscalls
from helm_sentry.abi.arch import AARCH64, ARCHES, X86_64, Arch
from helm_sentry.abi.syscalls import KIND_BITS, Argument, Row, Treatment
from helm_sentry.operation import Kind

ROWS = {row.name: row for row in syscalls.rows()}
CONDITIONAL = [(row, test) for row in ROWS.values() for test in row.tests]
POINTERS = {kind for kind, bits in KIND_BITS.items() if bits == 64} - {"long", "ulong", "size"}

# What <asm/unistd.h> of the architecture defines before it includes the generic list.
GENERIC_64_BIT = (
    "__ARCH_WANT_RENAMEAT",
    "__ARCH_WANT_NEW_STAT",
    "__ARCH_WANT_SET_GET_RLIMIT",
    "__ARCH_WANT_SYS_CLONE3",
    "__ARCH_WANT_MEMFD_SECRET",
)
# Numbers below the newest that were given out later: they are in a gap which x86 alone fills.
LATE = {"uretprobe", "uprobe"}

IOCTLS = {
    "TIOCSTI": 0x5412,
    "TIOCLINUX": 0x541C,
    "TIOCCONS": 0x541D,
    "TIOCSETD": 0x5423,
    "FS_IOC_SETFLAGS": 0x40086602,
    "FS_IOC32_SETFLAGS": 0x40046602,
    "FS_IOC_SETVERSION": 0x40087602,
    "FS_IOC32_SETVERSION": 0x40047602,
    "_IOW('f', 4, long)": 0x40086604,  # EXT4_IOC_SETVERSION
    "_IOW('f', 4, int)": 0x40046604,  # EXT4_IOC32_SETVERSION
    "FS_IOC_FSSETXATTR": 0x401C5820,
    "FS_IOC_SETFSLABEL": 0x41009432,
    "FS_IOC_SET_ENCRYPTION_POLICY": 0x800C6613,
    "FS_IOC_ADD_ENCRYPTION_KEY": 0xC0506617,
    "FS_IOC_REMOVE_ENCRYPTION_KEY": 0xC0406618,
    "FS_IOC_REMOVE_ENCRYPTION_KEY_ALL_USERS": 0xC0406619,
    "FS_IOC_ENABLE_VERITY": 0x40806685,
    "FAT_IOCTL_SET_ATTRIBUTES": 0x40047211,
    "BTRFS_IOC_SNAP_CREATE": 0x50009401,
    "BTRFS_IOC_SUBVOL_CREATE": 0x5000940E,
    "BTRFS_IOC_SNAP_DESTROY": 0x5000940F,
    "BTRFS_IOC_SNAP_CREATE_V2": 0x50009417,
    "BTRFS_IOC_SUBVOL_CREATE_V2": 0x50009418,
    "BTRFS_IOC_SNAP_DESTROY_V2": 0x5000943F,
    "BTRFS_IOC_SUBVOL_SETFLAGS": 0x4008941A,
    "BTRFS_IOC_SET_RECEIVED_SUBVOL": 0xC0C89425,
    "_IOW('o', 4, char[24])": 0x40186F04,  # OCFS2_IOC_REFLINK, which takes two paths
}


def compiler(*arguments: str, source: str) -> str:
    """Run the C compiler on a source text and return what it prints."""
    cc = shutil.which("cc")
    if cc is None:
        pytest.skip("no C compiler")
    done = subprocess.run([cc, *arguments, "-"], input=source, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def header_numbers(header: str, *defines: str) -> dict[str, int]:
    """Return `name: number` for each `__NR_name` of a kernel header, aliases followed."""
    text = compiler("-E", "-dM", *(f"-D{name}" for name in defines), "-xc", source=f"#include <{header}>\n")
    macros = dict(re.findall(r"^#define (__NR\w+) (\w+)$", text, re.MULTILINE))
    numbers = {}
    for name, value in macros.items():
        while value in macros:
            value = macros[value]
        if name.startswith("__NR_") and name not in ("__NR_syscalls", "__NR_arch_specific_syscall"):
            numbers[name.removeprefix("__NR_")] = int(value)
    return numbers


def table_numbers(arch: Arch, up_to: int) -> dict[str, int]:
    return {row.name: key for key, row in syscalls.table(arch).items() if key <= up_to}


def parse_row(row: str, reason: str = "why") -> Row:
    """Parse a table of one row."""
    header = "name,class,operation,args,x86_64,aarch64,treatment,when,errno,continue_reason,reason"
    return syscalls.parse(f"{header}\n{row},{reason}\n")[0]


class TestNumbers:
    """Every number is the kernel's."""

    @pytest.mark.parametrize(
        ("arch", "header", "defines"),
        [
            pytest.param(
                X86_64,
                "asm/unistd_64.h",
                (),
                marks=pytest.mark.skipif(platform.machine() != "x86_64", reason="needs x86-64 headers"),
                id="x86_64",
            ),
            pytest.param(AARCH64, "asm-generic/unistd.h", GENERIC_64_BIT, id="aarch64"),
        ],
    )
    def test_table_and_installed_header_agree(self, arch: Arch, header: str, defines: tuple[str, ...]) -> None:
        kernel = header_numbers(header, *defines)
        newest = min(max(kernel.values()), max(syscalls.table(arch)))
        ours = table_numbers(arch, newest)
        assert len(kernel) > 300
        assert {name: key for name, key in ours.items() if name in kernel or name not in LATE} == {
            name: key for name, key in kernel.items() if key <= newest
        }

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("cachestat", 451),
            ("fchmodat2", 452),
            ("map_shadow_stack", 453),
            ("futex_wake", 454),
            ("futex_wait", 455),
            ("futex_requeue", 456),
            ("statmount", 457),
            ("listmount", 458),
            ("lsm_get_self_attr", 459),
            ("lsm_set_self_attr", 460),
            ("lsm_list_modules", 461),
            ("mseal", 462),
            ("setxattrat", 463),
            ("getxattrat", 464),
            ("listxattrat", 465),
            ("removexattrat", 466),
            ("open_tree_attr", 467),
            ("file_getattr", 468),
            ("file_setattr", 469),
            ("listns", 470),
        ],
    )
    def test_calls_newer_than_common_headers(self, name: str, expected: int) -> None:
        assert [syscalls.number(name, arch) for arch in ARCHES.values()] == [expected, expected]

    def test_calls_that_x86_alone_has(self) -> None:
        assert (syscalls.number("uretprobe", X86_64), syscalls.number("uprobe", X86_64)) == (335, 336)
        assert not {"uretprobe", "uprobe"} & set(table_numbers(AARCH64, 1000))

    def test_names_are_unique(self) -> None:
        assert Counter(row.name for row in syscalls.rows()).most_common(1)[0][1] == 1

    @pytest.mark.parametrize("arch", ARCHES.values(), ids=ARCHES)
    def test_numbers_are_unique(self, arch: Arch) -> None:
        numbers = Counter(row.numbers[arch.name] for row in syscalls.rows() if arch.name in row.numbers)
        assert numbers.most_common(1)[0][1] == 1

    def test_every_row_has_a_number_and_only_known_architectures(self) -> None:
        assert all(row.numbers and set(row.numbers) <= set(ARCHES) for row in ROWS.values())

    @pytest.mark.parametrize("arch", ARCHES.values(), ids=ARCHES)
    def test_no_number_carries_the_foreign_abi_bit(self, arch: Arch) -> None:
        assert not any(key & arch.foreign_bit or key > 0xFFF for key in syscalls.table(arch))

    @pytest.mark.parametrize(
        "name",
        [
            *("open", "creat", "stat", "lstat", "access", "readlink", "unlink", "rmdir", "rename", "link"),
            *("symlink", "mkdir", "mknod", "chmod", "chown", "lchown", "utime", "utimes", "futimesat"),
            *("fork", "vfork", "pipe", "dup2", "poll", "select", "getdents", "time", "alarm", "pause"),
            *("ioperm", "iopl", "modify_ldt", "arch_prctl", "uselib", "_sysctl", "create_module"),
        ],
    )
    def test_aarch64_has_no_legacy_call(self, name: str) -> None:
        assert name in table_numbers(X86_64, 1000)
        assert name not in table_numbers(AARCH64, 1000)


class TestLookup:
    """Rows and numbers are found by architecture."""

    def test_number_differs_by_architecture(self) -> None:
        assert (syscalls.number("openat", X86_64), syscalls.number("openat", AARCH64)) == (257, 56)

    @pytest.mark.parametrize(("name", "arch"), [("open", AARCH64), ("no_such_call", X86_64)])
    def test_absent_name_is_a_clear_error(self, name: str, arch: Arch) -> None:
        with pytest.raises(LookupError, match=f"^`{name}` is not a syscall of {arch.name}$"):
            syscalls.number(name, arch)

    def test_table_and_numbers_are_each_others_inverse(self) -> None:
        for arch in ARCHES.values():
            for key, row in syscalls.table(arch).items():
                assert syscalls.number(row.name, arch) == key

    def test_rows_are_parsed_once(self) -> None:
        assert syscalls.rows() is syscalls.rows()


class TestRules:
    """What holds for every row."""

    def test_no_call_that_names_a_file_runs_unseen(self) -> None:
        named = [row for row in ROWS.values() if any(argument.kind == "path" for argument in row.arguments)]
        assert len(named) > 60
        assert [row.name for row in named if row.treatment is Treatment.ALLOW or row.tests] == []

    def test_only_a_mediated_call_may_continue(self) -> None:
        reasons = [row for row in ROWS.values() if row.continue_reason]
        assert {row.treatment for row in reasons} == {Treatment.MEDIATE}

    def test_the_calls_that_may_continue(self) -> None:
        assert {row.name for row in ROWS.values() if row.continue_reason} == {
            *("execve", "execveat", "chdir", "open", "openat", "socket", "setsockopt"),
            *("sched_setaffinity", "sched_setscheduler", "sched_setparam", "sched_setattr"),
            *("setpriority", "ioprio_set", "prlimit64"),
            *("kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_send_signal"),
        }

    def test_notified_calls_name_an_operation_and_free_ones_none(self) -> None:
        assert [row.name for row in ROWS.values() if (row.treatment is Treatment.ALLOW) == bool(row.operation)] == []

    def test_refusals_answer_with_an_errno(self) -> None:
        denied = [row for row in ROWS.values() if row.treatment is Treatment.DENY]
        assert {row.errno for row in denied} == {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP}

    def test_the_one_mediated_call_with_a_fixed_answer_is_clone3(self) -> None:
        answers = {row.name: row.errno for row in ROWS.values() if row.treatment is not Treatment.DENY and row.errno}
        assert answers == {"clone3": errno.ENOSYS}

    def test_allowed_calls_have_no_tests(self) -> None:
        assert not [row.name for row in ROWS.values() if row.treatment is Treatment.ALLOW and row.tests]

    def test_argument_kinds_are_known_and_fit_the_registers(self) -> None:
        for row in ROWS.values():
            assert len(row.arguments) <= 6, row.name
            assert {argument.kind for argument in row.arguments} <= set(KIND_BITS), row.name
            assert len({argument.name for argument in row.arguments}) == len(row.arguments), row.name

    def test_no_argument_kind_is_unused(self) -> None:
        assert {argument.kind for row in ROWS.values() for argument in row.arguments} == set(KIND_BITS)


class TestConditions:
    """What a filter can decide on registers alone."""

    @pytest.mark.parametrize(("row", "test"), CONDITIONAL, ids=lambda value: getattr(value, "name", ""))
    def test_pointers_are_only_compared_with_null(self, row: Row, test: syscalls.Test) -> None:
        if row.arguments[test.argument].kind in POINTERS:
            assert (test.operator, test.value) == ("!=", 0)

    @pytest.mark.parametrize(("row", "test"), CONDITIONAL, ids=lambda value: getattr(value, "name", ""))
    def test_width_is_the_kinds(self, row: Row, test: syscalls.Test) -> None:
        assert test.wide == (KIND_BITS[row.arguments[test.argument].kind] == 64)
        assert test.value < 1 << KIND_BITS[row.arguments[test.argument].kind]

    def test_some_but_not_all_bits_is_asked_of_narrow_arguments_only(self) -> None:
        assert [row.name for row, test in CONDITIONAL if test.operator == "~"] == ["personality"]
        assert not [row.name for row, test in CONDITIONAL if test.operator == "~" and test.wide]

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("setsockopt", [(1, False, "=", 0), (1, False, "=", 41)]),
            ("socketpair", [(0, False, "!=", 1)]),
            ("sendto", [(4, True, "!=", 0), (3, False, "&", 0x20000000)]),
            ("unshare", [(0, True, "&", 0xFFFFFFFFFFFBF9FF)]),
            ("clone", [(0, True, "&", 0x7E020000)]),
            ("personality", [(0, False, "~", 0xFFFFFFFF)]),
            ("prctl", [(0, False, "=", 35)]),
            ("seccomp", [(1, False, "&", 8)]),
            ("fcntl", [(1, False, "=", 1024), (1, False, "=", 1026), (1, False, "=", 1040)]),
            ("setpriority", [(0, False, "!=", 0), (1, False, "!=", 0)]),
            ("ioprio_set", [(0, False, "!=", 1), (1, False, "!=", 0)]),
            ("prlimit64", [(0, False, "!=", 0), (1, False, "=", 10)]),
            ("setrlimit", [(0, False, "=", 10)]),
            ("sched_setaffinity", [(0, False, "!=", 0)]),
            ("sched_setattr", [(0, False, "!=", 0)]),
            ("sched_setparam", [(0, False, "!=", 0)]),
            ("sched_setscheduler", [(0, False, "!=", 0)]),
            ("migrate_pages", [(0, False, "!=", 0)]),
            ("move_pages", [(0, False, "!=", 0)]),
            ("ioctl", [(1, False, "=", request) for request in IOCTLS.values()]),
        ],
    )
    def test_condition(self, name: str, expected: list[tuple[int, bool, str, int]]) -> None:
        tests = ROWS[name].tests
        assert sorted((test.argument, test.wide, test.operator, test.value) for test in tests) == sorted(expected)

    def test_conditional_calls_are_all_listed_above(self) -> None:
        assert len({row.name for row, _ in CONDITIONAL}) == 20

    def test_values_are_the_headers(self) -> None:
        """F_SETDELEG (1040) is newer than most installed headers and is not asked for."""
        headers = (
            *("sys/ioctl.h", "sys/socket.h", "linux/fs.h", "linux/fscrypt.h", "linux/fsverity.h"),
            *("linux/btrfs.h", "linux/msdos_fs.h", "linux/sched.h", "linux/prctl.h", "linux/seccomp.h"),
            *("linux/fcntl.h", "linux/ioprio.h", "sys/resource.h"),
        )
        namespaces = ("NEWNS", "NEWCGROUP", "NEWUTS", "NEWIPC", "NEWUSER", "NEWPID", "NEWNET")
        values = IOCTLS | {
            "|".join(f"CLONE_{name}" for name in namespaces): 0x7E020000,
            "~(unsigned long)(CLONE_FS|CLONE_FILES|CLONE_SYSVSEM)": 0xFFFFFFFFFFFBF9FF,
            "MSG_FASTOPEN": 0x20000000,
            "PR_SET_MM": 35,
            "SECCOMP_FILTER_FLAG_NEW_LISTENER": 8,
            "F_SETLEASE": 1024,
            "F_NOTIFY": 1026,
            "PRIO_PROCESS": 0,
            "IOPRIO_WHO_PROCESS": 1,
        }
        includes = "".join(f"#include <{header}>\n" for header in headers)
        asserts = "".join(f'_Static_assert(({text}) == {value}UL, "{text}");\n' for text, value in values.items())
        compiler("-fsyntax-only", "-D_GNU_SOURCE", "-xc", source=includes + asserts)


class TestParse:
    """A table that is not what the module describes is refused with the line's number."""

    def test_row_as_described(self) -> None:
        assert parse_row("f,file,file.read,a:fd b:path,7,,mediate,a!=0x10,EIO,because") == Row(
            name="f",
            group="file",
            operation=Kind.FILE_READ,
            arguments=(Argument("a", "fd"), Argument("b", "path")),
            treatment=Treatment.MEDIATE,
            tests=(syscalls.Test(0, False, "!=", 16),),
            errno=errno.EIO,
            continue_reason="because",
            numbers={"x86_64": 7},
            reason="why",
        )

    def test_denial_without_errno_is_eperm(self) -> None:
        assert parse_row("f,file,file.read,,7,8,deny,,,").errno == errno.EPERM

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            pytest.param("f,file", "3 fields where 11", id="too few fields"),
            pytest.param("f,file,file.read,,1,1,mediate,,,why, then", "12 fields", id="comma in the reason"),
            pytest.param("f,folder,,,1,1,allow,,,", "`folder` is not a class", id="class"),
            pytest.param("f,file,file.eat,,1,1,mediate,,,", "'file.eat' is not a valid Kind", id="operation"),
            pytest.param("f,file,,a:thing,1,1,allow,,,", "`a:thing`", id="argument kind"),
            pytest.param("f,file,,fd,1,1,allow,,,", "`fd`", id="argument without kind"),
            pytest.param("f,file,,,1,1,permit,,,", "'permit' is not a valid Treatment", id="treatment"),
            pytest.param("f,file,,,1,x,allow,,,", "invalid literal", id="number"),
            pytest.param("f,file,file.read,,1,1,allow,,,", "allow rows have neither", id="allow, operation"),
            pytest.param("f,file,,a:int,1,1,allow,a=1,,", "allow rows have neither", id="allow with a test"),
            pytest.param("f,file,,,1,1,deny,,,", "name an operation", id="deny without operation"),
            pytest.param("f,file,file.read,,1,1,deny,,,why", "only a mediate row", id="deny with a reason"),
            pytest.param("f,file,file.read,,1,1,deny,,EWRONG,", "`EWRONG` is not an errno", id="errno"),
            pytest.param("f,file,file.read,,1,1,deny,,errorcode,", "not an errno", id="errno, other name"),
            pytest.param("f,file,file.read,a:int,1,1,deny,b=1,,", "`b=1`", id="test of a missing argument"),
            pytest.param("f,file,file.read,a:int,1,1,deny,a<1,,", "`a<1`", id="test operator"),
            pytest.param("f,file,file.read,a:int,1,1,deny,a=,,", "invalid literal", id="test without number"),
            pytest.param("f,file,file.read,a:int,1,1,deny,a=-1,,", "outside the 32 bits", id="negative value"),
            pytest.param("f,file,file.read,a:int,1,1,deny,a=0x100000000,,", "outside the 32 bits", id="wide value"),
        ],
    )
    def test_bad_row(self, row: str, message: str) -> None:
        with pytest.raises(ValueError, match=rf"^syscalls\.csv:2: .*{re.escape(message)}"):
            parse_row(row)

    def test_a_row_without_a_reason_is_no_row(self) -> None:
        with pytest.raises(ValueError, match=r"^syscalls\.csv:2: every row says why"):
            parse_row("f,file,,,1,1,allow,,,", reason="")

    @pytest.mark.parametrize("text", ["", "name,class\n"])
    def test_bad_columns(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"^syscalls\.csv:1: the columns"):
            syscalls.parse(text)
