"""Making, removing, renaming and linking names: results and trees are those of a native run."""

import itertools
import os
import stat
from pathlib import Path

import pytest

from tests.kernel.conftest import Sandbox
from tests.kernel.file_twins import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_REMOVEDIR,
    AT_SYMLINK_FOLLOW,
    AT_SYMLINK_NOFOLLOW,
    EVERYTHING,
    STAT,
    Out,
    Script,
    Twins,
    named,
    standard,
    text,
)

pytestmark = pytest.mark.kernel

# Names that an operation on a directory entry may be given, present or not.
NAMES = [
    "file", "file/", "file/.", "file/x", "dir", "dir/", "dir/.", "dir/..", "dir//", "empty-dir", "empty-dir/", "empty-dir/.",
    "empty-dir/..", ".", "..", "./", "../", "", "missing", "missing/", "missing/.", "missing/x", "dir/missing", "dir/sub/..",
    "link", "link/", "dir-link", "dir-link/", "dir-link/.", "dir-link/inner", "dir-link/missing", "dangling", "dangling/",
    "dangling-slash", "loop", "loop/x", "absolute", "self-cwd", "dir/out", "fifo", "socket", "void", "no-access", "read-only",
    "closed-dir", "closed-dir/within", "closed-dir/missing", "fixed-dir/within", "fixed-dir/missing", "search-dir/within",
    "line\nbreak", b"bad-\xff\xfe", "n" * 255, "n" * 256, "a (deleted)", "dot-link", "dot-link/.", "chain-40/", "chain-41/x",
]  # fmt: skip
NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4


@pytest.fixture
def twins(sandbox: Sandbox, victims: Path) -> Twins:
    return Twins(sandbox, victims / "file_calls")


@pytest.mark.parametrize("name", ["unlink", "rmdir", "mkdir", "mknod", "symlink", "link", "rename-from", "rename-to"])
def test_every_name(twins: Twins, name: str) -> None:
    script = Script()
    for path in NAMES:
        if name in ("unlink", "rmdir"):
            script.call(name, path)
        elif name == "mkdir":
            script.call(name, path, 0o755)
        elif name == "mknod":
            script.call(name, path, stat.S_IFIFO | 0o644, 0)
        elif name in ("symlink", "link"):
            script.call(name, "other", path)
        elif name == "rename-from":
            script.call("rename", path, "moved")
            script.call("rename", "moved", path)
        else:
            script.call("rename", "other", path)
            script.call("rename", path, "other")
    twins.equal(script)


def test_unlinkat(twins: Twins) -> None:
    script = Script()
    place = script.call("open", "dir", os.O_RDONLY)
    for flags in (0, AT_REMOVEDIR, 1, AT_REMOVEDIR | 1, AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH, -1, AT_REMOVEDIR | (1 << 40)):
        for directory, path in ((place, "sub"), (place, "../empty-dir"), (place, "missing"), (place, ""), (99, "x"), (AT_FDCWD, "link")):
            script.call("unlinkat", directory, path, flags)
    for path in ("inner", "out", "sub/deep", "sub"):
        script.call("unlinkat", place, path, 0)
        script.call("unlinkat", place, path, AT_REMOVEDIR)
    for path in (b"bad-\xff\xfe", "line\nbreak", "fifo", "socket", "dangling", "loop", "dir-link", "chain-9"):
        script.call("unlinkat", AT_FDCWD, path, 0)
    twins.equal(script)


RENAMED = ["file", "file/", "missing", "dir", "dir/", "dir/sub", "dir/sub/x", "empty-dir", "empty-dir/", "link", "dir-link", "dir-link/", ".", ".."]


@pytest.mark.parametrize("flags", [0, NOREPLACE, EXCHANGE, WHITEOUT, NOREPLACE | EXCHANGE, 8, 1 << 31])
@pytest.mark.parametrize("old", RENAMED)
def test_renaming(twins: Twins, old: str, flags: int) -> None:
    script = Script()
    for new in RENAMED:
        script.call("renameat2", AT_FDCWD, old, AT_FDCWD, new, flags)
        script.call("renameat2", AT_FDCWD, new, AT_FDCWD, old, flags)
    twins.equal(script)
