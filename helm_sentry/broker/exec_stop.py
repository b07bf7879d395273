"""The exec stop: what really runs is compared with what was approved, before its first instruction.

The kernel reads the path of a continued exec again, and a second thread may have changed it. So the thread is seized
before it continues: at the exec stop the new image is in place, none of it has run, and the old image's threads are
gone. If the file that really runs is not the one that was approved, the process is killed there and the record says so.
"""

import errno
import os
import signal
import struct
from dataclasses import dataclass
from functools import cache

from helm_sentry.abi import flags, libc
from helm_sentry.abi.arch import native
from helm_sentry.abi.flags import AT_FDCWD, PATH_MAX
from helm_sentry.broker.action import Action, Answered
from helm_sentry.broker.call import Call
from helm_sentry.broker.memory import Gone, Unreadable
from helm_sentry.decision import Decision, Reason, Verdict
from helm_sentry.intercept.process_tree import stat_fields
from helm_sentry.operation import Kind, Operation

_MOST_ARGUMENTS, _MOST_ARGUMENT = 256, 4096
_NAMED = 6  # fields of a line of /proc/PID/maps that has a name
_MISMATCH = Decision(Verdict.DENY, Reason.EXEC_MISMATCH, "sentry/verified-exec")


@dataclass(frozen=True, slots=True)
class Approved:
    """What may run.

    Attributes:
        filename: the path as the agent gave it, as the new image will report it in AT_EXECFN.
        script: device and inode of the file named, if that is a script; None otherwise.
        script_link: path that leads to the file the agent named, for looking again.
        image: device and inode of the program that /proc/PID/exe must be.
        argv: the argument vector it must have, None when no rule looks at it.
        environment: the environment it must have, likewise.
    """

    filename: bytes
    script: tuple[int, int] | None
    image: tuple[int, int]
    argv: tuple[str, ...] | None = None
    environment: tuple[str, ...] | None = None


def identity(status: os.stat_result) -> tuple[int, int]:
    """Return the device and inode of an object."""
    return status.st_dev, status.st_ino


def continue_verified(call: Call, approved: Approved) -> Action:
    """Let the exec go on and look at what it became. Runs on one worker thread from seize to detach."""
    # An attached thread whose tracer dies is killed, so a supervisor that dies here leaves nothing unverified.
    options = flags.PTRACE_O_TRACEEXEC | flags.PTRACE_O_EXITKILL
    try:
        libc.ptrace(flags.PTRACE_SEIZE, call.tid, options)
    except ProcessLookupError:
        raise Gone from None
    except PermissionError:
        raise call.out_of_reach() from None
    try:
        continue_to_stop(call)
    except BaseException:
        _let_go(call)
        raise
    return _await_exec(call, approved)


def continue_to_stop(call: Call) -> None:
    """Record and continue the call of a seized thread, which stops when the call has returned.

    That stop tells a failed exec from one that takes long. It is asked for before the thread can go on and reach its
    next call, and as late as can be: where a waiting caller can be interrupted (before Linux 5.19) it may leave the
    call for the stop and make it anew.
    """
    call.broker.record(call, "continue")
    libc.ptrace(flags.PTRACE_INTERRUPT, call.tid)
    call.broker.listener.send_continue(call.id)


def _let_go(call: Call) -> None:
    """End the seizure of a thread that was never continued: answer with an error, wait for the stop, detach."""
    try:
        libc.ptrace(flags.PTRACE_INTERRUPT, call.tid)
        call.broker.listener.send_errno(call.id, errno.EPERM)
        pid, status = os.waitpid(-1, flags.WALL | flags.WNOTHREAD)
    except (ProcessLookupError, ChildProcessError):
        return
    if os.WIFSTOPPED(status):
        detach(pid)


def _await_exec(call: Call, approved: Approved) -> Action:
    while True:
        try:
            # When a thread that is not the leader execs, it takes the leader's id: wait for any tracee of this thread.
            pid, status = os.waitpid(-1, flags.WALL | flags.WNOTHREAD)
        except ChildProcessError:
            return Answered()
        if not os.WIFSTOPPED(status):
            if pid == call.tid:
                return Answered()
            continue
        event = status >> 16
        if event == flags.PTRACE_EVENT_EXEC:
            return _verify(call, pid, approved)
        # Any other stop comes after the call has returned: the exec failed, and the agent has its errno.
        detach(pid, os.WSTOPSIG(status) if event != flags.PTRACE_EVENT_STOP else 0)
        return Answered()


