"""What a decision may depend on besides the operation: values, read at the edge, when a rule asks for them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from helm_sentry.operation import Kind


@dataclass(frozen=True, slots=True)
class Process:
    """The process that asks.

    Attributes:
        exe: the program it runs, as verified when it started; empty when that is not known.
        ancestry: that program, those it replaced, and those they were started by, the first one first and each once.
        uid: its user id, -1 when not known.
    """

    exe: str = ""
    ancestry: tuple[str, ...] = ()
    uid: int = -1


@dataclass(frozen=True, slots=True)
class Run:
    """The run so far.

    Attributes:
        elapsed: microseconds since it began.
        counts: operations that were allowed, by kind.
        bytes_sent: bytes that left over its connections and in its datagrams.
    """

    elapsed: int = 0
    counts: Mapping[Kind, int] = field(default_factory=dict, hash=False)
    bytes_sent: int = 0


@dataclass(frozen=True, slots=True)
class Context:
    """What a decision may depend on besides the operation.

    Attributes:
        agent: what the policy states about the agent, such as its role.
        process: the process that asks.
        run: the run so far.
        time: microseconds since the epoch.
        spent: ids of the rules whose limit is used up.
    """

    agent: Mapping[str, str] = field(default_factory=dict, hash=False)
    process: Process = Process()
    run: Run = Run()
    time: int = 0
    spent: frozenset[str] = frozenset()
