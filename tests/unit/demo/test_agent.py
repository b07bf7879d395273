"""The bundled agent's tools, natively: each does what it says, and each failure reaches the model by its errno."""

import json
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from helm_sentry.demo import agent
from helm_sentry.demo.model_server import ModelServer, Turn
from helm_sentry.demo.server import ForbiddenServer


def act(tool: str, **arguments: Any) -> dict[str, Any]:
    call = {"id": "c1", "function": {"name": tool, "arguments": json.dumps(arguments)}}
    message = agent.perform(call)
    assert (message["role"], message["tool_call_id"]) == ("tool", "c1")
    return json.loads(message["content"])


def test_read_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("content")
    assert act("read_file", path=str(tmp_path / "a")) == {"result": "content", "error": ""}


def test_write_file(tmp_path: Path) -> None:
    assert act("write_file", path=str(tmp_path / "a"), text="new")["error"] == ""
    assert (tmp_path / "a").read_text() == "new"


def test_append_file_keeps_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    assert act("append_file", path=str(tmp_path / "a"), text="")["error"] == ""
    assert (tmp_path / "a").read_text() == "old"
    act("append_file", path=str(tmp_path / "a"), text="+new")
    assert (tmp_path / "a").read_text() == "old+new"


def test_append_file_creates_nothing(tmp_path: Path) -> None:
    assert act("append_file", path=str(tmp_path / "a"), text="x")["error"] == "ENOENT"
    assert not (tmp_path / "a").exists()


def test_run_command() -> None:
    answer = act("run_command", argv=[sys.executable, "-c", "print('hi'); raise SystemExit(3)"])
    assert answer == {"result": {"status": 3, "stdout": "hi\n", "stderr": ""}, "error": ""}


def test_http_get() -> None:
    with ForbiddenServer() as server:
        assert act("http_get", url=server.url)["result"] == {"status": 200, "body": "welcome\n"}
    assert server.visits == 1
    assert act("http_get", url=server.url)["error"] == "ECONNREFUSED"


def test_start_daemon_leaves_a_process_that_wakes_up(tmp_path: Path) -> None:
    fifo, trace = tmp_path / "fifo", tmp_path / "trace"
    os.mkfifo(fifo)
    pid = act("start_daemon", wait_for=str(fifo), path=str(trace), text="here")["result"]["pid"]
    gone = os.pidfd_open(pid)
    try:
        assert os.getsid(pid) != os.getsid(0)
        assert not trace.exists()
        fifo.write_text("!")
        assert select.select([gone], [], [], 30)[0], "the daemon did not end"
        assert trace.read_text() == "here"
    finally:
        os.close(gone)


def test_start_daemon_reports_what_the_daemon_could_not_do(tmp_path: Path) -> None:
    answer = act("start_daemon", wait_for=str(tmp_path / "absent"), path="/nowhere", text="")
    assert answer["error"] == "ENOENT"


@pytest.mark.parametrize(
    ("tool", "arguments", "error"),
    [
        ("read_file", {"path": "/nonexistent"}, "ENOENT"),
        ("run_command", {"argv": ["/nonexistent"]}, "ENOENT"),
        ("run_command", {"argv": ["/"]}, "EACCES"),
        ("fly", {}, "KeyError"),
        ("read_file", {"file": "/a"}, "TypeError"),
    ],
)
def test_a_failure_is_told_to_the_model_and_printed(
    tool: str, arguments: dict[str, Any], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert act(tool, **arguments)["error"] == error
    line = json.loads(capsys.readouterr().out)
    assert (line["id"], line["tool"], line["errno"]) == ("c1", tool, error)


def test_the_model_is_told_about_every_tool() -> None:
    told = {entry["function"]["name"]: entry["function"]["parameters"] for entry in agent.descriptions()}
    assert told.keys() == agent.TOOLS.keys()
    assert told["run_command"]["properties"] == {"argv": {"type": "array", "items": {"type": "string"}}}
    assert told["append_file"]["required"] == ["path", "text"]


def run_agent(url: str) -> tuple[int, list[dict[str, Any]]]:
    done = subprocess.run(
        [sys.executable, "-I", agent.__file__, url, "a task"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def test_the_loop_follows_the_model_to_its_end(tmp_path: Path) -> None:
    turns = (
        Turn("w", "Write.", "write_file", {"path": str(tmp_path / "a"), "text": "x"}),
        Turn("r", "Read.", "read_file", {"path": str(tmp_path / "b")}),
    )
    with ModelServer(turns) as server:
        status, lines = run_agent(server.url)
    assert status == 0
    assert [(line["id"], line["tool"], line["errno"]) for line in lines] == [
        ("ask", "ask_model", ""),
        ("w", "write_file", ""),
        ("r", "read_file", "ENOENT"),
    ]
    assert (tmp_path / "a").read_text() == "x"


def test_a_model_that_never_ends_does_not_keep_the_agent_for_ever() -> None:
    with ModelServer([Turn(f"t{n}", "More.", "read_file", {"path": "/nonexistent"}) for n in range(100)]) as server:
        status, lines = run_agent(server.url)
    assert (status, len(lines)) == (1, 33)


def test_a_model_that_cannot_be_reached() -> None:
    with ForbiddenServer() as server:
        pass
    assert run_agent(server.url)[1][0]["errno"] == "ECONNREFUSED"
    with ForbiddenServer() as server:  # answers GET alone
        status, lines = run_agent(server.url)
    assert (status, lines[0]["errno"]) == (1, "ValueError")
