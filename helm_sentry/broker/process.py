"""Signals, the working directory, and calls that name other processes."""

import errno
import os
import signal
import stat
from functools import lru_cache

from helm_sentry.abi import flags, libc
from helm_sentry.abi.flags import AT_FDCWD
from helm_sentry.broker.action import SUCCESS, Action, Answered, Continue, Errno, Inject, Later
from helm_sentry.broker.call import Call
from helm_sentry.broker.files import OWN_OBJECT
from helm_sentry.broker.lineage import RLIMIT_LOCKS
from helm_sentry.broker.memory import Gone, Unreadable
from helm_sentry.broker.seizure import continue_watched
from helm_sentry.broker.sockets import judge_unless_blocked
from helm_sentry.decision import Decision, Reason, Verdict
from helm_sentry.decode.operations import file_operation
from helm_sentry.intercept.process_tree import group_members, stat_fields, thread_group
from helm_sentry.operation import Kind, Operation

_OWN_TREE = Decision(Verdict.ALLOW, Reason.BUILTIN, "sentry/own-processes")
_OUTSIDE = Decision(Verdict.DENY, Reason.BUILTIN, "sentry/own-processes")
_STRAYED = Decision(Verdict.DENY, Reason.BUILTIN, "sentry/verified-chdir")
_DESCENT = Decision(Verdict.DENY, Reason.BUILTIN, "sentry/descent")
_EVERYBODY = -1
_WHICH_PROCESS = {
    "setpriority": 0,
    "ioprio_set": 1,
}  # PRIO_PROCESS, IOPRIO_WHO_PROCESS; the others are groups and users


def kill(call: Call) -> Action:
    """kill(2): to a process, a group, or everybody the caller may signal."""
    target = call.int32(0)
    if target > 0:
        return _signal(call, [target], call.int32(1))
    # With Landlock's signal scope the kernel delivers to the agent's own processes only, whatever the group holds.
    if call.broker.signal_scope:
        return _signal(call, [], call.int32(1))
    if target == _EVERYBODY:
        return _signal(call, [os.getpid()], call.int32(1))
    group = -target or int(stat_fields(thread_group(call.tid))[2])
    return _signal(call, group_members(group), call.int32(1))


def rt_sigqueueinfo(call: Call) -> Action:
    """rt_sigqueueinfo(2): a process, a signal and what to tell with it."""
    return _signal(call, [call.int32(0)], call.int32(1))


def tkill(call: Call) -> Action:
    """tkill(2): a thread and a signal."""
    if call.int32(0) <= 0:
        raise OSError(errno.EINVAL, "no thread id")
    return _signal(call, [call.int32(0)], call.int32(1))


def tgkill(call: Call) -> Action:
    """tgkill(2) and rt_tgsigqueueinfo(2): a process, its thread and a signal."""
    if call.int32(0) <= 0 or call.int32(1) <= 0:
        raise OSError(errno.EINVAL, "no thread id")
    return _signal(call, [call.int32(0), call.int32(1)], call.int32(2))


def pidfd_send_signal(call: Call) -> Action:
    """pidfd_send_signal(2)."""
    ours = call.broker.duplicate(call, call.int32(0))
    with open(f"/proc/self/fdinfo/{ours}", encoding="ascii") as file:
        pid = next((int(line.split()[1]) for line in file if line.startswith("Pid:")), 0)
    if pid == 0:  # a process's directory in /proc names it as well
        pid = call.broker.resolver.process_of(ours)
    if pid == 0:
        raise OSError(errno.EBADF, "not a process descriptor")
    if pid < 0:
        return Errno(errno.ESRCH)
    action = _signal(call, [pid], call.int32(1))
    if call.broker.signal_scope or not isinstance(action, Continue):
        return action
    # Without the floor the descriptor could become another process's after the look, so the signal is sent from here.
    if call.args[2] or call.uint32(3):
        raise OSError(errno.EINVAL, "only a plain signal can be sent here")
    signal.pidfd_send_signal(ours, call.int32(1))
    return SUCCESS


def setrlimit(call: Call) -> Action:
    """setrlimit(2) of the one limit that no process may set, see `lineage`."""
    call.judge_builtin(_DESCENT, Operation(Kind.PROCESS_TRACE, pid=call.tid, name=call.row.name))
    return SUCCESS


def prlimit64(call: Call) -> Action:
    """prlimit64(2): for the agent's own processes, all limits but that one."""
    if call.uint32(1) == RLIMIT_LOCKS and call.args[2]:
        return setrlimit(call)
    return own_target(call)


def own_target(call: Call) -> Action:
    """Let a call that names a process in a register go on if the process is the agent's."""
    names = [argument.name for argument in call.row.arguments]
    pid = call.int32(names.index("pid" if "pid" in names else "who"))
    operation = Operation(Kind.PROCESS_TRACE, pid=pid, name=call.row.name)
    one_process = "which" not in names or call.int32(names.index("which")) == _WHICH_PROCESS[call.row.name]
    own = one_process and (pid == 0 or call.broker.resolver.owns_process(pid))
    if one_process and not own and not os.path.exists(f"/proc/{pid}"):
        return Errno(errno.ESRCH)
    call.judge_builtin(_OWN_TREE if own else _OUTSIDE, operation)
    return Continue()


