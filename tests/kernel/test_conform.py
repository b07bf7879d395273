"""HELM's negative vectors are met by live processes, each with a receipt; and a vector that is not met is a failure."""

import dataclasses
import json
from pathlib import Path

import pytest

from helm_sentry.evidence import statement, vectors
from helm_sentry.evidence.conform import meet
from helm_sentry.receipt.keys import PublicKey, load_or_create
from tests.kernel.conftest import Sandbox
from tests.kernel.test_evidence import sentry

pytestmark = pytest.mark.kernel

EXPECTED = {
    "policy-not-ready": "NO_POLICY_DEFINED",
    "stale-policy-bundle": "PDP_ERROR",
    "direct-upstream-bypass": "PROVENANCE_FAILURE",
    "pdp-outage": "PDP_ERROR",
    "sandbox-overgrant": "SANDBOX_VIOLATION",
    "blocked-egress": "DATA_EGRESS_BLOCKED",
    "deny-receipt-emission": "VERIFICATION_FAILURE",
    "agent-authored-code-network-attempt": "DATA_EGRESS_BLOCKED",
    "agent-authored-code-unmounted-file-read": "SANDBOX_VIOLATION",
    "claude-managed-org-api-key-on-worker": "TAINTED_CREDENTIAL_ACCESS_DENY",
    "claude-managed-raw-mcp-tunnel-bypass": "SANDBOX_VIOLATION",
    "claude-managed-path-traversal": "SANDBOX_VIOLATION",
    "claude-managed-egress-outside-grant": "DATA_EGRESS_BLOCKED",
    "claude-managed-denial-without-receipt": "VERIFICATION_FAILURE",
}


def test_all_fourteen_are_met(sandbox: Sandbox) -> None:
    done = sentry(sandbox, "conform", "--json")
    results = {result["id"]: result for result in json.loads(done.stdout)}
    assert {name: result["faults"] for name, result in results.items() if result["faults"]} == {}
    assert {name: result["reason_code"] for name, result in results.items()} == EXPECTED
    assert {result["verdict"] for result in results.values()} == {"DENY"}
    assert done.returncode == 0, done.stderr
    (path,) = (sandbox.root / "state/helm-sentry/keys").glob("*.pub")
    key = PublicKey.parse(path.read_bytes())
    for name, result in results.items():
        envelope = json.dumps(result["envelope"]).encode()
        assert statement.opened(envelope, statement.CONFORMANCE, key)["vector"] == name
        run = sandbox.root / "state/helm-sentry/runs" / result["run"]
        assert (sandbox.verify(run, "--public-key", str(path)).returncode == 121) is (name == "deny-receipt-emission")


GRANTED = {
    "claude-managed-path-traversal": "  - {id: granted, file: {do: [read], paths: ['${stage}/secret']}}\n",
    "blocked-egress": "  - {id: granted, connect: {addresses: [loopback]}}\n",
    "claude-managed-raw-mcp-tunnel-bypass": "  - {id: granted, unix: {do: [connect], paths: ['${stage}/*.sock']}}\n",
}


@pytest.mark.parametrize("name", GRANTED)
def test_a_policy_that_grants_the_act_fails_its_vector(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    (vector,) = (vector for vector in vectors.ACTS if vector.id == name)
    key = load_or_create(str(tmp_path / "helm-sentry/keys"))
    (result,) = meet([dataclasses.replace(vector, rules=GRANTED[name])], key)
    assert "it was not refused" in result.faults
    assert not result.passed
