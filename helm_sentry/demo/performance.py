"""One performance of the demo: stage, servers and supervised agent; and what came of it."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from helm_sentry import state
from helm_sentry.demo import evidence, findings, scenario, stage
from helm_sentry.demo.evidence import Evidence
from helm_sentry.demo.findings import Aftermath, Finding
from helm_sentry.demo.model_server import ModelServer
from helm_sentry.demo.scenario import Act
from helm_sentry.demo.server import ForbiddenServer
from helm_sentry.demo.stage import Stage
from helm_sentry.errors import SentryError

_PATIENCE = 120.0  # seconds; the policy ends the agent long before
# -P: nothing is imported from the directory the demo was called in.
_SENTRY = (sys.executable, "-P", "-c", "from helm_sentry.cli.main import main; main(prog_name='helm-sentry')")

Narrator = Callable[[Act, str], None]
"""Hears of each act as it happens: the act and the errno the agent met, `ok` when it met none."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a performance came to.

    Attributes:
        findings: act by act.
        evidence: what the run left.
        status: exit status of the run.
    """

    findings: tuple[Finding, ...]
    evidence: Evidence
    status: int

    @property
    def good(self) -> bool:
        """Everything was as expected and the run verifies."""
        return self.status == 0 and self.evidence.report is not None and all(found.good for found in self.findings)

    @property
    def layers(self) -> tuple[str, ...]:
        """What held the operations of the demo, by the plan."""
        kinds = (str(found.act.kind) for found in self.findings if found.act.kind)
        return tuple(dict.fromkeys(layer for kind in kinds for layer in self.evidence.layers.get(kind, ())))

    def fields(self) -> dict[str, Any]:
        """Return the outcome as JSON."""
        report = self.evidence.report
        return {
            "good": self.good,
            "run": self.evidence.run,
            "directory": self.evidence.directory,
            "exit": self.status,
            "acts": [found.fields() for found in self.findings],
            "layers": list(self.layers),
            "verification": report.fields() if report else None,
            "fault": self.evidence.fault,
        }


def perform(narrate: Narrator, options: Iterable[str] = ()) -> Outcome:
    """Play the demo once.

    Args:
        narrate: is told of each act.
        options: further options of `helm-sentry run`.

    Raises:
        SentryError: the run did not start or left nothing that can be read.
    """
    directory = tempfile.mkdtemp(prefix="helm-sentry-demo-")
    try:
        return _perform(stage.build(directory), narrate, options)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _perform(built: Stage, narrate: Narrator, options: Iterable[str]) -> Outcome:
    with ForbiddenServer() as forbidden:
        asked = scenario.script(built.props(forbidden))
        with ModelServer([act.turn for act in asked], scenario.FAREWELL) as model:
            acts = (scenario.asking(model.address), *asked)
            policy = built.write_policy(model.port)
            command = [*_SENTRY, "run", "--quiet", "--policy", policy, "--workspace", built.workspace, *options]
            status, lines = _run([*command, "--", *built.command(model.url)], built.workspace, acts, narrate)
    after = Aftermath(
        daemon_gone=built.daemon_gone(), trace_absent=not os.path.lexists(built.trace), visits=forbidden.visits
    )
    found = evidence.collect(evidence.find_run(built.directory), state.key_directory())
    return Outcome(tuple(findings.judge(acts, lines, found, after)), found, status)


def _run(
    command: list[str], workspace: str, acts: Iterable[Act], narrate: Narrator
) -> tuple[int, dict[str, dict[str, Any]]]:
    """Run the supervised agent; return its exit status and the lines it printed, by the id of their act."""
    known = {act.id: act for act in acts}
    lines: dict[str, dict[str, Any]] = {}
    with subprocess.Popen(
        command, cwd=workspace, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace"
    ) as process:
        # Killing the supervisor ends the agent and all it started, and so this pipe.
        watchdog = threading.Timer(_PATIENCE, process.kill)
        watchdog.start()
        try:
            for text in process.stdout or ():
                line = _parse(text)
                if (act := known.get(str(line.get("id")))) and act.id not in lines:
                    lines[act.id] = line
                    narrate(act, str(line.get("errno") or "ok"))
            status = process.wait()
        finally:
            process.kill()
            watchdog.cancel()
    if status == SentryError.exit_status and not lines:
        raise SentryError("the run failed; the reason stands above")
    return status, lines


def _parse(text: str) -> dict[str, Any]:
    """Return one of the agent's lines; what is none of them says nothing."""
    try:
        line = json.loads(text)
    except ValueError:
        return {}
    return line if isinstance(line, dict) else {}
