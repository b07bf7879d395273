"""A LangGraph agent with a shell tool. Usage: langgraph_agent.py BASE_URL"""

import operator
import subprocess
import sys
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph
from openai import OpenAI

SHELL = {
    "type": "function",
    "function": {
        "name": "shell",
        "description": "run a command",
        "parameters": {"type": "object", "properties": {"command": {"type": "array", "items": {"type": "string"}}}},
    },
}
model = OpenAI(base_url=sys.argv[1], api_key="none")


class State(TypedDict):
    messages: Annotated[list[Any], operator.add]


def think(state: State) -> State:
    answer = model.chat.completions.create(model="scripted", messages=state["messages"], tools=[SHELL])
    return {"messages": [answer.choices[0].message.model_dump(exclude_none=True)]}


def act(state: State) -> State:
    import json

    results = []
    for call in state["messages"][-1]["tool_calls"]:
        command = json.loads(call["function"]["arguments"])["command"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        results.append({"role": "tool", "tool_call_id": call["id"], "content": done.stdout + done.stderr})
    return {"messages": results}


graph = StateGraph(State)
graph.add_node("think", think)
graph.add_node("act", act)
graph.add_edge(START, "think")
graph.add_conditional_edges("think", lambda state: "act" if state["messages"][-1].get("tool_calls") else END)
graph.add_edge("act", "think")
print(graph.compile().invoke({"messages": [{"role": "user", "content": "do it"}]})["messages"][-1]["content"])
