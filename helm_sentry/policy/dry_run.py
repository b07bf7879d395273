"""A dry run: everything is decided and recorded as ever, and what the policy denies is performed all the same.

Except what would end the supervision or reach the supervisor itself, which stays refused.
"""

from helm_sentry.decision import Decision, Reason, Verdict
from helm_sentry.operation import Kind, Operation

_BY_RULES = frozenset(
    {Reason.DEFAULT, Reason.BLOCK, Reason.CEILING, Reason.CONDITION, Reason.CONDITION_ERROR, Reason.BUDGET}
)
# The supervisor's own rules: its keys, its log, the policies and programs that decide the next run.
_OWN = "sentry/"
# A device node leads past every path rule, and other socket families past every network rule.
_REFUSED = frozenset({Kind.FILE_MKNOD, Kind.NET_SOCKET})
_PERFORMED = ("file.", "exec", "net.", "unix.")


def performed(operation: Operation, decision: Decision) -> bool:
    """Return whether a dry run carries out an operation that was decided like this.

    Refused even then: the kernel surface (mounts, namespaces, io_uring, bpf …), device nodes, other socket
    families, abstract Unix sockets, other processes, the supervisor's own files, and whatever could not be read.
    """
    if decision.allowed:
        return True
    if decision.rule.startswith(_OWN) or operation.kind in _REFUSED or not operation.kind.startswith(_PERFORMED):
        return False
    if not (operation.path or operation.address):
        return False
    return decision.reason in _BY_RULES or decision.verdict is Verdict.ESCALATE
