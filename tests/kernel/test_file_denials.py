"""What no rule opens stays closed, whichever way it is approached; natively every one of these ways leads there."""

import os
import signal
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kernel.conftest import Result, Sandbox
from tests.kernel.file_twins import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_REMOVEDIR,
    AT_SYMLINK_FOLLOW,
    EVERYTHING,
    POWERLESS,
    Out,
    Ref,
    Script,
    Twins,
    Value,
    named,
    snapshot,
    text,
)

pytestmark = pytest.mark.kernel

RD, WR, RW, NEW = os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_CREAT | os.O_WRONLY
EXCHANGE, IN_MODIFY = 2, 2
HOW = struct.pack("=QQQ", RD, 0, 0)
BENEATH, IN_ROOT, NO_MAGICLINKS = (struct.pack("=QQQ", RD, 0, resolve) for resolve in (8, 16, 2))
LONG_AGO = struct.pack("=4q", 1, 1, 1, 1)
OPEN_ONLY = """
extends: [base]
allow:
  - {id: program, exec: {paths: ["${program}"]}}
  - {id: program-file, file: {do: [read], paths: ["${program}"]}}
  - {id: open, file: {do: [all], paths: ["${workspace}/open/**"]}}
"""
EVERYTHING_EVERYWHERE = """
extends: [base]
allow:
  - {id: every-file, file: {do: [all], paths: ["/**"]}}
  - {id: program, exec: {paths: ["${program}"]}}
"""
Deed = Callable[[Script, str, str], list[Ref]]


@pytest.fixture
def twins(sandbox: Sandbox, victims: Path) -> Twins:
    return Twins(sandbox, victims / "file_calls")


def _directory(s: Script, path: str) -> Ref:
    return s.call("open", path, os.O_RDONLY | os.O_DIRECTORY)


def _linked(s: Script, target: str, link: str) -> str:
    s.call("symlink", target, link)
    return link


def _from(s: Script, o: str, directory: str, act: Callable[[], Ref]) -> list[Ref]:
    """Act from another working directory, and come back."""
    s.call("chdir", directory)
    acted = act()
    s.call("chdir", o[: o.index("/open")])
    return [acted]


