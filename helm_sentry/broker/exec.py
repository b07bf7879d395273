"""Programs: decided on the resolved file, continued under the floor, verified before the first instruction.

The kernel alone can exec for a process, so the call is continued and what it became is looked at: see `exec_stop`.
"""

import contextlib
import errno
import os
import stat
import struct

from helm_sentry.abi import flags, libc
from helm_sentry.abi.flags import AT_FDCWD
from helm_sentry.broker.action import Action, Later
from helm_sentry.broker.call import Call
from helm_sentry.broker.exec_stop import Approved, continue_verified, identity
from helm_sentry.broker.paths import Pinned
from helm_sentry.decode.operations import file_operation
from helm_sentry.decode.scripts import HEADER, ScriptError, Shebang, shebang_of
from helm_sentry.operation import Kind, Operation

_MOST_SCRIPTS = 5  # fs/exec.c: an interpreter of an interpreter, so deep and no deeper
# Of the argument vector, for judging and for the record; the kernel copies its own.
_MOST_ARGUMENTS, _MOST_ARGUMENT = 256, 4096
# The same where rules look at all of it; the kernel takes MAX_ARG_STRLEN for one and 6 MiB together.
_ALL_ARGUMENTS, _ALL_OF_ARGUMENT = 65536, 131072
_POINTER = 8


def execve(call: Call) -> Action | Later:
    """execve(2)."""
    path = call.string(0)
    return _exec(call, call.pin(AT_FDCWD, path), path, call.args[1], call.args[2])


def execveat(call: Call) -> Action | Later:
    """execveat(2)."""
    directory, at_flags, path = call.int32(0), call.uint32(4), call.string(1)
    if not path and not at_flags & flags.AT_EMPTY_PATH:
        raise OSError(errno.ENOENT, "empty path")
    if at_flags & ~(flags.AT_EMPTY_PATH | flags.AT_SYMLINK_NOFOLLOW):
        raise OSError(errno.EINVAL, "unknown flags")
    if not path:
        return _exec(call, call.descriptor(directory), b"/dev/fd/%d" % directory, call.args[2], call.args[3])
    pinned = call.pin(directory, path, follow=not at_flags & flags.AT_SYMLINK_NOFOLLOW)
    relative = directory != AT_FDCWD and not path.startswith(b"/")
    return _exec(call, pinned, b"/dev/fd/%d/%b" % (directory, path) if relative else path, *call.args[2:4])


def _exec(call: Call, pinned: Pinned, filename: bytes, vector: int, environment_at: int) -> Action | Later:
    if pinned.error:  # as a search through PATH meets it: to say so is to let the agent look, no more
        call.judge(file_operation(Kind.FILE_STAT, pinned.path))
        call.require(pinned)
    asked = call.broker.circumstances
    try:
        argv = whole(call, vector) if asked.exact_exec else arguments(call, vector)
        environment = whole(call, environment_at) if asked.environment else ()
    except OSError:
        _require_runnable(pinned)  # which the kernel looks at first
        raise
    operation = Operation(Kind.EXEC, path=pinned.path, argv=argv, environment=environment)
    call.object = "{:x}:{:x}".format(*identity(pinned.status()))
    call.judge(operation, use=False)
    programs = [(pinned, argv)]
    unknown = _add_interpreters(call, programs, filename)
    call.judge(operation, *(_needs(*program, environment) for program in programs[1:]))
    identities = [None if program.error else identity(program.status()) for program, _ in programs]
    approved = Approved(
        filename=filename,
        script=identities[0] if len(programs) > 1 else None,
        image=identities[-1],
        unknown=unknown,
        argv=programs[-1][1] if asked.exact_exec else None,
        environment=environment if asked.environment else None,
    )
    return Later(lambda: continue_verified(call, approved))


def _needs(interpreter: Pinned, argv: tuple[str, ...], environment: tuple[str, ...]) -> Operation:
    """Return the operation of running an interpreter, or of finding that there is none."""
    if interpreter.error:
        return file_operation(Kind.FILE_STAT, interpreter.path)
    return Operation(Kind.EXEC, path=interpreter.path, argv=argv, environment=environment)


def _add_interpreters(call: Call, programs: list[tuple[Pinned, tuple[str, ...]]], filename: bytes) -> bool:
    """Add the chain of `#!` interpreters of a program, each pinned and with its arguments; the last one will run.

    Where the chain cannot be followed to its end, the last one is a script: the kernel says what is wrong with it.

    Returns:
        Whether what will run is not known: the last one is missing, which the kernel says after whatever else is wrong,
        or cannot be read, so it may turn out to be a script.
    """
    while True:
        program, argv = programs[-1]
        try:
            line = None if program.error else _first_line(program)
        except PermissionError:
            return True
        if line is None or not line.interpreter or len(programs) > _MOST_SCRIPTS:
            return bool(program.error)
        programs.append((call.pin(AT_FDCWD, line.interpreter), (*map(os.fsdecode, line.before(filename)), *argv[1:])))
        filename = line.interpreter


def _require_runnable(program: Pinned) -> None:
    """Raise EACCES for what the kernel would not run for this user, whatever is in it."""
    if not stat.S_ISREG(program.status().st_mode):
        raise OSError(errno.EACCES, "not a program")
    libc.faccessat2(AT_FDCWD, program.link, os.X_OK, flags.AT_EACCESS)


def _first_line(program: Pinned) -> Shebang | None:
    if not stat.S_ISREG(program.status().st_mode):
        return None  # the kernel refuses it with EACCES
    opened = libc.openat(AT_FDCWD, program.link, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return shebang_of(os.pread(opened, HEADER, 0))
    except ScriptError:
        return None  # the kernel refuses it with ENOEXEC
    finally:
        os.close(opened)


def arguments(call: Call, vector: int) -> tuple[str, ...]:
    """Copy the argument vector for the record, cut where it is long or cannot be read, which is the kernel's to say."""
    words: list[str] = []
    with contextlib.suppress(OSError):
        for pointer in _pointers(call, vector, _MOST_ARGUMENTS):
            words.append(os.fsdecode(_argument(call, pointer)))
    return tuple(words)


def whole(call: Call, vector: int) -> tuple[str, ...]:
    """Copy an argument vector or an environment for rules that look at it: all of it, or nothing.

    Raises:
        OSError: EFAULT as the kernel gives it; E2BIG where there is more than the kernel would take.
    """
    pointers = _pointers(call, vector, _ALL_ARGUMENTS + 1)
    if len(pointers) > _ALL_ARGUMENTS:
        raise OSError(errno.E2BIG, "too many arguments")
    try:
        return tuple(
            [os.fsdecode(call.copy(call.broker.memory.read_string(call.tid, at, _ALL_OF_ARGUMENT))) for at in pointers]
        )
    except OSError as error:
        raise OSError(errno.E2BIG if error.errno == errno.ENAMETOOLONG else error.errno, "arguments") from None


def _pointers(call: Call, vector: int, most: int) -> list[int]:
    found: list[int] = []
    while vector and len(found) < most:
        (pointer,) = struct.unpack("=Q", call.read(vector + len(found) * _POINTER, _POINTER))
        if not pointer:
            break
        found.append(pointer)
    return found


def _argument(call: Call, pointer: int) -> bytes:
    try:
        return call.copy(call.broker.memory.read_string(call.tid, pointer, _MOST_ARGUMENT))
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return call.read(pointer, _MOST_ARGUMENT) + b"..."


HANDLERS = {"execve": execve, "execveat": execveat}
