"""The README's first run, as a newcomer goes through it: denied, message, lines pasted, passed."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.kernel.conftest import CHECKOUT, Sandbox

pytestmark = pytest.mark.kernel
README = (CHECKOUT / "README.md").read_text()
PART = README.partition("## What it looks like")[2].partition("\n## ")[0]
BLOCKS = [text for _, text in re.findall(r"^```(\w*)\n(.*?)^```$", PART, re.MULTILINE | re.DOTALL)]
_VARIES = [
    (r"\d{8}-\d{6}-[0-9a-f]{6}", "RUN"),
    (r"\b[0-9a-f]{16}\b", "KEY"),
    (r"[\d,]+ (decisions|records)", r"N \1"),
    (r"log: \S+", "log: RUN"),
]


def plain(text: str, replaced: dict[str, str]) -> list[str]:
    """The lines of a transcript without what differs from run to run; two streams have no common order."""
    for old, new in replaced.items():
        text = text.replace(old, new)
    for varies, word in _VARIES:
        text = re.sub(varies, word, text)
    # The id of a suggested rule is made of the end of the path.
    text = re.sub(r"id: read-[a-z0-9-]*customers-csv", "id: read-customers-csv", text)
    return sorted(text.splitlines())


def transcript(block: str) -> list[tuple[str, str]]:
    """The commands of a block, each with what it printed."""
    return [(part.partition("\n")[0], part.partition("\n")[2]) for part in block.split("$ ")[1:]]


def shell(sandbox: Sandbox, command: str) -> str:
    command = command.replace("helm-sentry", sandbox.command[0], 1)
    process = sandbox.popen(["bash", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return process.communicate(timeout=60)[0]


def test_a_newcomers_path(sandbox: Sandbox) -> None:
    agent, first, policy, second = BLOCKS
    data, key = sandbox.root / "data" / "customers.csv", sandbox.root / "home" / ".ssh" / "id_rsa"
    for path, text in ((data, "id,name\n1,Ada\n"), (key, "a key\n"), (sandbox.workspace / "notes.txt", "buy milk\n")):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    back = {str(data.parent): "/srv/data", str(sandbox.root / "home"): "/home/you"}
    (sandbox.workspace / "agent.py").write_text(agent.replace("/srv/data", str(data.parent)))
    assert "a key" in sandbox.native(["/usr/bin/python3", "agent.py"]).stdout

    ((command, shown),) = transcript(first)
    output = shell(sandbox, command)
    assert plain(output, back) == plain(shown, {})

    lines = re.search(r"to allow it, add to the policy:\n((?:    .*\n)+)", output)
    assert lines is not None
    head = policy.partition("allow:")[0]
    pasted = head + re.sub(r"(?m)^    ", "", lines[1])
    assert plain(pasted, back) == plain(policy, {})
    (sandbox.root / "policy.yaml").write_text(pasted)

    (run, shown), (verify, verified) = transcript(second)
    output = shell(sandbox, run.replace("policy.yaml", str(sandbox.root / "policy.yaml")))
    assert plain(output, back) == plain(shown, {})
    last = max(sandbox.runs(), key=lambda path: path.stat().st_mtime_ns)
    assert plain(shell(sandbox, re.sub(r"\d{8}-\d{6}-[0-9a-f]{6}", last.name, verify)), back) == plain(verified, {})


def test_the_transcript_is_where_the_readme_begins() -> None:
    assert len(BLOCKS) == 4
    assert README.index("## What it looks like") < 1500
    assert Path(CHECKOUT / "docs/working-with-policies.md").exists()
