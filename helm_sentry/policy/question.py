"""Questions people ask a policy: what would be decided, which rules were considered, what would change it. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from helm_sentry.decision import Decision, Reason, Verdict
from helm_sentry.errors import UsageError
from helm_sentry.operation import Kind, Operation
from helm_sentry.policy import values
from helm_sentry.policy.compiler import kinds
from helm_sentry.policy.context import Context, Process
from helm_sentry.policy.engine import compile_policy, decide
from helm_sentry.policy.explain import suggestion
from helm_sentry.policy.model import Effect, Policy, Rule

_SHORT = {
    **{kind.removeprefix("file."): kind for kind in Kind if kind.startswith("file.")},
    "run": Kind.EXEC,
    "connect": Kind.NET_CONNECT,
    "bind": Kind.NET_BIND,
    "send": Kind.NET_SEND,
    "socket": Kind.NET_SOCKET,
}
_TREES = frozenset({Kind.FILE_RENAME, Kind.FILE_DELETE, Kind.FILE_CREATE})
_UNKNOWN_ADDRESS = "192.0.2.1"  # RFC 5737: stands for whatever a host name resolves to


@dataclass(frozen=True, slots=True)
class Considered:
    """A rule that is about operations of the kind in question.

    Attributes:
        rule: the rule.
        says: what it says by itself, None when it does not match.
    """

    rule: Rule
    says: Decision | None


def operation_of(kind: str, target: str) -> Operation:
    """Return the operation that two words stand for, such as `read /etc/passwd` or `connect example.org:443/tcp`.

    Raises:
        UsageError: not an operation, or not a target of such an operation.
    """
    known = {str(each): each for each in Kind} | _SHORT
    if kind not in known:
        raise UsageError(values.unknown("operation", kind, known))
    found = known[kind]
    if found in (Kind.NET_CONNECT, Kind.NET_SEND, Kind.NET_BIND):
        return _endpoint(found, target)
    if found.startswith(("file.", "exec", "unix.")):
        if not target.startswith("/"):
            raise UsageError(f"`{target}` is not absolute; write the whole path")
        return Operation(found, path=target.rstrip("/") or "/", directory=found in _TREES)
    return Operation(found, name=target)


def considered(policy: Policy, operation: Operation, circumstances: Context) -> list[Considered]:
    """Return the rules about operations of this kind, with what each says by itself."""
    found = []
    for rule in policy.rules:
        alone = compile_policy(only(policy, rule))
        decision = decide(alone, operation, circumstances)
        if decision.reason is not Reason.DEFAULT:
            found.append(Considered(rule, decision))
        elif operation.kind in kinds(rule):
            found.append(Considered(rule, None))
    return found


def only(policy: Policy, *some: Rule) -> Policy:
    """Return the policy with no rules but some."""
    lists = {str(effect): tuple(rule for rule in some if rule.effect is effect) for effect in Effect}
    return replace(policy, **lists)  # type: ignore[arg-type]  # the lists are named after their effect


def context(policy: Policy, role: str = "", program: str = "") -> Context:
    """Return the circumstances a question is asked in: at the beginning of a run, nothing used up yet.

    Args:
        policy: the policy, which states things about the agent.
        role: the agent's role, empty for the one the policy states.
        program: the program that asks, started by nobody; empty for an unknown one.
    """
    process = Process(exe=program, ancestry=(program,)) if program else Process()
    return Context(agent=dict(policy.agent) | ({"role": role} if role else {}), process=process)


def remedies(operation: Operation, decision: Decision) -> Iterator[str]:
    """Yield what would change a decision, as lines for a person."""
    if decision.verdict is Verdict.ALLOW:
        yield f"to deny it, remove or narrow rule `{decision.rule}`, or add a block rule that names it"
    elif decision.reason is Reason.DEFAULT:
        if lines := suggestion(operation):
            yield "to allow it, add to the policy:"
            yield from (f"  {line}" for line in lines.splitlines())
        else:
            yield "no rule can allow it"
    elif decision.reason is Reason.CONDITION:
        yield f"to allow it, make the condition of rule `{decision.rule}` hold, or change that rule"
    else:
        yield f"no allow rule helps against rule `{decision.rule}`: change that one"


def _endpoint(kind: Kind, target: str) -> Operation:
    where, _, protocol = target.partition("/")
    host, _, port = where.rpartition(":")
    if not port.isdigit() or not host:
        raise UsageError(
            f"`{target}` is not a destination; write `HOST:PORT` or `ADDRESS:PORT`, with `/udp` if need be"
        )
    if protocol not in ("", "tcp", "udp"):
        raise UsageError(f"unknown protocol `{protocol}`; write `tcp` or `udp`")
    given = {"port": int(port), "protocol": protocol or "tcp"}
    try:
        address = str(values.networks(host.strip("[]"))[0].network_address)
    except ValueError:
        return Operation(kind, address=_UNKNOWN_ADDRESS, hosts=(_host(host),), **given)  # type: ignore[arg-type]
    return Operation(kind, address=address, **given)  # type: ignore[arg-type]


def _host(text: str) -> str:
    if "*" in text:
        raise UsageError(f"`{text}` is not one host; write a name such as `api.example.com`")
    try:
        return values.host(text)
    except ValueError as error:
        raise UsageError(str(error)) from None