# Each deed has an open directory `o` and a closed one `c` of its own; the working directory is the workspace.
READING: dict[str, Deed] = {
    "absolute path": lambda s, o, c: [s.call("open", f"{c}/secret", RD)],
    "relative path": lambda s, o, c: [s.call("open", c[c.index("closed") :] + "/secret", RD)],
    "dots": lambda s, o, c: [s.call("open", f"{o}/../../{c[c.index('closed') :]}/secret", RD)],
    "working directory": lambda s, o, c: _from(s, o, o, lambda: s.call("open", f"../../{c[c.index('closed') :]}/secret", RD)),
    "changing directory": lambda s, o, c: _from(s, o, o, lambda: s.call("chdir", c)),
    "dirfd": lambda s, o, c: [s.call("openat", _directory(s, o), f"../../{c[c.index('closed') :]}/secret", RD)],
    "descriptor of the directory": lambda s, o, c: [_directory(s, c), s.call("open", c, os.O_PATH)],
    "path descriptor": lambda s, o, c: [s.call("open", f"{c}/secret", os.O_PATH)],
    "creat of what is there": lambda s, o, c: [s.call("open", f"{c}/secret", RD | os.O_CREAT, 0o600)],
    "access mode three": lambda s, o, c: [s.call("open", f"{c}/secret", 3)],
    "link to the file": lambda s, o, c: [s.call("open", _linked(s, f"{c}/secret", f"{o}/link"), RD)],
    "link to the directory": lambda s, o, c: [s.call("open", _linked(s, c, f"{o}/link") + "/secret", RD)],
    "chain of links": lambda s, o, c: [
        s.call("open", _linked(s, "first", _linked(s, f"{c}/secret", f"{o}/first").replace("first", "second")), RD)
    ],
    "relative link": lambda s, o, c: [s.call("open", _linked(s, f"../../{c[c.index('closed') :]}/secret", f"{o}/link"), RD)],
    "link through proc": lambda s, o, c: [s.call("open", _linked(s, f"/proc/self/root{c}/secret", f"{o}/link"), RD)],
    "openat2": lambda s, o, c: [s.call("openat2", AT_FDCWD, f"{c}/secret", HOW, 24)],
    "openat2 beneath": lambda s, o, c: [s.call("openat2", _place(s, o), c[c.index("closed") :] + "/secret", BENEATH, 24)],
    "openat2 in root": lambda s, o, c: [s.call("openat2", _place(s, o), "/../" + c[c.index("closed") :] + "/secret", IN_ROOT, 24)],
    "openat2 without magic": lambda s, o, c: [s.call("openat2", AT_FDCWD, f"{c}/secret", NO_MAGICLINKS, 24)],
    "proc root": lambda s, o, c: [s.call("open", f"/proc/self/root{c}/secret", RD)],
    "proc thread root": lambda s, o, c: [s.call("open", f"/proc/thread-self/root{c}/secret", RD)],
    "proc cwd": lambda s, o, c: [s.call("open", f"/proc/self/cwd/{c[c.index('closed') :]}/secret", RD)],
    "proc pid": lambda s, o, c: [s.call("open", named(f"/proc/%d/cwd/{c[c.index('closed') :]}/secret", s.pid()), RD)],
    "proc descriptor": lambda s, o, c: [
        s.call("open", named(f"/proc/self/fd/%d/../../{c[c.index('closed') :]}/secret", _directory(s, o)), RD)
    ],
    "dev descriptor": lambda s, o, c: [
        s.call("open", named(f"/dev/fd/%d/../../{c[c.index('closed') :]}/secret", _directory(s, o)), RD)
    ],
    "stat": lambda s, o, c: [s.call("stat", f"{c}/secret", Out(144)), s.call("lstat", f"{c}/link", Out(144))],
    "fstatat and statx": lambda s, o, c: [
        s.call("newfstatat", AT_FDCWD, f"{c}/secret", Out(144), 0),
        s.call("statx", AT_FDCWD, f"{c}/secret", 0, 0x7FF, Out(256)),
    ],
    "access": lambda s, o, c: [s.call("access", f"{c}/secret", os.F_OK), s.call("faccessat2", AT_FDCWD, f"{c}/secret", os.R_OK, 0)],
    "readlink": lambda s, o, c: [s.call("readlink", f"{c}/link", Out(64), 64), s.call("readlinkat", AT_FDCWD, f"{c}/link", Out(64), 64)],
    "statfs": lambda s, o, c: [s.call("statfs", c, Out(120))],
    "getxattr": lambda s, o, c: [
        s.call("getxattr", f"{c}/secret", "user.note", Out(64), 64),
        s.call("lgetxattr", f"{c}/secret", "user.note", Out(64), 64),
        s.call("listxattr", f"{c}/secret", Out(64), 64),
    ],
    "watch": lambda s, o, c: [s.call("inotify_add_watch", s.call("inotify_init1", 0), f"{c}/secret", IN_MODIFY)],
}  # fmt: skip


def _place(s: Script, o: str) -> Ref:
    """A path descriptor of the workspace, which may be looked at because something in it is open."""
    return s.call("open", o[: o.index("/open")], os.O_PATH)


