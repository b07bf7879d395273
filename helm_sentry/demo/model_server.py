"""A local model server that follows a script, in the shape of the OpenAI chat completions API.

It keeps no state: how many tool results a conversation holds says which turn is due, so an agent that repeats a
request gets the same answer. It runs outside the sandbox; the agent reaches it by the one address its policy names.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any

from helm_sentry.demo.server import Server

PATH = "/v1/chat/completions"
MAX_BODY = 1 << 20
"""Bytes of a request, which holds the whole conversation."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What the model says next: words, and the tool it wants used.

    Attributes:
        id: id of the tool call.
        text: what it says with it.
        tool: name of the tool.
        arguments: the tool's arguments.
    """

    id: str
    text: str
    tool: str
    arguments: dict[str, Any] = field(default_factory=dict)


class ModelServer(Server):
    """Serves a script on a loopback port of the kernel's choice.

    Args:
        turns: the script.
        farewell: what the model says when the script is over.
    """

    def __init__(self, turns: Sequence[Turn], farewell: str = "Done.") -> None:
        self.turns, self.farewell = tuple(turns), farewell
        super().__init__(_Handler)


class ProtocolError(ValueError):
    """A request that is not a conversation this script can go on with."""


def reply(turns: Sequence[Turn], farewell: str, request: bytes) -> dict[str, Any]:
    """Return the chat completion that answers a request.

    Raises:
        ProtocolError: it is not a request, or its tool results are not those of the script.
    """
    done = _results(request)
    if done != [turn.id for turn in turns[: len(done)]]:
        raise ProtocolError("the tool results are not those of the calls that were made")
    message: dict[str, Any] = {"role": "assistant", "content": farewell}
    if len(done) < len(turns):
        turn = turns[len(done)]
        function = {"name": turn.tool, "arguments": json.dumps(turn.arguments)}
        message["content"] = turn.text
        message["tool_calls"] = [{"id": turn.id, "type": "function", "function": function}]
    finish = "tool_calls" if "tool_calls" in message else "stop"
    return {
        "id": f"chatcmpl-{len(done)}",
        "object": "chat.completion",
        "model": "scripted",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
    }


def _results(request: bytes) -> list[str]:
    """Return the ids of the tool calls whose results a conversation holds."""
    try:
        messages = json.loads(request)["messages"]
        return [str(message["tool_call_id"]) for message in messages if message["role"] == "tool"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ProtocolError(f"not a chat completion request: {type(error).__name__}") from error


class _Handler(BaseHTTPRequestHandler):
    timeout = 10
    server: ModelServer

    def do_POST(self) -> None:
        try:
            self._send(HTTPStatus.OK, reply(self.server.turns, self.server.farewell, self._body()))
        except ProtocolError as error:
            self._send(HTTPStatus.BAD_REQUEST, {"error": {"message": str(error)}})

    def _body(self) -> bytes:
        if self.path != PATH:
            raise ProtocolError(f"there is nothing but {PATH} here")
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or len(length) > 9 or int(length) > MAX_BODY:
            raise ProtocolError(f"a body of at most {MAX_BODY} bytes is needed, with its length")
        return self.rfile.read(int(length))

    def _send(self, status: HTTPStatus, answer: dict[str, Any]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the terminal belongs to the demo."""
