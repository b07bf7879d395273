"""`run --dry-run`: the policy decides and nothing is enforced, except what would end the supervision."""

import base64
import json

import pytest

from tests.kernel.conftest import PYTHON, Sandbox

pytestmark = pytest.mark.kernel
NOTHING = "extends: [base]\nenvironment: {pass: [PATH, HOME, LANG]}\n"
DRY = ["--dry-run"]


def test_what_would_be_denied_is_performed_and_recorded(sandbox: Sandbox) -> None:
    policy = sandbox.policy(NOTHING)
    command = ["sh", "-c", "echo text > new && cat new && mv new newer && rm newer"]
    assert sandbox.run(command, policy).status == 126
    result = sandbox.run(command, policy, options=DRY)
    assert (result.status, result.stdout) == (0, "text\n"), result.stderr
    assert {kind for record in result.denials() for kind in record["ops"]} >= {
        "exec", "file.create", "file.write", "file.read", "file.rename", "file.delete",
    }  # fmt: skip
    assert all(record["action"] != "errno" for record in result.denials("file.delete"))
    assert "would be denied: delete" in result.stderr


def test_the_run_is_marked_in_log_and_receipts(sandbox: Sandbox) -> None:
    result = sandbox.run(["true"], sandbox.policy(NOTHING), options=DRY)
    assert result.status == 0, result.stderr
    assert "would be denied, nothing was enforced" in result.stderr
    assert result.records[0]["enforcing"] is False
    assert result.directory is not None
    receipts = [*(result.directory / "receipts/denials.jsonl").read_text().splitlines()]
    receipts += (result.directory / "receipts/run.json").read_text().splitlines()
    assert len(receipts) > 1
    for line in receipts:
        assert json.loads(base64.b64decode(json.loads(line)["payload"]))["enforcing"] is False
    checked = sandbox.verify(result.directory)
    assert checked.returncode == 0
    assert "dry run: nothing was enforced" in checked.stdout


def test_the_supervisors_own_files_stay_closed(sandbox: Sandbox) -> None:
    key = sandbox.root / "state/helm-sentry/keys/signing.key"
    command = ["cat", str(key)]
    assert sandbox.run(["true"]).status == 0
    assert "signing" in key.name and sandbox.native(command).status == 0
    result = sandbox.run(command, sandbox.policy(NOTHING), options=DRY)
    assert result.status == 1
    assert {record["rule"] for record in result.denials() if record["target"] == str(key)} == {"sentry/state"}
    assert "helm-sentry: denied:" in result.stderr


@pytest.mark.parametrize(
    ("act", "kind"),
    [
        pytest.param("import ctypes; r = ctypes.CDLL(None).unshare(0x10000000)", "kernel.namespace", id="namespace"),
        pytest.param("import ctypes; r = ctypes.CDLL(None).memfd_create(b'x', 16)", "kernel.memfd", id="memfd"),
        pytest.param("import socket; socket.socket(socket.AF_NETLINK, 3, 0)", "net.socket", id="netlink"),
        pytest.param(
            "import socket; socket.socket(socket.AF_UNIX).bind(b'\\0sentry-dry-run')", "unix.bind", id="abstract"
        ),
    ],
)
def test_what_would_end_the_supervision_stays_refused(sandbox: Sandbox, act: str, kind: str) -> None:
    command = [PYTHON, "-c", f"r = 0\n{act}\nassert r >= 0"]
    assert sandbox.native(command).status == 0
    result = sandbox.run(command, sandbox.policy(NOTHING), options=DRY)
    assert result.status != 0
    assert result.denials(kind)


def test_a_failed_act_is_an_outcome(sandbox: Sandbox) -> None:
    result = sandbox.run(["sh", "-c", "mkdir -p a/b; rmdir a"], sandbox.policy(NOTHING), options=DRY)
    (failed,) = [record for record in result.records if record["type"] == "outcome" and record["errno"] == "ENOTEMPTY"]
    assert result.records[failed["of"]]["verdict"] == "DENY"


def test_access_answers_as_the_act_would(sandbox: Sandbox) -> None:
    outside = sandbox.root / "outside"
    outside.write_text("")
    command = [PYTHON, "-c", f"import os; assert os.access({str(outside)!r}, os.R_OK)"]
    policy = sandbox.policy(NOTHING)
    result = sandbox.run(command, policy, options=DRY)
    assert result.status == 0, result.stderr
    asked = [record for record in result.denials("file.read") if record["target"] == str(outside)]
    assert [record["syscall"] for record in asked] in (["access"], ["faccessat"], ["faccessat2"])