CHANGING: dict[str, Deed] = {
    "open to write": lambda s, o, c: [s.call("open", f"{c}/secret", WR), s.call("open", f"{c}/secret", RW | os.O_APPEND)],
    "open to empty": lambda s, o, c: [s.call("open", f"{c}/secret", RD | os.O_TRUNC), s.call("creat", f"{c}/secret", 0o600)],
    "create": lambda s, o, c: [s.call("open", f"{c}/new", NEW, 0o600), s.call("openat", AT_FDCWD, f"{c}/new2", NEW | os.O_EXCL, 0o600)],
    "create through a dangling link": lambda s, o, c: [s.call("open", _linked(s, f"{c}/new", f"{o}/link"), NEW, 0o600)],
    "create through a linked directory": lambda s, o, c: [s.call("open", _linked(s, c, f"{o}/link") + "/new", NEW, 0o600)],
    "unnamed file": lambda s, o, c: [s.call("open", c, os.O_TMPFILE | RW, 0o600)],
    "link an unnamed file in": lambda s, o, c: [
        s.call("linkat", AT_FDCWD, named("/proc/self/fd/%d", s.call("open", o, os.O_TMPFILE | RW, 0o600)), AT_FDCWD, f"{c}/new", AT_SYMLINK_FOLLOW)
    ],
    "hard link out": lambda s, o, c: [s.call("link", f"{c}/secret", f"{o}/twin")],
    "hard link of a link": lambda s, o, c: [s.call("linkat", AT_FDCWD, _linked(s, f"{c}/secret", f"{o}/link"), AT_FDCWD, f"{o}/twin", AT_SYMLINK_FOLLOW)],
    "hard link in": lambda s, o, c: [s.call("link", f"{o}/mine", f"{c}/twin")],
    "rename out": lambda s, o, c: [s.call("rename", f"{c}/secret", f"{o}/moved")],
    "rename in": lambda s, o, c: [s.call("rename", f"{o}/mine", f"{c}/moved")],
    "rename over": lambda s, o, c: [s.call("rename", f"{o}/mine", f"{c}/secret")],
    "exchange": lambda s, o, c: [s.call("renameat2", AT_FDCWD, f"{o}/mine", AT_FDCWD, f"{c}/secret", EXCHANGE)],
    "exchange the other way": lambda s, o, c: [s.call("renameat2", AT_FDCWD, f"{c}/secret", AT_FDCWD, f"{o}/mine", EXCHANGE)],
    "rename the directory": lambda s, o, c: [s.call("rename", f"{c}/", f"{o}/moved"), s.call("rename", f"{o}/directory", c)][:1],
    "rename a directory over it": lambda s, o, c: [s.call("rename", f"{o}/directory", f"{c}/empty")],
    "unlink": lambda s, o, c: [s.call("unlink", f"{c}/secret"), s.call("unlinkat", AT_FDCWD, f"{c}/link", 0)],
    "unlink through a linked directory": lambda s, o, c: [s.call("unlink", _linked(s, c, f"{o}/link") + "/secret")],
    "rmdir": lambda s, o, c: [s.call("rmdir", f"{c}/empty"), s.call("unlinkat", AT_FDCWD, f"{c}/empty2", AT_REMOVEDIR)],
    "mkdir": lambda s, o, c: [s.call("mkdir", f"{c}/new", 0o700), s.call("mkdirat", AT_FDCWD, f"{c}/new2", 0o700)],
    "mknod": lambda s, o, c: [s.call("mknod", f"{c}/new", 0o10600, 0), s.call("mknodat", AT_FDCWD, f"{c}/new2", 0o140600, 0)],
    "symlink": lambda s, o, c: [s.call("symlink", "x", f"{c}/new"), s.call("symlinkat", "x", AT_FDCWD, f"{c}/new2")],
    "truncate": lambda s, o, c: [s.call("truncate", f"{c}/secret", 0)],
    "chmod": lambda s, o, c: [
        s.call("chmod", f"{c}/secret", 0o777),
        s.call("fchmodat", AT_FDCWD, f"{c}/secret", 0o777),
        s.call("fchmodat2", AT_FDCWD, f"{c}/secret", 0o777, 0),
        s.call("chmod", _linked(s, f"{c}/secret", f"{o}/link"), 0o777),
    ],
    "chown": lambda s, o, c: [
        s.call("chown", f"{c}/secret", -1, -1),
        s.call("lchown", f"{c}/link", -1, -1),
        s.call("fchownat", AT_FDCWD, f"{c}/secret", -1, -1, 0),
    ],
    "times": lambda s, o, c: [
        s.call("utimensat", AT_FDCWD, f"{c}/secret", LONG_AGO, 0),
        s.call("utimes", f"{c}/secret", LONG_AGO),
        s.call("utime", f"{c}/secret", LONG_AGO),
        s.call("futimesat", AT_FDCWD, f"{c}/secret", LONG_AGO),
    ],
    "attributes": lambda s, o, c: [
        s.call("setxattr", f"{c}/secret", "user.x", "v", 1, 0),
        s.call("lsetxattr", f"{c}/secret", "user.y", "v", 1, 0),
        s.call("removexattr", f"{c}/secret", "user.note"),
    ],
}  # fmt: skip