def detach(pid: int, deliver: int = 0) -> None:
    """Let go of a stopped tracee of this thread, or collect it if it has been killed: its parent hears only then."""
    try:
        libc.ptrace(flags.PTRACE_DETACH, pid, deliver)
    except ProcessLookupError:
        reap(pid)


def reap(pid: int) -> None:
    """Collect a tracee of this thread that dies."""
    try:
        while os.WIFSTOPPED(os.waitpid(pid, flags.WALL | flags.WNOTHREAD)[1]):
            pass
    except ChildProcessError:
        return


def _verify(call: Call, pid: int, approved: Approved) -> Action:
    """Compare the image that is about to run with the approved one; kill the process if they differ."""
    call.broker.memory.executed()  # before anything is read from the new memory
    found = "unreadable"
    try:
        status = os.stat(f"/proc/{pid}/exe")
        found = os.readlink(f"/proc/{pid}/exe")
        same = identity(status) == approved.image and _same_file_named(call, pid, approved)
        stranger = _stranger(call, pid, found) or _unjudged(pid, approved)
        if same and not stranger:
            call.broker.executed(pid, found, "{:x}:{:x}".format(*identity(status)), _arguments(pid))
            detach(pid)
            return Answered()
        found = f"{found} with {stranger}" if stranger else found
    except (OSError, Gone, Unreadable):
        if _is_dead(pid):
            reap(pid)
            return Answered()
    os.kill(pid, signal.SIGKILL)
    call.broker.killed(call, _MISMATCH, f"approved {call.operations[0].path}, ran {found}")
    reap(pid)
    return Answered()


def _arguments(pid: int) -> list[str]:
    """Return the arguments of the new image, cut as those of a decision are; see proc(5) on /proc/PID/cmdline."""
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        text = file.read(_MOST_ARGUMENTS * _MOST_ARGUMENT)
    return [os.fsdecode(word[:_MOST_ARGUMENT]) for word in text.split(b"\0")[:-1][:_MOST_ARGUMENTS]]


def _unjudged(pid: int, approved: Approved) -> str:
    """Return what differs from what was judged, empty when nothing does: at the stop both are the kernel's own copy."""
    for what, name, judged in (
        ("arguments", "cmdline", approved.argv),
        ("environment", "environ", approved.environment),
    ):
        if judged is None:
            continue
        with open(f"/proc/{pid}/{name}", "rb") as file:
            words = file.read().split(b"\0")[:-1]
        if tuple(map(os.fsdecode, words)) != (judged or ("",) * (name == "cmdline")):
            return f"other {what}"
    return ""


def _is_dead(pid: int) -> bool:
    try:
        return stat_fields(pid)[0] in (b"Z", b"X")
    except (ProcessLookupError, IndexError):
        return True


def _stranger(call: Call, pid: int, image: str) -> str:
    """Return the file besides the program that is mapped without a rule, empty when there is none.

    At the exec stop only the program and the loader its PT_INTERP names are mapped, and the loader runs first. It is
    a dynamic loader of this machine, or a program that a rule allows.
    """
    with open(f"/proc/{pid}/maps", "rb") as file:
        fields = [line.rstrip(b"\n").split(maxsplit=_NAMED - 1) for line in file]
    mapped = {os.fsdecode(each[-1]) for each in fields if len(each) == _NAMED and each[-1].startswith(b"/")}
    for path in mapped - {image.replace("\n", "\\012")} - _loaders():
        if not call.permits(Operation(Kind.EXEC, path=path)):
            return path
    return ""


@cache
def _loaders() -> frozenset[str]:
    return frozenset(os.path.realpath(path) for path in native().loaders)


def _same_file_named(call: Call, pid: int, approved: Approved) -> bool:
    """Whether the exec used the judged path, and a script at that path is still the judged one.

    At the exec stop nobody else can write the new image's memory, so its AT_EXECFN is the kernel's own copy.
    """
    if _execution_filename(call, pid) != approved.filename:
        return False
    if approved.script is None:
        return True
    keep: list[int] = []
    try:
        again = call.broker.resolver.pin(keep, pid, AT_FDCWD, approved.filename)
        return not again.error and identity(again.status()) == approved.script
    finally:
        for descriptor in keep:
            os.close(descriptor)


def _execution_filename(call: Call, pid: int) -> bytes:
    with open(f"/proc/{pid}/auxv", "rb") as file:
        for kind, value in struct.iter_unpack("=QQ", file.read(4096)):
            if kind == flags.AT_EXECFN:
                return call.broker.memory.read_string(pid, value, PATH_MAX + 32)
    return b""
