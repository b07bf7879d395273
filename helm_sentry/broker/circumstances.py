"""What a decision may depend on besides the operation: read when a rule asks for it, and only then.

For a policy without conditions, limits and rules for programs nothing here is ever called.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace

from helm_sentry.broker.budgets import Budgets
from helm_sentry.broker.lineage import Lineage
from helm_sentry.broker.memory import Gone
from helm_sentry.decision import Decision, Verdict
from helm_sentry.intercept.process_tree import status_field
from helm_sentry.operation import Kind, Operation
from helm_sentry.policy.context import Context, Process, Run
from helm_sentry.policy.engine import CompiledPolicy, decide
from helm_sentry.policy.guard import ARGV, ENVIRONMENT, PROGRAMS
from helm_sentry.policy.model import ExecMatch

_LINEAGE = frozenset({PROGRAMS, "process.exe", "process.ancestry"})
_COUNTS = "run.counts."

Answered = Callable[[Operation, Decision], Decision]
"""What people's answers make of a decision that asks for approval."""


def unanswered(operation: Operation, decision: Decision) -> Decision:
    """Leave a decision that asks for approval as it is."""
    return decision


class Circumstances:
    """The circumstances of one run.

    Attributes:
        lineage: which programs each process comes from; None when no rule asks.
        exact_exec: an exec is judged by its arguments or environment, so what was judged must be what runs.
        environment: the environment of an exec is asked for.
        escalates: a rule may ask for a person's approval.
    """

    def __init__(self, policy: CompiledPolicy, agent: Mapping[str, str], bytes_sent: Callable[[], int]) -> None:
        asks_for = policy.asks_for
        counted = {Kind(name.removeprefix(_COUNTS)) for name in asks_for if name.startswith(_COUNTS)}
        self.lineage = Lineage() if asks_for & _LINEAGE else None
        escalating = [rule for rule in policy.policy.every_rule if rule.otherwise is Verdict.ESCALATE]
        self.escalates = bool(escalating)
        # What a person approves is a program with its arguments and environment, so just these must run.
        approved = any(isinstance(rule.match, ExecMatch) for rule in escalating)
        self.environment = approved or ENVIRONMENT in asks_for
        self.exact_exec = self.environment or ARGV in asks_for
        self._policy, self._agent, self._bytes_sent = policy, agent, bytes_sent
        self._asks_for = asks_for
        self._kinds = counted | policy.guarded_kinds
        self._counts = Counter[Kind](dict.fromkeys(counted, 0))
        self._budgets = Budgets({rule.id: rule.limit for rule in policy.policy.every_rule if rule.limit})
        self._began = time.monotonic()
        self._turn = threading.Lock()  # from the look at what is left to its use

    def succeeded_by(self, policy: CompiledPolicy, agent: Mapping[str, str]) -> "Circumstances":
        """Return the circumstances for other rules in the same run: what was used up and counted stays so.

        Raises:
            ValueError: a rule asks for what has not been counted or followed since the run began.
        """
        later = Circumstances(policy, agent, self._bytes_sent)
        if later.lineage and not self.lineage:
            raise ValueError("rules for programs need a run that began with such rules")
        with self._turn:
            if missing := later._counts.keys() - self._counts.keys():
                raise ValueError(f"`{_COUNTS}{min(missing)}` has not been counted since the run began")
            later._counts = Counter(self._counts)
            later._budgets = self._budgets.succeeded_by(later._budgets)
        later.lineage, later._began = self.lineage, self._began
        later._kinds |= later._counts.keys()
        return later

    def concern(self, operations: tuple[Operation, ...]) -> bool:
        """Whether any of the operations is decided or counted here."""
        kinds = self._kinds
        return bool(kinds) and any(operation.kind in kinds for operation in operations)

    def decide(
        self, operations: tuple[Operation, ...], tid: int, *, use: bool, answered: Answered = unanswered
    ) -> list[Decision]:
        """Return the decision about each operation, up to the first denial.

        Args:
            operations: all operations of one syscall.
            tid: thread that asks.
            use: the operations are about to be carried out if all are allowed, so limits are used up.
            answered: what becomes of a decision that asks for approval.
        """
        with self._turn:
            now = time.monotonic()
            pending, decisions = Counter[str](), list[Decision]()
            context = self._context(tid, now)
            for operation in operations:
                spent = self._budgets.spent(now, pending)
                decision = decide(self._policy, operation, replace(context, spent=spent))
                decisions.append(answered(operation, decision) if decision.verdict is Verdict.ESCALATE else decision)
                if decisions[-1].verdict is Verdict.DENY:
                    return decisions
                pending.update(decisions[-1].charges)
            if use and all(decision.allowed for decision in decisions):
                self._budgets.use(now, pending)
                self._counts.update(operation.kind for operation in operations if operation.kind in self._counts)
            return decisions

    def _context(self, tid: int, now: float) -> Context:
        asks_for = self._asks_for
        exe, ancestry = self.lineage.of(tid) if self.lineage else ("", ())
        uid = _effective_uid(tid) if "process.uid" in asks_for else -1
        sent = self._bytes_sent() if "run.bytes_sent" in asks_for else 0
        return Context(
            agent=self._agent,
            process=Process(exe, ancestry, uid),
            run=Run(int((now - self._began) * 1e6), dict(self._counts), sent),
            time=time.time_ns() // 1000,
        )


def _effective_uid(tid: int) -> int:
    try:
        return int(status_field(tid, "Uid").split()[1])
    except ProcessLookupError:
        raise Gone from None
