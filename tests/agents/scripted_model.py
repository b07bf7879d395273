"""A model server on loopback that follows a script, in the three dialects that agents speak.

Anthropic Messages, OpenAI Responses and OpenAI chat completions, streamed or not. It has one thing to say: run this shell
command with whatever tool there is for that; when the tool's result is in the conversation, it says so and stops.
"""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

FAREWELL = "all done"
_SHELLS = ("Bash", "shell", "exec_command", "shell_command", "local_shell", "run_shell", "container.exec")


class ScriptedModel:
    """Serves one command for a shell tool, then a farewell. Use as a context manager; `port` is where."""

    def __init__(self, command: str) -> None:
        self.command = command
        self.requests: list[str] = []
        self.results: list[str] = []
        handler = type("Handler", (_Handler,), {"model": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> "ScriptedModel":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def arguments(self, tool: str) -> dict[str, Any]:
        if tool == "exec_command":
            return {"cmd": self.command}
        words = {"command": ["bash", "-c", self.command]} if tool == "shell" else {"command": self.command}
        return words | ({"description": "run it"} if tool == "Bash" else {})


class _Handler(BaseHTTPRequestHandler):
    model: ScriptedModel
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._reply(200, "text/plain", b"")

    def do_GET(self) -> None:
        self._reply(200, "application/json", b'{"data": [], "models": []}')

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])) or b"{}")
        path = self.path.partition("?")[0]
        self.model.requests.append(path)
        if path.endswith("/count_tokens"):
            self._reply(200, "application/json", b'{"input_tokens": 1}')
        elif path.endswith("/messages"):
            self._messages(request)
        elif path.endswith("/responses"):
            self._events(_responses(self.model, request))
        elif path.endswith("/chat/completions"):
            self._chat(request)
        else:
            self._reply(200, "application/json", b"{}")

    def _messages(self, request: dict[str, Any]) -> None:
        text = json.dumps(request.get("messages", []))
        tool = _tool(each.get("name", "") for each in request.get("tools", []))
        if '"tool_result"' in text:
            self.model.results.append(text)
        call = bool(tool) and '"tool_result"' not in text
        block: dict[str, Any] = {"type": "text", "text": FAREWELL}
        if call:
            block = {"type": "tool_use", "id": "toolu_1", "name": tool, "input": self.model.arguments(tool)}
        message = {
            "id": "msg_1", "type": "message", "role": "assistant", "model": request.get("model", "m"),
            "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 1},
        }  # fmt: skip
        stop = "tool_use" if call else "end_turn"
        if not request.get("stream"):
            self._reply(
                200, "application/json", json.dumps(message | {"content": [block], "stop_reason": stop}).encode()
            )
            return
        if call:
            empty = block | {"input": {}}
            delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
        else:
            empty, delta = {"type": "text", "text": ""}, {"type": "text_delta", "text": FAREWELL}
        self._events(
            iter([
                {"type": "message_start", "message": message | {"content": [], "stop_reason": None}},
                {"type": "content_block_start", "index": 0, "content_block": empty},
                {"type": "content_block_delta", "index": 0, "delta": delta},
                {"type": "content_block_stop", "index": 0},
                {"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": None}, "usage": {"output_tokens": 1}},
                {"type": "message_stop"},
            ])
        )  # fmt: skip

    def _chat(self, request: dict[str, Any]) -> None:
        messages = request.get("messages", [])
        tool = _tool(each["function"]["name"] for each in request.get("tools", []))
        results = [each for each in messages if each.get("role") == "tool"]
        self.model.results += [json.dumps(each) for each in results]
        message: dict[str, Any] = {"role": "assistant", "content": FAREWELL}
        if tool and not results:
            function = {"name": tool, "arguments": json.dumps(self.model.arguments(tool))}
            message = {"role": "assistant", "content": None, "tool_calls": [{"id": "call_1", "type": "function", "function": function}]}  # fmt: skip
        reason = "stop" if results or not tool else "tool_calls"
        answer = {
            "id": "chat_1", "object": "chat.completion", "created": 1, "model": request.get("model", "m"),
            "choices": [{"index": 0, "message": message, "finish_reason": reason}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }  # fmt: skip
        self._reply(200, "application/json", json.dumps(answer).encode())

    def _events(self, events: Iterator[dict[str, Any]]) -> None:
        text = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)
        self._reply(200, "text/event-stream", text.encode())

    def _reply(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _tool(offered: Iterator[str]) -> str:
    names = set(offered)
    return next((name for name in _SHELLS if name in names), "")


def _responses(model: ScriptedModel, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    results = [each for each in request.get("input", []) if "call_output" in str(each.get("type", ""))]
    model.results += [json.dumps(each) for each in results]
    tool = _tool(each.get("name") or each.get("type", "") for each in request.get("tools", []))
    answer = {
        "id": "resp_1",
        "object": "response",
        "status": "in_progress",
        "output": [],
        "model": request.get("model", "m"),
    }
    yield {"type": "response.created", "response": answer}
    item: dict[str, Any] = {
        "type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
        "content": [{"type": "output_text", "text": FAREWELL, "annotations": []}],
    }  # fmt: skip
    if tool and not results:
        item = {
            "type": "function_call", "id": "fc_1", "call_id": "call_1", "name": tool, "status": "completed",
            "arguments": json.dumps(model.arguments(tool)),
        }  # fmt: skip
    yield {"type": "response.output_item.added", "output_index": 0, "item": item}
    yield {"type": "response.output_item.done", "output_index": 0, "item": item}
    usage = {
        "input_tokens": 1, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 1,
        "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 2,
    }  # fmt: skip
    yield {"type": "response.completed", "response": answer | {"status": "completed", "output": [item], "usage": usage}}
