"""Our reasons in the words of HELM AI Kernel's reason-code registry. Pure.

The finer detail (rule, syscall, errno) stays in our own records; a code says what class of refusal it was.
"""

import re
from collections.abc import Sequence

from helm_sentry.decision import Reason, Verdict
from helm_sentry.operation import Kind

SANDBOX, EGRESS, PRIVILEGE = "SANDBOX_VIOLATION", "DATA_EGRESS_BLOCKED", "INSUFFICIENT_PRIVILEGE"
CREDENTIAL, PROVENANCE, NO_POLICY = "TAINTED_CREDENTIAL_ACCESS_DENY", "PROVENANCE_FAILURE", "NO_POLICY_DEFINED"
PDP_ERROR, VERIFICATION = "PDP_ERROR", "VERIFICATION_FAILURE"

BY_REASON = {
    Reason.UNREADABLE: PDP_ERROR,
    Reason.SUPERVISOR_ERROR: PDP_ERROR,
    Reason.CONDITION_ERROR: PDP_ERROR,
    Reason.NO_POLICY: NO_POLICY,
    Reason.STALE_POLICY: PDP_ERROR,
    Reason.BUDGET: "BUDGET_EXCEEDED",
    Reason.UNKNOWN_SYSCALL: PROVENANCE,
    Reason.FOREIGN_ABI: PROVENANCE,
    Reason.EXEC_MISMATCH: PROVENANCE,
    Reason.RUN_ENDED: "AGENT_KILLED",
    Reason.DISAPPROVED: "APPROVAL_REQUIRED",
    Reason.UNANSWERED: "APPROVAL_TIMEOUT",
    Reason.CHANGED: PROVENANCE,
}
"""Codes of reasons that say more than the kind of operation does."""

BY_KIND = {
    **dict.fromkeys(Kind, SANDBOX),
    **{kind: EGRESS for kind in Kind if kind.startswith("net.")},
    # Calls that would be carried out without anybody seeing them one by one.
    Kind.KERNEL_IO_URING: PROVENANCE,
    Kind.KERNEL_ABI: PROVENANCE,
    Kind.KERNEL_UNKNOWN: PROVENANCE,
    **dict.fromkeys((Kind.FILE_CHOWN, Kind.FILE_MKNOD, Kind.KERNEL_MODULE, Kind.KERNEL_MOUNT), PRIVILEGE),
    **dict.fromkeys((Kind.KERNEL_NAMESPACE, Kind.KERNEL_REBOOT, Kind.KERNEL_SWAP, Kind.KERNEL_CLOCK), PRIVILEGE),
}
"""Codes of what a rule, or no rule, refused."""

# Where keys, tokens and passwords of people and machines lie.
_CREDENTIALS = re.compile(
    r"/\.(ssh|gnupg|aws|azure|kube|password-store)(/|$)|/\.(netrc|git-credentials|pgpass|npmrc|pypirc)$"
    r"|/\.config/gcloud/|/\.docker/config\.json$|/credentials(\.json)?$|/\.env$|\.(pem|key|p12|pfx)$"
    r"|/api[_-]?key[^/]*$|^/etc/(shadow|gshadow)-?$"
)


def code(verdict: str, reason: str, kinds: Sequence[str], target: str, has_rules: bool = True) -> str:
    """Return the registry's code for a decision; empty for ALLOW.

    Args:
        verdict: what was decided.
        reason: why, as our own code.
        kinds: kinds of the operations it was about.
        target: object of the first.
        has_rules: false when the policy of the run allows nothing at all.
    """
    if verdict == Verdict.ALLOW:
        return ""
    if verdict == Verdict.ESCALATE:
        return "APPROVAL_REQUIRED"
    if reason in BY_REASON:
        return BY_REASON[Reason(reason)]
    if not has_rules:
        return NO_POLICY
    kind = Kind(kinds[0]) if kinds and kinds[0] in set(Kind) else Kind.KERNEL_UNKNOWN
    if kind.startswith("file.") and _CREDENTIALS.search(target):
        return CREDENTIAL
    return BY_KIND[kind]
