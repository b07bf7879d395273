"""Programs: decided on the resolved file, continued under the floor, verified before the first instruction.

The kernel alone can exec for a process, so the call is continued. It reads the path again then, and a second thread
may have changed it. So the thread is seized before it continues: at the exec stop the new image is in place, none of
it has run, and the old image's threads are gone. If the file that really runs is not the one that was approved, the
process is killed there and the record says so.
"""

import errno
import os
import signal
import stat
import struct
from dataclasses import dataclass

from helm_sentry.abi import flags, libc
from helm_sentry.abi.flags import AT_FDCWD, PATH_MAX
from helm_sentry.broker.action import Action, Answered, Later
from helm_sentry.broker.call import Call
from helm_sentry.broker.memory import Gone, Unreadable
from helm_sentry.broker.paths import Pinned
from helm_sentry.decision import Decision, Reason, Verdict
from helm_sentry.decode.operations import file_operation
from helm_sentry.decode.scripts import ScriptError, interpreter_of
from helm_sentry.operation import Kind, Operation

_MOST_SCRIPTS = 5  # fs/exec.c: an interpreter of an interpreter, so deep and no deeper
_HEADER = 256  # <linux/binfmts.h> BINPRM_BUF_SIZE
_MOST_ARGUMENTS, _MOST_ARGUMENT = (
    256,
    4096,
)  # of the argument vector, for the record; the kernel copies its own
_POINTER = 8
_MISMATCH = Decision(Verdict.DENY, Reason.EXEC_MISMATCH, "sentry/verified-exec")


@dataclass(frozen=True, slots=True)
class Approved:
    """What may run.

    Attributes:
        filename: the path as the agent gave it, as the new image will report it in AT_EXECFN.
        script: device and inode of the file named, if that is a script; None otherwise.
        script_link: path that leads to the file the agent named, for looking again.
        image: device and inode of the program that /proc/PID/exe must be.
    """

    filename: bytes
    script: tuple[int, int] | None
    image: tuple[int, int]


def execve(call: Call) -> Action | Later:
    """execve(2)."""
    path = call.string(0)
    return _exec(call, call.pin(AT_FDCWD, path), path, call.args[1])


def execveat(call: Call) -> Action | Later:
    """execveat(2)."""
    directory, at_flags = call.int32(0), call.uint32(4)
    if at_flags & ~(flags.AT_EMPTY_PATH | flags.AT_SYMLINK_NOFOLLOW):
        raise OSError(errno.EINVAL, "unknown flags")
    path = call.string(1)
    if not path and at_flags & flags.AT_EMPTY_PATH:
        return _exec(call, call.descriptor(directory), b"/dev/fd/%d" % directory, call.args[2])
    pinned = call.pin(directory, path, follow=not at_flags & flags.AT_SYMLINK_NOFOLLOW)
    relative = directory != AT_FDCWD and not path.startswith(b"/")
    return _exec(call, pinned, b"/dev/fd/%d/%b" % (directory, path) if relative else path, call.args[2])


def _exec(call: Call, pinned: Pinned, filename: bytes, vector: int) -> Action | Later:
    if pinned.error:  # as a search through PATH meets it: to say so is to let the agent look, no more
        call.judge(file_operation(Kind.FILE_STAT, pinned.path))
        call.require(pinned)
    operation = Operation(Kind.EXEC, path=pinned.path, argv=arguments(call, vector))
    call.judge(operation)
    programs = [pinned, *_interpreters(call, pinned)]
    call.judge(
        operation, *(Operation(Kind.EXEC, path=program.path) for program in programs[1:]), effect=False
    )
    for program in programs:
        call.require(program)
    identities = [_identity(program.status()) for program in programs]
    call.object = "{:x}:{:x}".format(*identities[0])
    script = identities[0] if len(programs) > 1 else None
    approved = Approved(filename, script, identities[-1])
    return Later(lambda: _continue_verified(call, approved))


def _interpreters(call: Call, program: Pinned) -> list[Pinned]:
    """Return the chain of `#!` interpreters of a program, each pinned; the last one is what will run."""
    chain: list[Pinned] = []
    while (name := _interpreter_name(program)) is not None:
        if len(chain) == _MOST_SCRIPTS:
            raise OSError(errno.ELOOP, "too many interpreters")
        program = call.pin(AT_FDCWD, name)
        chain.append(program)
        if program.error:
            break
    return chain


