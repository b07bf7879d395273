"""A client of the MCP filesystem server: asks over a pipe what a model would ask. Usage: mcp_client.py STEPS -- SERVER…

STEPS is a JSON list of [tool, arguments]; each answer's text is printed on a line of its own.
"""

import json
import subprocess
import sys
from itertools import count

at = sys.argv.index("--")
steps = json.loads(sys.argv[1])
server = subprocess.Popen(sys.argv[at + 1 :], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
numbers = count(1)


def ask(method: str, params: dict) -> dict:
    number = next(numbers)
    server.stdin.write(json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}) + "\n")
    server.stdin.flush()
    for line in server.stdout:
        answer = json.loads(line)
        if answer.get("id") == number:
            return answer.get("result") or answer
    sys.exit("the server is gone")


about = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "client", "version": "1"}}
ask("initialize", about)
server.stdin.write('{"jsonrpc": "2.0", "method": "notifications/initialized"}\n')
server.stdin.flush()
for tool, arguments in steps:
    answer = ask("tools/call", {"name": tool, "arguments": arguments})
    text = " ".join(part.get("text", "") for part in answer.get("content", [])) or json.dumps(answer)
    print(("error: " if answer.get("isError") else "") + text.replace("\n", " "))
server.stdin.close()
sys.exit(server.wait())
