"""The scripted model: stateless, strict about what it is told, and reachable over HTTP."""

import http.client
import json

import pytest

from helm_sentry.demo.model_server import MAX_BODY, PATH, ModelServer, ProtocolError, Turn, reply

TURNS = (Turn("one", "First.", "read_file", {"path": "/a"}), Turn("two", "Then.", "http_get", {"url": "u"}))


def conversation(*done: str) -> bytes:
    results = [{"role": "tool", "tool_call_id": name, "content": "{}"} for name in done]
    return json.dumps({"messages": [{"role": "user", "content": "task"}, *results]}).encode()


def choice(*done: str) -> dict:
    return reply(TURNS, "Bye.", conversation(*done))["choices"][0]


def post(server: ModelServer, body: bytes, path: str = PATH, headers: dict | None = None) -> tuple[int, dict]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request("POST", path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


@pytest.mark.parametrize(("done", "turn"), [((), TURNS[0]), (("one",), TURNS[1])])
def test_each_result_leads_to_the_next_call(done: tuple[str, ...], turn: Turn) -> None:
    answer = choice(*done)
    (call,) = answer["message"]["tool_calls"]
    assert (call["id"], call["function"]["name"]) == (turn.id, turn.tool)
    assert json.loads(call["function"]["arguments"]) == turn.arguments
    assert (answer["message"]["content"], answer["finish_reason"]) == (turn.text, "tool_calls")


def test_after_the_script_it_says_goodbye() -> None:
    answer = choice("one", "two")
    assert answer["message"] == {"role": "assistant", "content": "Bye."}
    assert answer["finish_reason"] == "stop"


def test_a_repeated_request_gets_the_same_answer() -> None:
    assert choice("one") == choice("one")


@pytest.mark.parametrize("done", [("two",), ("two", "one"), ("one", "one"), ("one", "two", "three")])
def test_results_of_calls_that_were_not_made_are_refused(done: tuple[str, ...]) -> None:
    with pytest.raises(ProtocolError, match="not those of the calls"):
        choice(*done)


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{", id="not json"),
        pytest.param(b"\xff", id="not utf-8"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b'{"messages": 1}', id="messages is a number"),
        pytest.param(b'{"messages": [1]}', id="a message is a number"),
        pytest.param(b'{"messages": [{"role": "tool"}]}', id="a result without its id"),
        pytest.param(b'{"messages": ' + b"[" * 100_000, id="deep"),
    ],
)
def test_what_is_no_conversation_is_refused(request_: bytes) -> None:
    with pytest.raises(ProtocolError, match="not a chat completion request"):
        reply(TURNS, "Bye.", request_)


def test_over_http() -> None:
    with ModelServer(TURNS, "Bye.") as server:
        assert post(server, conversation("one")) == (200, reply(TURNS, "Bye.", conversation("one")))
        assert post(server, b"{")[0] == 400
        assert post(server, conversation(), path="/v1/models")[0] == 400
        assert post(server, b"", headers={"Content-Length": str(MAX_BODY + 1)})[0] == 400
        assert post(server, b"", headers={"Content-Length": "-1"})[0] == 400
    assert server.visits == 5


def test_it_listens_on_loopback_alone_and_stops() -> None:
    with ModelServer(TURNS) as server:
        assert server.address == f"127.0.0.1:{server.port}"
        assert server.url == f"http://{server.address}"
    with pytest.raises(ConnectionRefusedError):
        post(server, conversation())