def _name(deed: str) -> str:
    return deed.replace(" ", "-")


def _open_and_closed(root: Path) -> None:
    for deed in (*READING, *CHANGING):
        ours, closed = root / "open" / _name(deed), root / "closed" / _name(deed)
        for place in (ours / "directory", closed / "empty", closed / "empty2"):
            place.mkdir(parents=True)
        (ours / "mine").write_text("mine")
        (closed / "secret").write_text("secret")
        os.setxattr(closed / "secret", "user.note", b"noted")
        (closed / "link").symlink_to("secret")


@pytest.mark.parametrize("deeds", [READING, CHANGING], ids=["reading", "changing"])
def test_closed_is_closed_by_every_way(twins: Twins, deeds: dict[str, Deed]) -> None:
    script, root = Script(), twins.workspace
    refs = {
        deed: act(script, f"{root}/open/{_name(deed)}", f"{root}/closed/{_name(deed)}") for deed, act in deeds.items()
    }
    twins.fresh(_open_and_closed)
    natively = twins.native(script)
    assert not _failures(script, [ref for made in refs.values() for ref in made], natively), "natively"
    twins.fresh(_open_and_closed)
    before = snapshot(root / "closed")
    supervised, result = twins.supervised(script, OPEN_ONLY)
    assert not [
        (script.words[ref.line], supervised[ref.line])
        for deed in refs
        for ref in refs[deed]
        if supervised[ref.line][0] not in ("EACCES", "EPERM")
    ]
    assert snapshot(root / "closed") == before
    for deed in refs:
        assert _refused(result, f"{root}/closed/{_name(deed)}"), deed


def _failures(script: Script, refs: list[Ref], results: list[Value]) -> list[tuple[str, Value]]:
    return [(script.words[ref.line], results[ref.line]) for ref in refs if isinstance(results[ref.line][0], str)]


def _refused(result: Result, place: str) -> bool:
    """Whether the log has a denial by default of something in a directory, or of the directory."""
    targets = [
        record[key]
        for record in result.denials()
        for key in ("target", "to")
        if key in record and record["rule"] == "default"
    ]
    return any(target == place or target.startswith(f"{place}/") for target in targets)


def test_a_longer_name_is_another_name(twins: Twins) -> None:
    def seed(root: Path) -> None:
        for name in ("open", "openfoo", "open.d", "Open"):
            (root / name).mkdir()
            (root / name / "file").write_text(name)

    script = Script()
    inside = script.call("open", "open/file", RD)
    outside = [
        script.call("open", f"{name}/file", RD)
        for name in ("openfoo", "open.d", "Open", "open/../openfoo", "./openfoo/.")
    ]
    outside.append(script.call("rename", "open/file", "openfoo/moved"))
    twins.fresh(seed)
    natively = twins.native(script)
    assert not _failures(script, [*outside[:3], inside], natively)
    twins.fresh(seed)
    supervised, result = twins.supervised(script, OPEN_ONLY)
    assert supervised[inside.line] == (3,)
    assert [supervised[ref.line] for ref in outside] == [("EACCES",)] * 6
    assert {record["rule"] for record in result.denials()} == {"default"}


READ_ONLY = """
extends: [base]
allow:
  - {id: program, exec: {paths: ["${program}"]}}
  - {id: read, file: {do: [read, list], paths: ["${workspace}/**"]}}
"""


