"""Every reason of ours has a code of HELM's registry."""

import pytest

from helm_sentry.decision import Reason, Verdict
from helm_sentry.evidence import reasons
from helm_sentry.operation import Kind

# From the registry reason-codes-v1: those that a supervisor of syscalls has a use for.
REGISTRY = {
    *("SANDBOX_VIOLATION", "DATA_EGRESS_BLOCKED", "INSUFFICIENT_PRIVILEGE", "TAINTED_CREDENTIAL_ACCESS_DENY"),
    *("PROVENANCE_FAILURE", "NO_POLICY_DEFINED", "PDP_ERROR", "VERIFICATION_FAILURE", "AGENT_KILLED"),
    *("APPROVAL_REQUIRED", "APPROVAL_TIMEOUT", "BUDGET_EXCEEDED"),
}


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("reason", Reason)
def test_every_refusal_has_a_code_of_the_registry(kind, reason):
    assert reasons.code(Verdict.DENY, reason, [kind], "x") in REGISTRY


def test_what_is_allowed_has_none():
    assert reasons.code(Verdict.ALLOW, Reason.RULE, ["file.read"], "/x") == ""


@pytest.mark.parametrize(
    ("kind", "target", "code"),
    [
        ("file.read", "/home/a/project/x", "SANDBOX_VIOLATION"),
        ("file.read", "/home/a/.ssh/id_ed25519", "TAINTED_CREDENTIAL_ACCESS_DENY"),
        ("file.read", "/home/a/.aws/credentials", "TAINTED_CREDENTIAL_ACCESS_DENY"),
        ("file.read", "/srv/org_api_key", "SANDBOX_VIOLATION"),
        ("file.read", "/srv/api_key.txt", "TAINTED_CREDENTIAL_ACCESS_DENY"),
        ("file.read", "/etc/shadow", "TAINTED_CREDENTIAL_ACCESS_DENY"),
        ("exec", "/home/a/.ssh/id", "SANDBOX_VIOLATION"),
        ("net.connect", "10.0.0.1:443", "DATA_EGRESS_BLOCKED"),
        ("unix.connect", "/run/docker.sock", "SANDBOX_VIOLATION"),
        ("kernel.io_uring", "io_uring_setup", "PROVENANCE_FAILURE"),
        ("kernel.module", "init_module", "INSUFFICIENT_PRIVILEGE"),
    ],
)
def test_codes(kind, target, code):
    assert reasons.code(Verdict.DENY, Reason.DEFAULT, [kind], target) == code


def test_a_policy_without_a_rule_is_no_policy():
    assert reasons.code(Verdict.DENY, Reason.DEFAULT, ["exec"], "/bin/sh", has_rules=False) == "NO_POLICY_DEFINED"
    assert reasons.code(Verdict.DENY, Reason.UNREADABLE, ["exec"], "", has_rules=False) == "PDP_ERROR"


def test_escalation_waits_for_a_person():
    assert reasons.code(Verdict.ESCALATE, Reason.CONDITION, ["exec"], "/bin/sh") == "APPROVAL_REQUIRED"
