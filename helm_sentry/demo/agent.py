"""A small tool-using agent: it asks a model what to do, does it, and tells the model how that went.

Stand-alone, of the standard library alone, and ignorant of any supervisor: `python -I agent.py MODEL_URL TASK`.
On standard output it leaves one JSON line an act: `id`, `tool`, `errno` (empty when it worked) and `result`.
"""

import errno
import http.client
import json
import os
import select
import subprocess
import sys
import urllib.parse
from collections.abc import Callable
from typing import Any

_MOST_TURNS = 32
_MOST_BYTES = 65536  # of a file or a response that are shown to the model
_PATIENCE = 10  # seconds for a connection, a program, the start of a daemon
_DAEMON_LIFE = 60_000  # milliseconds after which a daemon that nobody woke gives up


def read_file(path: str) -> str:
    """Return the text of a file."""
    with open(path, encoding="utf-8") as file:
        return file.read(_MOST_BYTES)


def write_file(path: str, text: str) -> str:
    """Write a new text to a file."""
    with open(path, "w", encoding="utf-8") as file:
        return f"{file.write(text)} characters written"


def append_file(path: str, text: str) -> str:
    """Open a file that is there for appending and add a text."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    try:
        return f"{os.write(descriptor, text.encode())} bytes appended"
    finally:
        os.close(descriptor)


def run_command(argv: list[str]) -> dict[str, Any]:
    """Run a program and return its exit status and what it printed."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_PATIENCE)
    return {"status": done.returncode, "stdout": done.stdout[:_MOST_BYTES], "stderr": done.stderr[:_MOST_BYTES]}


def http_get(url: str) -> dict[str, Any]:
    """Fetch a page over http."""
    return _request("GET", url)


def start_daemon(wait_for: str, path: str, text: str) -> dict[str, int]:
    """Leave a process behind that waits for a word in the FIFO `wait_for` and then writes a file."""
    news, tell = os.pipe()
    child = os.fork()
    if child == 0:
        _daemon(tell, wait_for, path, text)
    os.close(tell)
    os.waitpid(child, 0)
    with open(news, encoding="ascii") as file:
        answer = int(file.read() or -errno.EPIPE)
    if answer < 0:
        raise OSError(-answer, os.strerror(-answer))
    return {"pid": answer}


def _daemon(tell: int, wait_for: str, path: str, text: str) -> None:
    """Leave the session and the parent; report the process id, or minus an errno, once all is in place."""
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        null = os.open("/dev/null", os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(null, standard)
        fifo = os.open(wait_for, os.O_RDONLY | os.O_NONBLOCK)
        os.write(tell, b"%d" % os.getpid())
        os.close(tell)
        poller = select.poll()
        poller.register(fifo, select.POLLIN)
        if poller.poll(_DAEMON_LIFE):
            write_file(path, text)
    except OSError as error:
        os.write(tell, b"%d" % -(error.errno or errno.EIO))
    finally:
        os._exit(0)


Tool = Callable[..., Any]
TOOLS: dict[str, Tool] = {
    tool.__name__: tool for tool in (read_file, write_file, append_file, run_command, http_get, start_daemon)
}


def main(url: str, task: str) -> int:
    """Work on a task until the model has nothing more to do; return the exit status."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": task}]
    for turn in range(_MOST_TURNS):
        try:
            reply = _ask(url, messages)
        except (OSError, ValueError, LookupError, http.client.HTTPException) as error:
            _say("ask", "ask_model", _name(error), str(error))
            return 1
        if turn == 0:
            _say("ask", "ask_model", "", reply.get("content"))
        messages.append(reply)
        calls = reply.get("tool_calls") or []
        if not calls:
            return 0
        messages += [perform(call) for call in calls]
    return 1


def perform(call: dict[str, Any]) -> dict[str, Any]:
    """Carry out one tool call, print its line, and return the message that tells the model how it went."""
    name = call["function"]["name"]
    try:
        result, failure = TOOLS[name](**json.loads(call["function"]["arguments"])), ""
    except Exception as error:  # whatever went wrong, the model is told, and decides what to do next
        result, failure = str(error), _name(error)
    _say(call["id"], name, failure, result)
    answer = {"result": result, "error": failure}
    return {"role": "tool", "tool_call_id": call["id"], "content": json.dumps(answer)}


def descriptions() -> list[dict[str, Any]]:
    """Return the tools as the model is told about them."""
    return [{"type": "function", "function": _description(name, tool)} for name, tool in TOOLS.items()]


def _description(name: str, tool: Tool) -> dict[str, Any]:
    kinds = {parameter: kind for parameter, kind in tool.__annotations__.items() if parameter != "return"}
    properties: dict[str, Any] = {
        parameter: {"type": "string"} if kind is str else {"type": "array", "items": {"type": "string"}}
        for parameter, kind in kinds.items()
    }
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"name": name, "description": tool.__doc__, "parameters": parameters}


def _ask(url: str, messages: list[dict[str, Any]]) -> dict[str, Any]:
    question = {"model": "scripted", "messages": messages, "tools": descriptions()}
    answer = _request("POST", f"{url}/v1/chat/completions", json.dumps(question))
    if answer["status"] != http.HTTPStatus.OK:
        raise ValueError(f"the model answered {answer['status']}: {answer['body']}")
    message: dict[str, Any] = json.loads(answer["body"])["choices"][0]["message"]
    return message


def _request(method: str, url: str, body: str | None = None) -> dict[str, Any]:
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_PATIENCE)
    try:
        connection.request(method, parts.path or "/", body, {"Content-Type": "application/json"} if body else {})
        response = connection.getresponse()
        return {"status": response.status, "body": response.read(_MOST_BYTES).decode("utf-8", "replace")}
    finally:
        connection.close()


def _say(act: str, tool: str, failure: str, result: object) -> None:
    print(json.dumps({"id": act, "tool": tool, "errno": failure, "result": result}), flush=True)


def _name(error: Exception) -> str:
    code = error.errno if isinstance(error, OSError) else None
    return errno.errorcode.get(code, str(code)) if code else type(error).__name__


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
