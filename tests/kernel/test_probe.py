"""`policy explain --probe`: the answer of a policy and what the kernel really does agree."""

import json
import socket
import subprocess
from typing import Any

import pytest

from tests.kernel.conftest import Sandbox

pytestmark = pytest.mark.kernel


def explain(sandbox: Sandbox, *words: str, policy: str = "default") -> dict[str, Any]:
    argv = [*sandbox.command, "policy", "explain", *words, "--policy", policy, "--probe", "--json"]
    process = sandbox.popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    answer: dict[str, Any] = json.loads(out)
    return answer


def test_files(sandbox: Sandbox) -> None:
    inside, outside = sandbox.workspace / "inside", sandbox.root / "outside"
    for path in (inside, outside):
        path.write_text("text")
        path.chmod(0o666)
    for kind in ("read", "write", "stat"):
        allowed = explain(sandbox, kind, str(inside))
        assert (allowed["verdict"], allowed["probe"]["result"], allowed["probe"]["agrees"]) == (
            "ALLOW",
            "it succeeded",
            True,
        )
        denied = explain(sandbox, kind, str(outside))
        assert (denied["verdict"], denied["probe"]["result"], denied["probe"]["agrees"]) == ("DENY", "EACCES", True)
    assert inside.read_text() == outside.read_text() == "text"


def test_what_is_made_is_removed(sandbox: Sandbox) -> None:
    for kind in ("create", "unix.bind"):
        answer = explain(sandbox, kind, str(sandbox.workspace / "new"))
        assert answer["probe"] == {"result": "it succeeded", "agrees": True, "decided": "ALLOW"}
        assert not (sandbox.workspace / "new").exists()
    assert explain(sandbox, "list", str(sandbox.workspace))["probe"]["agrees"]


def test_programs(sandbox: Sandbox) -> None:
    assert explain(sandbox, "exec", "/usr/bin/true")["probe"]["result"] == "it was started"
    denied = explain(sandbox, "exec", "/usr/bin/true", policy="base")["probe"]
    assert (denied["result"], denied["agrees"]) == ("EACCES", True)


def test_network(sandbox: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        target = f"127.0.0.1:{port}"
        policy = sandbox.policy(f"allow: [{{id: a, connect: {{addresses: [127.0.0.1], ports: [{port}]}}}}]\n")
        assert explain(sandbox, "connect", target, policy=str(policy))["probe"]["result"] == "it succeeded"
        assert explain(sandbox, "connect", target)["probe"] == {"result": "EACCES", "agrees": True, "decided": "DENY"}
    assert explain(sandbox, "bind", "127.0.0.1:0")["probe"]["result"] == "it succeeded"
    assert explain(sandbox, "bind", "0.0.0.0:0/udp")["probe"]["result"] == "EACCES"


def test_a_unix_socket_that_is_not_there(sandbox: Sandbox) -> None:
    answer = explain(sandbox, "unix.connect", str(sandbox.workspace / "none"))["probe"]
    assert answer["result"] in ("ENOENT", "EACCES")


def test_what_cannot_be_undone_is_not_tried(sandbox: Sandbox) -> None:
    kept = sandbox.workspace / "kept"
    kept.write_text("")
    process = sandbox.popen(
        [*sandbox.command, "policy", "explain", "delete", str(kept), "--probe"], stderr=subprocess.PIPE
    )
    assert "cannot be tried without doing it" in process.communicate(timeout=60)[1]
    assert process.returncode == 2 and kept.exists()


def test_no_run_is_left_behind(sandbox: Sandbox) -> None:
    explain(sandbox, "read", str(sandbox.workspace))
    assert sandbox.runs() == []
