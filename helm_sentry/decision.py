"""Decisions: what the policy says about an operation, and why."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """What a decision says. ESCALATE ends in one of the other two, by an approver or by the clock."""

    ALLOW = "ALLOW"
    DENY = "DENY"
    ESCALATE = "ESCALATE"


class Reason(StrEnum):
    """Why a decision was made; stable codes that appear in logs and receipts."""

    RULE = "RULE"
    """An allow rule matched."""
    BLOCK = "BLOCK"
    """A block rule matched."""
    DEFAULT = "DEFAULT"
    """No rule matched."""
    CONDITION = "CONDITION"
    """A contextual rule matched and its condition did not hold."""
    CONDITION_ERROR = "CONDITION_ERROR"
    """A contextual rule matched and its condition could not be evaluated."""
    BUDGET = "BUDGET"
    """A rule matched that has been used as often as its limit says."""
    APPROVED = "APPROVED"
    """A rule asked for approval, and a person gave it."""
    DISAPPROVED = "DISAPPROVED"
    """A rule asked for approval, and a person refused it."""
    UNANSWERED = "UNANSWERED"
    """A rule asked for approval, and nobody answered in time."""
    CHANGED = "CHANGED"
    """What was approved is not what the call came to when it was carried out."""
    BUILTIN = "BUILTIN"
    """The supervisor's own rule: its files, memory, key and log are out of reach; a run may signal itself."""
    KERNEL = "KERNEL"
    """The kernel refused an open that it holds by itself: by permissions, or what the name leads to is not allowed."""
    UNREADABLE = "UNREADABLE"
    """The agent's memory could not be read, so the arguments are unknown."""
    UNKNOWN_SYSCALL = "UNKNOWN_SYSCALL"
    """A syscall number that this version does not know."""
    FOREIGN_ABI = "FOREIGN_ABI"
    """A syscall made through another ABI than the agent's own (i386, x32)."""
    EXEC_MISMATCH = "EXEC_MISMATCH"
    """The file that really runs is not the one that was approved; the process was killed."""
    SUPERVISOR_ERROR = "SUPERVISOR_ERROR"
    """The supervisor failed while it handled the call."""
    NO_POLICY = "NO_POLICY"
    """The policy is missing or cannot be used, so the run was not started."""
    STALE_POLICY = "STALE_POLICY"
    """The policy is older than the caller accepts, so the run was not started."""
    RUN_ENDED = "RUN_ENDED"
    """The process outlived the run's main program and was ended with it."""


DEFAULT_RULE = "default"
"""Stands where a rule id would, when no rule matched."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome for one operation.

    Attributes:
        verdict: allow, deny or escalate.
        reason: why, as a stable code.
        rule: id of the rule that decided, or `default`.
        detail: what went wrong in a condition that could not be evaluated.
        charges: ids of the rules with a limit that an allowed operation uses up.
    """

    verdict: Verdict
    reason: Reason
    rule: str = DEFAULT_RULE
    detail: str = ""
    charges: tuple[str, ...] = ()

    @property
    def allowed(self) -> bool:
        """Whether the operation may be carried out."""
        return self.verdict is Verdict.ALLOW
