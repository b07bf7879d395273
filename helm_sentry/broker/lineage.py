"""Which programs a process comes from: a mark that the kernel hands down with every fork and the agent cannot change.

A process id says nothing: a shell may fork a child and then become `git` itself, and the child would look like one
that `git` started. So the mark is set at the verified exec stop and travels with the process: it is the hard limit
RLIMIT_LOCKS, which fork(2) and execve(2) keep and no kernel since 2.4.25 looks at (getrlimit(2)). The agent may not set
that limit (`abi/syscalls.csv`, `broker/process.py`). Without privilege a limit can only be lowered, so each new mark is
smaller than every mark before it.
"""

import errno
import resource
import threading
from typing import NamedTuple

from helm_sentry.broker.memory import Gone
from helm_sentry.errors import FeatureError

RLIMIT_LOCKS = 10  # <asm-generic/resource.h>
_FIRST = 1 << 62
_FEWEST = 1 << 32  # marks to have at hand; no run has so many execs
_MOST_PROGRAMS = 1024  # different ones in one line of descent


class _Chain(NamedTuple):
    program: str
    before: "_Chain | None"
    length: int


class _State(NamedTuple):
    exe: str
    chain: _Chain | None


class Lineage:
    """The marks of one run.

    Raises:
        FeatureError: the caller's own limit leaves no room for marks.
    """

    def __init__(self) -> None:
        given = resource.getrlimit(RLIMIT_LOCKS)[1]
        if given != resource.RLIM_INFINITY and given < _FEWEST:
            raise FeatureError(f"rules with `programs` need `ulimit -x unlimited`; the hard limit is {given}")
        self._states = {given: _State("", None)}
        self._marks: dict[_State, int] = {}
        self._next = (_FIRST if given == resource.RLIM_INFINITY else min(_FIRST, given)) - 1
        self._turn = threading.Lock()

    def entered(self, pid: int, program: str) -> None:
        """Mark a process that stands at its exec stop with the program it now runs.

        Raises:
            OSError: it cannot be marked, so it must not go on.
        """
        with self._turn:
            now = resource.prlimit(pid, RLIMIT_LOCKS)[1]
            before = self._states.get(now)
            if before is None:
                raise OSError(errno.EPERM, "a mark that was never made")
            state = _after(before, program)
            if state == before:
                return
            mark = self._marks.get(state)
            if mark is None or (now != resource.RLIM_INFINITY and mark >= now):
                mark, self._next = self._next, self._next - 1
                self._marks[state], self._states[mark] = mark, state
            resource.prlimit(pid, RLIMIT_LOCKS, (mark, mark))

    def of(self, tid: int) -> tuple[str, tuple[str, ...]]:
        """Return the program a thread runs and all it comes from, the first one first.

        Raises:
            Gone: no such thread.
            KeyError: a mark that was never made.
        """
        try:
            mark = resource.prlimit(tid, RLIMIT_LOCKS)[1]
        except ProcessLookupError:
            raise Gone from None
        exe, chain = self._states[mark]
        return exe, _programs(chain)


def _after(state: _State, program: str) -> _State:
    chain = state.chain
    if program in _programs(chain):
        return _State(program, chain)
    length = chain.length + 1 if chain else 1
    if length > _MOST_PROGRAMS:
        raise OSError(errno.EPERM, f"more than {_MOST_PROGRAMS} programs started each other")
    return _State(program, _Chain(program, chain, length))


def _programs(chain: _Chain | None) -> tuple[str, ...]:
    found = []
    while chain is not None:
        found.append(chain.program)
        chain = chain.before
    return tuple(reversed(found))