def _changes_by_descriptor(script: Script) -> Iterator[tuple[str, Ref]]:
    file = script.call("open", "file", RD)
    path = script.call("open", "file", os.O_PATH)
    yield "chmod", script.call("fchmod", file, 0o777)
    yield "chmod", script.call("fchmodat2", path, "", 0o777, AT_EMPTY_PATH)
    yield "chmod", script.call("chmod", named("/proc/self/fd/%d", path), 0o777)
    yield "chown", script.call("fchown", file, -1, -1)
    yield "chown", script.call("fchownat", path, "", -1, -1, AT_EMPTY_PATH)
    yield "utime", script.call("utimensat", file, 0, LONG_AGO, 0)
    yield "utime", script.call("utimensat", file, 0, 0, 0)
    yield "utime", script.call("utimensat", path, "", LONG_AGO, AT_EMPTY_PATH)
    yield "xattr", script.call("fsetxattr", file, "user.x", "v", 1, 0)
    yield "xattr", script.call("fremovexattr", file, "user.x")
    yield "write", script.call("open", named("/proc/self/fd/%d", file), WR)
    yield "write", script.call("open", named("/proc/self/fd/%d", path), RW)
    yield "write", script.call("open", named("/dev/fd/%d", path), WR | os.O_APPEND)
    yield "truncate", script.call("open", named("/proc/self/fd/%d", file), RD | os.O_TRUNC)
    yield "truncate", script.call("truncate", named("/proc/self/fd/%d", file), 0)
    yield "truncate", script.call("open", "file", RD | os.O_TRUNC)
    yield "create", script.call("open", "new", RD | os.O_CREAT, 0o600)
    yield "create", script.call("open", ".", os.O_TMPFILE | RW, 0o600)
    yield "write", script.call("open", "file", 3)
    yield "link", script.call("linkat", AT_FDCWD, named("/proc/self/fd/%d", file), AT_FDCWD, "twin", AT_SYMLINK_FOLLOW)


def test_a_file_that_may_be_read_is_not_changed_through_its_descriptor(twins: Twins) -> None:
    def seed(root: Path) -> None:
        (root / "file").write_text("content")

    script = Script()
    acts = list(_changes_by_descriptor(script))
    twins.fresh(seed)
    natively = twins.native(script)
    assert not _failures(script, [ref for _, ref in acts], natively), "natively"
    twins.fresh(seed)
    before = snapshot(twins.workspace)
    supervised, result = twins.supervised(script, READ_ONLY)
    assert not [
        (script.words[ref.line], supervised[ref.line]) for _, ref in acts if supervised[ref.line] != ("EACCES",)
    ]
    assert snapshot(twins.workspace) == before
    refused = [record["ops"] for record in result.denials() if record["rule"] == "default"]
    assert len(refused) == len(acts)
    assert all(f"file.{kind}" in ops for (kind, _), ops in zip(acts, refused, strict=True)), refused


BLOCKED = """
extends: [base]
allow:
  - {id: program, exec: {paths: ["${program}"]}}
  - {id: workspace, file: {do: [all], paths: ["${workspace}/**"]}}
block:
  - {id: private, file: {do: [all], paths: ["${workspace}/area/keys/private/**"]}}
"""


def test_a_blocked_path_is_not_moved_from_under_its_rule(twins: Twins) -> None:
    """To rename a directory above it would leave the rule pointing at nothing."""
    moves: list[tuple[str, Callable[[Script, str], Ref]]] = [
        ("rename its directory", lambda s, at: s.call("rename", f"{at}/keys", f"{at}/moved")),
        ("rename one further up", lambda s, at: s.call("rename", at, "moved")),
        ("rename it", lambda s, at: s.call("rename", f"{at}/keys/private", f"{at}/keys/public")),
        ("exchange", lambda s, at: s.call("renameat2", AT_FDCWD, at, AT_FDCWD, "other", EXCHANGE)),
        ("exchange from the other side", lambda s, at: s.call("renameat2", AT_FDCWD, "other", AT_FDCWD, f"{at}/keys", EXCHANGE)),
        ("by its slash", lambda s, at: s.call("rename", f"{at}/", "moved/")),
        ("by a link", lambda s, at: s.call("rename", _linked(s, ".", "here") + f"/{at}", "moved")),
        ("by a hard link", lambda s, at: s.call("link", f"{at}/keys/private/secret", "twin")),
        ("read it", lambda s, at: s.call("open", f"{at}/keys/private/secret", RD)),
        ("look at it", lambda s, at: s.call("stat", f"{at}/keys/private", Out(144))),
        ("list it", lambda s, at: s.call("open", f"{at}/keys/private", RD | os.O_DIRECTORY)),
    ]  # fmt: skip

    def seed(root: Path) -> None:
        (root / "area/keys/private").mkdir(parents=True)
        (root / "area/keys/private/secret").write_text("secret")
        (root / "other").mkdir()
        (root / "other/mine").write_text("mine")

    for name, move in moves:
        control = Script()
        ref = move(control, "area")
        twins.fresh(seed)
        assert not _failures(control, [ref], twins.native(control)), name
    script = Script()
    refs = [move(script, "area") for _, move in moves]
    twins.fresh(seed)
    before = snapshot(twins.workspace / "area")
    supervised, result = twins.supervised(script, BLOCKED)
    assert [supervised[ref.line][0] for ref in refs] == ["EACCES"] * len(moves)
    assert snapshot(twins.workspace / "area") == before
    assert [record["rule"] for record in result.denials()] == ["private"] * len(moves)


