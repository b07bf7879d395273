"""Programs: decided on the resolved file, continued under the floor, verified before the first instruction.

The kernel alone can exec for a process, so the call is continued and what it became is looked at: see `exec_stop`.
"""

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
from helm_sentry.decode.scripts import HEADER, ScriptError, interpreter_of
from helm_sentry.operation import Kind, Operation

_MOST_SCRIPTS = 5  # fs/exec.c: an interpreter of an interpreter, so deep and no deeper
# Of the argument vector, for judging and for the record; the kernel copies its own.
_MOST_ARGUMENTS, _MOST_ARGUMENT = 256, 4096
_POINTER = 8


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
    call.judge(operation, *(_needs(program) for program in programs[1:]))
    for program in programs:
        call.require(program)
    identities = [identity(program.status()) for program in programs]
    call.object = "{:x}:{:x}".format(*identities[0])
    script = identities[0] if len(programs) > 1 else None
    approved = Approved(filename, script, identities[-1])
    return Later(lambda: continue_verified(call, approved))


def _needs(interpreter: Pinned) -> Operation:
    """Return the operation of running an interpreter, or of finding that there is none."""
    if interpreter.error:
        return file_operation(Kind.FILE_STAT, interpreter.path)
    return Operation(Kind.EXEC, path=interpreter.path)


def _interpreters(call: Call, program: Pinned) -> list[Pinned]:
    """Return the chain of `#!` interpreters of a program, each pinned; the last one is what will run."""
    chain: list[Pinned] = []
    while (name := _interpreter_name(program)) is not None:
        if len(chain) == _MOST_SCRIPTS:
            raise OSError(errno.ELOOP, "too many interpreters")
        if not name:  # the kernel takes it for the working directory, which is no program
            raise OSError(errno.EACCES, "nameless interpreter")
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
        return interpreter_of(os.pread(opened, HEADER, 0))
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


HANDLERS = {"execve": execve, "execveat": execveat}