def chdir(call: Call) -> Action | Later:
    """chdir(2): decided on the pinned directory, continued, and looked at again when it has happened."""
    pinned = call.pin(AT_FDCWD, call.string(0))
    if not pinned.anonymous:
        call.judge(file_operation(Kind.FILE_STAT, pinned.path))
    call.require(pinned)
    judged = pinned.status()
    if not stat.S_ISDIR(judged.st_mode):
        raise OSError(errno.ENOTDIR, "not a directory")
    return Later(lambda: _continue_chdir(call, judged))


def clone3(call: Call) -> Action:
    """clone3(2): its flags lie in memory where they can change, so callers are sent to clone(2)."""
    if call.args[1] >= 8:
        clone_flags = int.from_bytes(call.read(call.args[0], 8), "little")
        if clone_flags & flags.NAMESPACE_FLAGS:
            call.judge(Operation(Kind.KERNEL_NAMESPACE, name="clone3"), refusal=errno.EPERM)
    return Errno(errno.ENOSYS)


def memfd_create(call: Call) -> Action:
    """memfd_create(2): memory that can never be executed, unless the policy says it may."""
    memfd_flags = call.uint32(1)
    _require_memfd_flags(memfd_flags)
    try:
        name = call.string(0, 250)
    except OSError as error:
        raise OSError(errno.EINVAL if error.errno == errno.ENAMETOOLONG else error.errno, "bad name") from None
    operation = Operation(Kind.KERNEL_MEMFD, name="memfd_create")
    if memfd_flags & flags.MFD_EXEC:
        call.judge(operation)
        created = os.memfd_create(os.fsdecode(name), memfd_flags | flags.MFD_CLOEXEC)
    else:
        judge_unless_blocked(call, OWN_OBJECT, operation)
        created = _sealed_memfd(os.fsdecode(name), memfd_flags | flags.MFD_CLOEXEC)
    return Inject(call.hold(created), close_on_exec=bool(memfd_flags & flags.MFD_CLOEXEC))


@lru_cache(maxsize=64)
def _require_memfd_flags(memfd_flags: int) -> None:
    """Raise EINVAL for flags the kernel does not take: it looks at them before it looks at the name."""
    try:
        os.close(os.memfd_create("", memfd_flags))
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise


def _sealed_memfd(name: str, memfd_flags: int) -> int:
    """Create a memfd without execute permission; kernels before 6.3 lack the seal and leave it to exec rules."""
    try:
        return os.memfd_create(name, memfd_flags | flags.MFD_NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return os.memfd_create(name, memfd_flags)


def _signal(call: Call, targets: list[int], number: int) -> Action:
    """Let a signal go out if every target is the agent's. Target and number are registers: they cannot change."""
    pid = targets[0] if targets else call.int32(0)
    operation = Operation(Kind.PROCESS_SIGNAL, pid=pid, name=_signal_name(number))
    outsider = next((target for target in targets if not call.broker.resolver.owns_process(target)), None)
    if outsider is None:
        call.judge_builtin(_OWN_TREE, operation)
        return Continue()
    if not os.path.exists(f"/proc/{outsider}"):
        return Errno(errno.ESRCH)
    call.judge_builtin(_OUTSIDE, operation)
    return Errno(errno.EPERM)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def _continue_chdir(call: Call, judged: os.stat_result) -> Action:
    """Continue under a watch; where the thread then stands must be somewhere the policy lets it look."""
    before = _directory(call)
    watch = continue_watched(call)
    if watch.wait() is None:
        return Answered()
    if strayed := _strayed(call, before, judged):
        libc.tgkill(thread_group(call.tid), call.tid, signal.SIGKILL)
        call.broker.killed(call, _STRAYED, f"the working directory became {strayed}")
        watch.reap()
    else:
        watch.release()
    return Answered()


def _directory(call: Call) -> os.stat_result:
    """Return the status of the calling thread's working directory."""
    try:
        return os.stat(f"/proc/{call.tid}/cwd")
    except PermissionError:
        raise Unreadable from None
    except FileNotFoundError:
        raise Gone from None


def _strayed(call: Call, before: os.stat_result, judged: os.stat_result) -> str:
    """Return where a thread has got to that it was not let into, empty when it is where it may be."""
    try:
        now = _directory(call)
        # The call failed and it stands where it stood, or it is in the directory that was judged.
        if os.path.samestat(now, before) or os.path.samestat(now, judged):
            return ""
        where = call.descriptor(AT_FDCWD).path
    except (OSError, Gone, Unreadable):
        return "unknown"
    return "" if call.permits(file_operation(Kind.FILE_STAT, where)) else where


HANDLERS = (
    {
        "kill": kill,
        "tkill": tkill,
        "rt_sigqueueinfo": rt_sigqueueinfo,
        "tgkill": tgkill,
        "rt_tgsigqueueinfo": tgkill,
        "pidfd_send_signal": pidfd_send_signal,
        "chdir": chdir,
        "clone3": clone3,
        "memfd_create": memfd_create,
    }
    | dict.fromkeys(
        (
            "sched_setaffinity",
            "sched_setscheduler",
            "sched_setparam",
            "sched_setattr",
            "setpriority",
            "ioprio_set",
        ),
        own_target,
    )
    | {"prlimit64": prlimit64, "setrlimit": setrlimit}
)