def _interpreter_name(program: Pinned) -> bytes | None:
    if not stat.S_ISREG(program.status().st_mode):
        return None  # the kernel refuses it with EACCES
    try:
        opened = libc.openat(AT_FDCWD, program.link, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        return None  # a program may be run without being readable, a script may not
    try:
        return interpreter_of(os.pread(opened, _HEADER, 0))
    except ScriptError:
        raise OSError(errno.ENOEXEC, "bad interpreter line") from None
    finally:
        os.close(opened)


def arguments(call: Call, vector: int) -> tuple[str, ...]:
    """Copy the argument vector for judging and for the record, cut where it is long.

    Raises:
        OSError: EFAULT as the kernel gives it.
    """
    found: list[str] = []
    while vector and len(found) < _MOST_ARGUMENTS:
        (pointer,) = struct.unpack("=Q", call.read(vector + len(found) * _POINTER, _POINTER))
        if not pointer:
            break
        found.append(os.fsdecode(_argument(call, pointer)))
    return tuple(found)


def _argument(call: Call, pointer: int) -> bytes:
    try:
        return call.broker.memory.read_string(call.tid, pointer, _MOST_ARGUMENT)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return call.read(pointer, _MOST_ARGUMENT) + b"..."


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _continue_verified(call: Call, approved: Approved) -> Action:
    """Let the exec go on and look at what it became. Runs on one worker thread from seize to detach."""
    # An attached thread whose tracer dies is killed, so a supervisor that dies here leaves nothing unverified.
    options = flags.PTRACE_O_TRACEEXEC | flags.PTRACE_O_EXITKILL
    try:
        libc.ptrace(flags.PTRACE_SEIZE, call.tid, options)
    except ProcessLookupError:
        raise Gone from None
    except PermissionError:
        raise Unreadable from None
    try:
        # The stop this asks for comes when the call returns, which tells a failed exec from one that takes long.
        libc.ptrace(flags.PTRACE_INTERRUPT, call.tid)
        call.broker.record(call, "continue")
        call.broker.listener.send_continue(call.id)
    except BaseException:
        _let_go(call)
        raise
    return _await_exec(call, approved)


def _let_go(call: Call) -> None:
    """End the seizure of a thread that was never continued: answer with an error, wait for the stop, detach."""
    call.broker.listener.send_errno(call.id, errno.EPERM)
    _detach_at_stop()


def _detach_at_stop() -> None:
    try:
        pid, status = os.waitpid(-1, flags.WALL | flags.WNOTHREAD)
        if os.WIFSTOPPED(status):
            libc.ptrace(flags.PTRACE_DETACH, pid)
    except (ChildProcessError, ProcessLookupError):
        return


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
        _detach(pid, os.WSTOPSIG(status) if event != flags.PTRACE_EVENT_STOP else 0)
        return Answered()


def _detach(pid: int, deliver: int) -> None:
    try:
        libc.ptrace(flags.PTRACE_DETACH, pid, deliver)
    except ProcessLookupError:
        return


def _verify(call: Call, pid: int, approved: Approved) -> Action:
    """Compare the image that is about to run with the approved one; kill the process if they differ."""
    found = "unreadable"
    try:
        status = os.stat(f"/proc/{pid}/exe")
        found = os.readlink(f"/proc/{pid}/exe")
        same = _identity(status) == approved.image and _same_file_named(call, pid, approved)
        if same:
            call.broker.executed(pid, found, "{:x}:{:x}".format(*_identity(status)))
            _detach(pid, 0)
            return Answered()
    except (OSError, Gone, Unreadable):
        if not os.path.exists(f"/proc/{pid}"):
            return Answered()
    os.kill(pid, signal.SIGKILL)
    call.broker.killed(call, _MISMATCH, f"approved {call.operations[0].path}, ran {found}")
    _detach(pid, signal.SIGKILL)
    return Answered()


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
        return not again.error and _identity(again.status()) == approved.script
    finally:
        for descriptor in keep:
            os.close(descriptor)


def _execution_filename(call: Call, pid: int) -> bytes:
    with open(f"/proc/{pid}/auxv", "rb") as file:
        for kind, value in struct.iter_unpack("=QQ", file.read(4096)):
            if kind == flags.AT_EXECFN:
                return call.broker.memory.read_string(pid, value, PATH_MAX + 32)
    return b""


HANDLERS = {"execve": execve, "execveat": execveat}
