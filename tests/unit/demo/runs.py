"""Runs of the demo as they should be, really written and signed, for tests to change one thing in."""

import os
from dataclasses import dataclass, field
from typing import Any

from helm_sentry import state
from helm_sentry.audit import record
from helm_sentry.audit.log import AuditLog
from helm_sentry.decision import Decision, Reason, Verdict
from helm_sentry.demo import scenario
from helm_sentry.demo.findings import Aftermath
from helm_sentry.demo.scenario import Act, Expected, Props
from helm_sentry.operation import Kind, Operation
from helm_sentry.receipt.keys import load_or_create
from helm_sentry.receipt.signer import Signer
from helm_sentry.receipt.store import create_run

RUN = "20261121-071503-ab12cd"
MARK = "/tmp/helm-sentry-demo-x1"
PID = 4711
PROPS = Props(
    data=f"{MARK}/data/100%.csv",
    report=f"{MARK}/workspace/report.md",
    key=f"{MARK}/home/.ssh/id",
    passwd="/etc/passwd",
    program="/usr/bin/curl",
    url="http://127.0.0.1:2/",
    address="127.0.0.1:2",
    fifo=f"{MARK}/workspace/alarm",
    trace=f"{MARK}/workspace/still-here",
)
ACTS = (scenario.asking("127.0.0.1:1"), *scenario.script(PROPS))
CLEAN = Aftermath(daemon_gone=True, trace_absent=True, visits=0)


@dataclass
class Script:
    """What happens in a run.

    Attributes:
        allowed: ids of denied acts that this run allows.
        unlogged: ids of acts that leave no record.
        left_behind: the end of the daemon is recorded.
        sealed: the run ends with its receipt.
    """

    allowed: set[str] = field(default_factory=set)
    unlogged: set[str] = field(default_factory=set)
    left_behind: bool = True
    sealed: bool = True

    def write(self) -> str:
        """Write the run into the state directory and return where it is."""
        directory, key = state.new_run(RUN), load_or_create(state.key_directory())
        facts = {"run": RUN, "argv": ["python", f"{MARK}/agent.py"]}
        layers = {str(Kind.FILE_READ): ["broker", "floor"], str(Kind.NET_CONNECT): ["broker", "floor (tcp)"]}
        digests = create_run(directory, facts, {"name": "demo"}, {"layers": layers}, key.public)
        log, signer = AuditLog(directory, RUN), Signer(directory, key)
        log.append({**self._start(), **digests})
        for act in ACTS:
            if act.kind is not None and act.id not in self.unlogged:
                log.append(self._decision(act))
                signer.notify()
        if self.left_behind:
            log.append(record.outlived(PID))
            signer.notify()
        log.append(record.end(log.counts, exit_status=0))
        signer.seal(log.totals) if self.sealed else signer.close()
        log.close()
        return directory

    def _start(self) -> dict[str, Any]:
        return record.start(run=RUN, version="1", argv=["a"], user="u", host="h", features=[], degraded=[], digests={})

    def _decision(self, act: Act) -> dict[str, Any]:
        assert act.kind is not None
        allowed = act.expected is Expected.ALLOWED or act.id in self.allowed
        decided = Decision(Verdict.ALLOW, Reason.RULE, act.id) if allowed else Decision(Verdict.DENY, Reason.DEFAULT)
        network = act.kind is Kind.NET_CONNECT
        address, _, port = act.target.rpartition(":")
        operation = (
            Operation(act.kind, address=address, port=int(port)) if network else Operation(act.kind, path=act.target)
        )
        action, errno = ("fd", "") if allowed else ("errno", "EACCES")
        return record.decision(1, "call", [operation], decided, action, errno=errno)


def lines() -> dict[str, dict[str, Any]]:
    """Return what the agent reports when all is well."""
    found: dict[str, dict[str, Any]] = {
        act.id: {"id": act.id, "errno": "EACCES" if act.expected is Expected.DENIED else ""} for act in ACTS
    }
    found["leave-daemon"]["result"] = {"pid": PID}
    return found


def receipts(directory: str) -> str:
    """Return the path of a run's denial receipts."""
    return os.path.join(directory, "receipts", "denials.jsonl")
