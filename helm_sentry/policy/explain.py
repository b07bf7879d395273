"""Decisions in words, and the lines of policy that would turn a denial into permission.

Names come from the agent and may hold anything; what is returned holds printable characters only.
"""

import re
from collections.abc import Mapping

from helm_sentry.decision import Decision, Reason, Verdict
from helm_sentry.operation import Kind, Operation
from helm_sentry.policy import pattern, values
from helm_sentry.policy.model import KERNEL_KINDS, PROTOCOLS

_VERBS: Mapping[Kind, str] = {
    Kind.EXEC: "run",
    Kind.NET_CONNECT: "connect to",
    Kind.NET_BIND: "bind",
    Kind.NET_SEND: "send to",
    Kind.NET_SOCKET: "open a socket of family",
    Kind.UNIX_CONNECT: "connect to",
    Kind.UNIX_BIND: "bind",
    Kind.PROCESS_SIGNAL: "signal",
    Kind.PROCESS_TRACE: "trace",
}

_REASONS: Mapping[Reason, str] = {
    Reason.RULE: "allowed by rule `{rule}`",
    Reason.BLOCK: "refused by block rule `{rule}`",
    Reason.DEFAULT: "no rule allows it",
    Reason.CONDITION: "refused, the condition of rule `{rule}` does not hold",
    Reason.CONDITION_ERROR: "refused, the condition of rule `{rule}` cannot be evaluated",
    Reason.BUDGET: "refused, the limit of rule `{rule}` is used up",
    Reason.APPROVED: "approved, as rule `{rule}` asks",
    Reason.DISAPPROVED: "rule `{rule}` asks for approval, and it was refused",
    Reason.UNANSWERED: "rule `{rule}` asks for approval, and nobody gave it",
    Reason.CHANGED: "refused, it is not what was approved under rule `{rule}`",
    Reason.BUILTIN: "refused by the supervisor itself, no rule can allow it",
    Reason.KERNEL: "the kernel refused it, by its permissions or because the name leads to what no rule allows",
    Reason.UNREADABLE: "refused, the arguments could not be read",
    Reason.UNKNOWN_SYSCALL: "refused, this version does not know the syscall",
    Reason.FOREIGN_ABI: "refused, syscalls of another architecture are never allowed",
    Reason.EXEC_MISMATCH: "ended, the program that ran was not the one that was approved",
    Reason.SUPERVISOR_ERROR: "refused, the supervisor could not decide",
    Reason.RUN_ENDED: "ended together with the run",
    Reason.NO_POLICY: "not started, there is no policy to ask",
    Reason.STALE_POLICY: "not started, the policy is older than is accepted",
}

_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*")
_NOT_IN_ID = re.compile(r"[^a-z0-9]+")
_LONGEST_ID = 40


def sentence(operation: Operation, decision: Decision) -> str:
    """Return one line that says what was asked for and what was decided, and why."""
    return f"{_asked(operation)}: {_answered(decision)}"


def suggestion(operation: Operation) -> str:
    """Return the lines of YAML that allow this operation and as little else as a rule can say.

    Empty when no rule can: the object has no name that a policy could state, or the kind is never allowed.
    """
    try:
        matcher = _matcher(operation)
    except ValueError:
        return ""
    return f"allow:\n  - id: {_identifier(operation)}\n    {matcher}\n" if matcher else ""


def _asked(operation: Operation) -> str:
    kind = operation.kind
    verb = _VERBS.get(kind) or kind.removeprefix("file.")
    target = operation.target
    if operation.hosts and operation.address:
        target = f"{operation.hosts[0]} ({target})"
    return f"{verb} {pattern.printable(target)}".strip()


def _answered(decision: Decision) -> str:
    if decision.verdict is Verdict.ESCALATE:
        return f"refused, rule `{decision.rule}` asks for approval and nobody gave it"
    if decision.verdict is Verdict.ALLOW and decision.reason is Reason.BUILTIN:
        return "allowed by the supervisor itself"
    answer = _REASONS[decision.reason].format(rule=decision.rule)
    return f"{answer}: {pattern.printable(decision.detail)}" if decision.detail else answer


def _matcher(operation: Operation) -> str:
    kind = operation.kind
    family, _, verb = kind.partition(".")
    match family:
        case "file" | "unix":
            return f"{family}: {{do: [{verb}], paths: [{_path(operation)}]}}"
        case "exec":
            return f"exec: {{paths: [{_path(operation)}]}}"
        case "kernel":
            return f"kernel: [{verb}]" if verb in KERNEL_KINDS else ""
        case "net" if kind is Kind.NET_SOCKET:
            return f"socket: {{families: [{operation.name}]}}" if operation.name in values.FAMILIES else ""
        case "net":
            return _network(operation)
    return ""


def _network(operation: Operation) -> str:
    if operation.protocol not in PROTOCOLS:
        return ""
    if operation.own and operation.kind is not Kind.NET_BIND:
        return "connect: {own: true}"
    ports = f"ports: [{values.port_range(str(operation.port))[0]}], protocols: [{operation.protocol}]"
    if operation.kind is Kind.NET_BIND:
        return f"bind: {{addresses: [{_address(operation)}], {ports}}}"
    for name in operation.hosts:
        if _is_host(name):
            return f"connect: {{hosts: [{quoted(values.host(name))}], {ports}}}"
    return f"connect: {{addresses: [{_address(operation)}], {ports}}}"


def _path(operation: Operation) -> str:
    path = pattern.quote(operation.path)
    if pattern.parse(path).prefix != operation.path:
        raise ValueError("not a canonical path")
    return quoted(path.replace("${", "$${"))


def _address(operation: Operation) -> str:
    return quoted(str(values.networks(operation.address)[0].network_address))


def _is_host(name: str) -> bool:
    try:
        values.host(name)
    except ValueError:
        return False
    return True


def quoted(text: str) -> str:
    """Return a text as a YAML scalar."""
    # In single quotes YAML knows no escapes, so a backslash reaches the pattern as it is.
    return text if _PLAIN.fullmatch(text) else "'" + text.replace("'", "''") + "'"


def _identifier(operation: Operation) -> str:
    target = operation.path or (operation.hosts[0] if operation.hosts else operation.address) or operation.name
    verb, words = (_NOT_IN_ID.sub("-", text.lower()) for text in (operation.kind.rpartition(".")[2], target))
    # The end of a path says more than its beginning.
    return f"{verb}-{words[-_LONGEST_ID:].strip('-')}".strip("-")
