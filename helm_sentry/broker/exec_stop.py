"""The exec stop: what really runs is compared with what was approved, before its first instruction.

The kernel reads the path of a continued exec again, and a second thread may have changed it. So the thread is seized
before it continues: at the exec stop the new image is in place, none of it has run, and the old image's threads are
gone. If the file that really runs is not the one that was approved, the process is killed there and the record says so.
"""

import os
import signal
import struct
from dataclasses import dataclass, replace
from functools import cache

from helm_sentry.abi import flags
from helm_sentry.abi.arch import native
from helm_sentry.abi.flags import AT_FDCWD, PATH_MAX
from helm_sentry.broker.action import Action, Answered
from helm_sentry.broker.call import Call, Held, Refused
from helm_sentry.broker.memory import Gone, Unreadable
from helm_sentry.broker.seizure import continue_watched
from helm_sentry.decision import Decision, Reason, Verdict
from helm_sentry.intercept.interceptor import Watch
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
        image: device and inode of the program that /proc/PID/exe must be; None where there was none.
        unknown: another program may run instead, which is judged when it is known: this one could not be read, so it
            may be a script, or it was missing.
        argv: the argument vector it must have, None when no rule looks at it.
        environment: the environment it must have, likewise.
    """

    filename: bytes
    script: tuple[int, int] | None
    image: tuple[int, int] | None
    unknown: bool = False
    argv: tuple[str, ...] | None = None
    environment: tuple[str, ...] | None = None


def identity(status: os.stat_result) -> tuple[int, int]:
    """Return the device and inode of an object."""
    return status.st_dev, status.st_ino


def continue_verified(call: Call, approved: Approved) -> Action:
    """Let the exec go on and look at what it became. Runs on one worker thread from beginning to end."""
    watch = continue_watched(call)
    stopped = watch.wait()
    if stopped and stopped.executed:
        return _verify(call, watch, stopped.pid, approved)
    if stopped:  # the exec failed, and the agent has its errno
        watch.release()
    return Answered()


def _verify(call: Call, watch: Watch, pid: int, approved: Approved) -> Action:
    """Compare the image that is about to run with the approved one; kill the process if they differ."""
    call.broker.memory.executed()  # before anything is read from the new memory
    found = "unreadable"
    try:
        status = os.stat(f"/proc/{pid}/exe")
        found = os.readlink(f"/proc/{pid}/exe")
        if approved.unknown and identity(status) != approved.image and _permitted(call, pid, found, approved):
            approved = replace(approved, script=approved.script or approved.image, image=identity(status), argv=None)
        same = identity(status) == approved.image and _same_file_named(call, pid, approved)
        stranger = _stranger(call, pid, found) or _unjudged(pid, approved)
        if same and not stranger:
            call.broker.executed(pid, found, "{:x}:{:x}".format(*identity(status)), _arguments(pid))
            watch.release()
            return Answered()
        found = f"{found} with {stranger}" if stranger else found
    except (OSError, Gone, Unreadable):
        if _is_dead(pid):
            watch.reap()
            return Answered()
    os.kill(pid, signal.SIGKILL)
    call.broker.killed(call, _MISMATCH, f"approved {call.operations[0].path}, ran {found}")
    watch.reap()
    return Answered()


def _arguments(pid: int) -> list[str]:
    """Return the arguments of the new image, cut as those of a decision are; see proc(5) on /proc/PID/cmdline."""
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        text = file.read(_MOST_ARGUMENTS * _MOST_ARGUMENT)
    return [os.fsdecode(word[:_MOST_ARGUMENT]) for word in text.split(b"\0")[:-1][:_MOST_ARGUMENTS]]


def _permitted(call: Call, pid: int, found: str, approved: Approved) -> bool:
    """Judge the interpreter of a script that nobody could read before: none of it has run."""
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        argv = tuple(map(os.fsdecode, file.read().split(b"\0")[:-1]))
    judged = call.operations, call.decision
    try:
        call.judge(Operation(Kind.EXEC, path=found, argv=argv, environment=approved.environment or ()))
    except (Refused, Held):
        return False
    finally:
        call.operations, call.decision = judged
    return True


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
