"""A host without a layer: the run refuses to start, or says in every record that the layer is missing.

The host is real; Landlock is taken away by a seccomp filter that makes its system calls fail with ENOSYS, as a
kernel without it does.
"""

import ctypes
import subprocess
from pathlib import Path

import pytest

from helm_sentry.abi import flags, libc, syscalls
from helm_sentry.abi.arch import native
from helm_sentry.abi.structs import SOCK_FILTER, SOCK_FPROG
from tests.kernel.conftest import Result, Sandbox

pytestmark = pytest.mark.kernel

_PR_SET_SECCOMP = 22


def _without_landlock() -> None:
    """Make landlock_create_ruleset fail in this process and its children."""
    number = syscalls.number("landlock_create_ruleset", native())
    program = b"".join(
        SOCK_FILTER.pack(*instruction)
        for instruction in (
            (0x20, 0, 0, 0),
            (0x15, 0, 1, number),
            (0x06, 0, 0, flags.SECCOMP_RET_ERRNO | 38),
            (0x06, 0, 0, flags.SECCOMP_RET_ALLOW),
        )
    )
    code = ctypes.create_string_buffer(program, len(program))
    header = ctypes.create_string_buffer(SOCK_FPROG.pack(4, ctypes.addressof(code)))
    libc.prctl(flags.PR_SET_NO_NEW_PRIVS, 1)
    libc.prctl(_PR_SET_SECCOMP, 2, ctypes.addressof(header))


def _run(sandbox: Sandbox, *options: str) -> tuple[int, str, str, Path | None]:
    before = set(sandbox.runs())
    process = sandbox.popen(
        sandbox.argv(["cat", "/etc/hostname", "secret"], options=options),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=_without_landlock,
    )
    out, err = process.communicate(timeout=60)
    new = sorted(set(sandbox.runs()) - before)
    return process.returncode, out, err, new[-1] if new else None


def test_without_landlock_a_run_does_not_start(sandbox: Sandbox) -> None:
    (sandbox.workspace / "secret").write_text("text")
    status, out, err, directory = _run(sandbox)
    assert (status, out, directory) == (125, "", None)
    assert "landlock" in err
    assert "--accept-degraded" in err


def test_accepted_it_runs_and_every_record_says_so(sandbox: Sandbox) -> None:
    (sandbox.workspace / "secret").write_text("text")
    _, out, _, directory = _run(sandbox, "--accept-degraded")
    assert "text" in out
    assert directory is not None
    records = Result(0, "", "", directory).records
    assert len(records) > 5
    assert all(record["degraded"] == ["landlock"] for record in records)
    assert "landlock" in sandbox.verify(directory).stdout
