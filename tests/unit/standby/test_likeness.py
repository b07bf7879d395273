"""What a forked run would not have from its caller is seen, by its name."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable

import pytest

from helm_sentry.standby.likeness import difference, likeness, of_interpreter, umask_and_ignored


def started(*prefix: str, before: Callable[[], object] | None = None) -> subprocess.Popen[bytes]:
    command = [*prefix, sys.executable, "-S", "-c", "print(flush=True); input()"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=before)
    assert process.stdout
    process.stdout.readline()
    return process


CHANGES = [
    pytest.param((), lambda: os.nice(1), "priority", id="nice"),
    pytest.param((), lambda: os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0)), "priority", id="scheduler"),
    pytest.param((), lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (63, 63)), "limits", id="limits"),
    pytest.param((), lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}), "Cpus_allowed", id="affinity"),
    pytest.param(("setpriv", "--no-new-privs"), None, "NoNewPrivs", id="no new privileges"),
    pytest.param(("ionice", "-c", "3"), None, "priority of files", id="io"),
    pytest.param(("choom", "-n", "1000", "--"), None, "oom_score_adj", id="oom"),
    pytest.param(("unshare", "--user"), None, "user namespace", id="user namespace"),
    pytest.param(("unshare", "--user", "--net", "--map-current-user"), None, "net namespace", id="network"),
]


@pytest.mark.parametrize(("prefix", "before", "name"), CHANGES)
def test_a_change_is_named_and_nothing_else_differs(
    prefix: tuple[str, ...], before: Callable[[], object] | None, name: str
) -> None:
    if name == "Cpus_allowed" and len(os.sched_getaffinity(0)) == 1:
        pytest.skip("there is one processor")
    with started() as control, started(*prefix, before=before) as changed:
        mine = likeness(os.getpid())
        assert difference(mine, likeness(control.pid)) == ""
        assert name in difference(mine, likeness(changed.pid)).split(", ")
        for process in (control, changed):
            process.communicate(b"\n")


def test_another_session_without_the_terminal_differs_only_where_there_is_one() -> None:
    with started(before=os.setsid) as process:
        expected = "" if likeness(os.getpid())["terminal"] == "0" else "terminal"
        assert difference(likeness(os.getpid()), likeness(process.pid)) == expected
        process.communicate(b"\n")


def test_mask_and_ignored_signals_are_told() -> None:
    with started("env", "--ignore-signal=USR1", before=lambda: os.umask(0o027) and None) as process:
        umask, ignored = umask_and_ignored(process.pid)
        process.communicate(b"\n")
    assert umask == 0o027
    assert 10 in ignored and 12 not in ignored


def test_a_process_that_is_gone_cannot_be_looked_at() -> None:
    with started() as process:
        process.communicate(b"\n")
    with pytest.raises(OSError):
        likeness(process.pid)


def test_what_an_interpreter_reads_at_its_start() -> None:
    assert of_interpreter({"PYTHONPATH": "x", "LANG": "C", "HOME": "/", "TZ": "UTC"}) == {
        "PYTHONPATH": "x",
        "LANG": "C",
    }
