"""An agent on the OpenAI Agents SDK with a shell tool. Usage: openai_agent.py BASE_URL"""

import subprocess
import sys

from agents import Agent, OpenAIChatCompletionsModel, Runner, function_tool, set_tracing_disabled
from openai import AsyncOpenAI

set_tracing_disabled(True)


@function_tool
def shell(command: list[str]) -> str:
    """Run a command."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


client = AsyncOpenAI(base_url=sys.argv[1], api_key="none")
model = OpenAIChatCompletionsModel(model="scripted", openai_client=client)
print(Runner.run_sync(Agent(name="worker", tools=[shell], model=model), "do it").final_output)