def test_a_path_descriptor_of_something_closed_is_not_kept(twins: Twins, victims: Path) -> None:
    """The kernel reads the path of an open with O_PATH again. What it opened is looked at before the thread runs on."""

    def seed(root: Path) -> None:
        for name in ("open", "shut"):
            (root / name).mkdir()
            (root / name / "file").write_text(name)

    twins.fresh(seed)
    command = [str(victims / "file_path_race"), "open/file", "shut/file", "20000"]
    # Both threads may share a processor for a while.
    tries = (twins.sandbox.native(command).stdout.split() for _ in range(20))
    assert any(won == "1" for _, won in tries), "natively the race was lost every time"
    for _ in range(5):
        result = twins.sandbox.run(command, twins.sandbox.policy(OPEN_ONLY))
        if result.status == 0:  # not once in all that time did the kernel read what the supervisor had not
            assert result.stdout.split()[1] == "0"
            continue
        assert (result.status, result.stdout) == (-signal.SIGKILL, "")
        (killed,) = [record for record in result.records if record.get("action") == "kill"]
        assert (killed["rule"], killed["verdict"]) == ("sentry/verified-open", "DENY")
        assert killed["detail"] == f"a descriptor became one of {twins.workspace}/shut/file"
        return
    raise AssertionError("the race was never won, so nothing was verified")


# The supervisor itself


@pytest.mark.parametrize("policy", [EVERYTHING, EVERYTHING_EVERYWHERE], ids=["reads everything", "does everything"])
def test_the_supervisor_cannot_be_looked_into(twins: Twins, policy: str) -> None:
    """Not even by a policy that opens every file: whoever opens /proc/PID/mem for the agent is that very process."""
    entries = ("mem", "environ", "maps", "fd", "fd/1", "fdinfo", "root/etc/passwd", "cwd", "task", "stat", "comm", "")
    prefix = POWERLESS if os.getuid() == 0 and twins.sandbox.uid == 0 else ()
    say_so = [*prefix, "sh", "-c", "echo ready >&2; exec sleep 60"]
    bystander = twins.sandbox.popen(say_so, stdin=-3, stdout=-3, stderr=-1)
    try:
        # Until then it is whoever starts it: root, and closed to who is not.
        assert bystander.stderr and bystander.stderr.readline() == "ready\n"
        control = Script()
        looked = _looks(control, bystander.pid, entries)
        assert not _failures(control, looked, twins.native(control)), "natively"
    finally:
        bystander.kill()
        bystander.wait()
    before = set(twins.sandbox.runs())
    supervisor = twins.sandbox.popen(
        twins.sandbox.argv([str(twins.program)], twins.sandbox.policy(policy)), stdin=-1, stdout=-1, stderr=-1
    )
    script = Script()
    guardian = script.call("getppid")
    looked = _looks(script, supervisor.pid, entries) + _looks(script, guardian, entries)
    looked += _looks(script, supervisor.pid, ("mem",), before=f"{supervisor.pid}/task/")
    out, err = supervisor.communicate(script.text(), timeout=60)
    assert supervisor.returncode == 0, err
    results = script.results(out)
    (run,) = set(twins.sandbox.runs()) - before
    denied = Result(0, out, err, run).denials()
    assert [results[ref.line] for ref in looked] == [("EACCES",)] * len(looked)
    assert [record["rule"] for record in denied] == ["sentry/state"] * len(looked)
    assert all(record["target"].startswith(f"/proc/{supervisor.pid}") for record in denied)


