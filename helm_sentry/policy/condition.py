"""Conditions of contextual rules, in CEL (https://cel.dev). The only module that imports `cel_expr_python`.

A condition is checked when its policy is loaded: every name and every type must fit, and the outcome must be true or
false. CEL has no loops and no side effects; its evaluator gives up after a fixed number of steps, and matches regular
expressions in linear time, so what an agent puts into an operation cannot make an evaluation long.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

from helm_sentry.operation import Kind, Operation
from helm_sentry.policy import values
from helm_sentry.policy.context import Context

if TYPE_CHECKING:  # loaded only for a policy that has a condition: it takes longer than the rest of the policy
    from cel_expr_python.cel import Env, Expression

MAX_LENGTH = 4096
"""Characters of a condition."""

Getter: TypeAlias = Callable[[Operation, Context], Any]

_STRING, _INT, _BOOL, _STRINGS, _LABELS = "string", "int", "bool", "list(string)", "map(string, string)"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_WORDS = re.compile(r"\w+")
_ERROR = re.compile(r"<input>:(?P<line>\d+):(?P<column>\d+): (?P<what>.*)")
_OVERLOAD = re.compile(r"found no matching overload for '(.*?)' applied to '(.*?)'")
_UNDECLARED = re.compile(r"undeclared reference to '(.*?)'")

_VARIABLES: dict[str, tuple[str, str, Getter]] = {
    "agent.name": (_STRING, "`name` under `agent:` in the policy", lambda o, c: c.agent.get("name", "")),
    "agent.role": (_STRING, "`role` under `agent:` in the policy", lambda o, c: c.agent.get("role", "")),
    "agent.labels": (_LABELS, "everything under `agent:`, by name", lambda o, c: dict(c.agent)),
    "op.kind": (_STRING, "kind of the operation, such as `file.read`", lambda o, c: str(o.kind)),
    "op.path": (_STRING, "canonical path of a file, program or Unix socket", lambda o, c: _text(o.path)),
    "op.directory": (_BOOL, "it is a directory that is moved or deleted", lambda o, c: o.directory),
    "op.argv": (_STRINGS, "argument vector of an exec", lambda o, c: [_text(word) for word in o.argv]),
    "op.host": (_STRING, "a name the address was found under", lambda o, c: o.hosts[0] if o.hosts else ""),
    "op.hosts": (_STRINGS, "all such names", lambda o, c: list(o.hosts)),
    "op.address": (_STRING, "numeric address", lambda o, c: o.address),
    "op.port": (_INT, "port", lambda o, c: o.port),
    "op.protocol": (_STRING, "`tcp` or `udp`", lambda o, c: o.protocol),
    "op.own": (_BOOL, "a loopback port on which the run itself listens", lambda o, c: o.own),
    "op.size": (_INT, "bytes of a message, new length of a truncated file; 0 where unknown", lambda o, c: o.size),
    "op.name": (_STRING, "socket family, or name of a kernel call", lambda o, c: o.name),
    "process.exe": (_STRING, "program of the process, as verified when it started", lambda o, c: _text(c.process.exe)),
    "process.ancestry": (
        _STRINGS,
        "that program, those it replaced, and those they were started by, the first one first",
        lambda o, c: [_text(program) for program in c.process.ancestry],
    ),
    "process.uid": (_INT, "user id of the process", lambda o, c: c.process.uid),
    "run.elapsed": ("duration", "since the run began", lambda o, c: timedelta(microseconds=c.run.elapsed)),
    "run.bytes_sent": (_INT, "bytes that left over TCP and in datagrams", lambda o, c: c.run.bytes_sent),
    "time": ("timestamp", "the time of day, UTC", lambda o, c: _EPOCH + timedelta(microseconds=c.time)),
}  # fmt: skip


def _count(kind: Kind) -> Getter:
    return lambda operation, context: context.run.counts.get(kind, 0)


VARIABLES: Mapping[str, tuple[str, str, Getter]] = _VARIABLES | {
    f"run.counts.{kind}": (_INT, f"`{kind}` operations allowed so far", _count(kind)) for kind in Kind
}
"""What a condition may speak of: type, meaning, and where it comes from."""


class ConditionError(ValueError):
    """A condition cannot be evaluated."""


class Condition:
    """A condition, compiled and checked.

    Attributes:
        text: as written.
        names: the variables it may speak of.
    """

    def __init__(self, text: str) -> None:
        words = set(_WORDS.findall(text))
        self.text = text
        # Whatever is named by all its words may be meant; to pass one too many does no harm.
        self.names = tuple(name for name in VARIABLES if words.issuperset(name.split(".")))
        self._getters = [(name, VARIABLES[name][2]) for name in self.names]
        self._expression = _compiled(text)

    def holds(self, operation: Operation, context: Context) -> bool:
        """Whether the condition is true.

        Raises:
            ConditionError: it is neither true nor false, such as a look at the third of two arguments.
        """
        try:
            data = {name: get(operation, context) for name, get in self._getters}
            outcome = self._expression.eval(data=data).value()
        except (RuntimeError, OverflowError) as error:
            raise ConditionError(_plain(str(error))) from None
        if outcome is True or outcome is False:
            return outcome
        raise ConditionError(_plain(str(outcome)))


@lru_cache(maxsize=256)
def compile_condition(text: str) -> Condition:
    """Return a condition ready to be evaluated.

    Raises:
        ValueError: not a condition; the text says where and why.
    """
    if len(text) > MAX_LENGTH:
        raise ValueError(f"condition is longer than {MAX_LENGTH} characters")
    return Condition(text)


def _compiled(text: str) -> "Expression":
    try:
        expression = _environment().compile(text)
    except (RuntimeError, ValueError) as error:
        raise ValueError(_explained(str(error))) from None
    outcome = expression.return_type().name().lower()
    if outcome != "bool":
        raise ValueError(f"condition is of type {outcome}; write a comparison, which is true or false")
    return expression


@cache
def _environment() -> "Env":
    # Only a policy with a condition pays for this import.
    from cel_expr_python import cel

    types = {
        _STRING: cel.Type.STRING,
        _INT: cel.Type.INT,
        _BOOL: cel.Type.BOOL,
        _STRINGS: cel.Type.List(cel.Type.STRING),
        _LABELS: cel.Type.Map(cel.Type.STRING, cel.Type.STRING),
        "duration": cel.Type.DURATION,
        "timestamp": cel.Type.TIMESTAMP,
    }
    return cel.NewEnv(variables={name: types[kind] for name, (kind, _, _) in VARIABLES.items()})


def _explained(message: str) -> str:
    """Return the engine's message without its drawing, in our words where they help more."""
    found = _ERROR.search(message)
    if found is None:
        return f"condition: {_plain(message)}"
    what = found["what"]
    if undeclared := _UNDECLARED.match(what):
        what = values.unknown("name", undeclared[1], VARIABLES)
    if overload := _OVERLOAD.match(what):
        what = f"`{overload[1].strip('_')}` does not go with {overload[2]}"
    what = what.partition(" expecting ")[0]  # every token there is
    line = f"line {found['line']}, " if found["line"] != "1" else ""
    return f"condition, {line}character {found['column']}: {what[:1].lower()}{what[1:]}"


def _plain(message: str) -> str:
    # INVALID_ARGUMENT: divide by zero [INVALID_ARGUMENT]
    return re.sub(r"^[A-Z_]+: | \[[A-Z_]+\]$", "", message.partition("\n")[0]).lower()


def _text(text: str) -> str:
    # CEL texts are UTF-8; a byte that is not becomes the replacement character, which no rule can state by accident.
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