def _looks(script: Script, process: int | Ref, entries: tuple[str, ...], before: str = "") -> list[Ref]:
    made = []
    for entry in entries:
        path = named(f"/proc/%d/{entry}", process) if isinstance(process, Ref) else f"/proc/{before}{process}/{entry}"
        made.append(script.call("open", path, RD))
        if entry == "mem":
            made.append(script.call("open", path, RW))
    return made


def test_state_and_policy_are_out_of_reach(twins: Twins) -> None:
    """Keys and logs are hidden, the policy can be read and not changed; by a policy that opens every file."""
    sandbox = twins.sandbox
    policy = sandbox.policy(EVERYTHING_EVERYWHERE)
    if os.getuid() == 0:  # natively all of it is the agent's own
        os.chown(policy, sandbox.uid, -1)
        os.chown(sandbox.root, sandbox.uid, -1)
    twins.fresh(lambda root: None)
    twins.supervised(Script(), EVERYTHING_EVERYWHERE)  # leaves keys and a log to look for
    state = sandbox.root / "state/helm-sentry"
    key = next(path for path in sorted((state / "keys").iterdir()) if path.is_file())
    log = sandbox.runs()[0] / "audit.jsonl"
    script = Script()
    reads = [script.call("open", str(path), RD) for path in (key, log, state, state / "keys")]
    reads += [script.call("stat", str(path), Out(144)) for path in (key, log)]
    reads.append(script.call("open", _linked(script, str(key), "link"), RD))
    changes = [
        script.call("open", str(log), WR | os.O_APPEND),
        script.call("open", str(policy), WR | os.O_APPEND),
        script.call("truncate", str(log), 1 << 20),
        script.call("chmod", str(policy), 0o666),
        script.call("link", str(key), "twin"),
        script.call("rename", str(log), f"{log}.old"),
        script.call("rename", str(policy), f"{policy}.old"),
        script.call("rename", str(state), f"{state}.old"),
        script.call("rename", str(state.parent), f"{state.parent}.old"),
    ]
    seen = script.call("open", str(policy), RD)
    supervised, result = twins.supervised(script, EVERYTHING_EVERYWHERE)
    assert {supervised[ref.line][0] for ref in reads + changes} <= {"EACCES", "EPERM"}
    assert supervised[seen.line] == (3,)
    assert {record["rule"] for record in result.denials()} == {"sentry/state", "sentry/sources"}
    assert len(result.denials()) == len(reads + changes)
    natively = twins.native(script)
    assert not _failures(script, reads + changes, natively), "natively"


def test_what_is_denied_is_not_told_apart_from_what_is_missing(twins: Twins) -> None:
    """Whether a closed name exists is not for the agent to know, nor by which error."""

    def seed(root: Path) -> None:
        (root / "closed/directory").mkdir(parents=True)
        (root / "closed/file").write_text("x")
        (root / "closed/loop").symlink_to("loop")
        (root / "open").mkdir()

    script = Script()
    script.call("symlink", "../closed", "open/link")
    names = ("file", "missing", "directory", "directory/x", "file/x", "loop", "loop/x", "missing/x", "n" * 256, "file/")
    for base in ("closed", "open/link", f"{twins.workspace}/closed", "/proc/self/cwd/closed"):
        for name in names:
            path = f"{base}/{name}"
            script.call("open", path, RD)
            script.call("open", path, NEW, 0o600)
            script.call("open", path, os.O_PATH)
            script.call("openat2", AT_FDCWD, path, HOW, 24)
            script.call("openat2", AT_FDCWD, path, struct.pack("=QQQ", RD, 0, 1), 24)
            script.call("openat2", AT_FDCWD, path, struct.pack("=QQQ", NEW, 0o600, 1), 24)
            script.call("stat", path, Out(144))
            script.call("access", path, os.F_OK)
            script.call("readlink", path, Out(16, text), 16)
            script.call("mkdir", path, 0o700)
            script.call("unlink", path)
            script.call("rename", path, "open/x")
            script.call("chdir", path)
    twins.fresh(seed)
    supervised, _ = twins.supervised(script, OPEN_ONLY)
    told = {(script.words[at], value[0]) for at, value in enumerate(supervised) if at and value[0] != "EACCES"}
    assert not told
    assert len({value[0] for value in twins.native(script)[1:]}) > 5, "natively the errors tell"
