"""What came of each act: at the agent, in the log, in the receipts. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from helm_sentry.audit.canonical import Fields, escape
from helm_sentry.demo.evidence import Evidence
from helm_sentry.demo.scenario import Act, Expected
from helm_sentry.operation import Kind

OWN, RUN = "own", "run"
"""Which receipt speaks for a record: one of its own, as every denial has, or that of the whole run."""
_REFUSALS = ("EACCES", "EPERM")
_NOTHING: Fields = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Aftermath:
    """What was seen outside the sandbox after the run.

    Attributes:
        daemon_gone: nobody waits on the daemon's FIFO.
        trace_absent: it has written nothing.
        visits: connections the forbidden server got.
    """

    daemon_gone: bool
    trace_absent: bool
    visits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What came of one act.

    Attributes:
        act: the act.
        target: its object.
        agent: what the agent met: `ok`, an errno, `ended`, or `nothing` when it never reported the act.
        sequence: the log's record of it, -1 when there is none.
        rule: the rule that decided, `default`, or the code of a notice.
        receipt: which verified receipt speaks for the record: `own`, `run`, or empty.
        good: all of it is as expected.
    """

    act: Act
    target: str
    agent: str
    sequence: int
    rule: str
    receipt: str
    good: bool

    def fields(self) -> dict[str, Any]:
        """Return the finding as JSON."""
        return {
            "id": self.act.id,
            "act": self.act.title,
            "tool": self.act.tool,
            "operation": str(self.act.kind or ""),
            "target": self.target,
            "expected": str(self.act.expected),
            "agent": self.agent,
            "record": self.sequence if self.sequence >= 0 else None,
            "rule": self.rule,
            "receipt": self.receipt,
            "good": self.good,
        }


def judge(
    acts: Sequence[Act], lines: Mapping[str, Mapping[str, Any]], evidence: Evidence, after: Aftermath
) -> list[Finding]:
    """Return what came of each act.

    Args:
        acts: what the agent was to do.
        lines: what it reported, by the id of the act.
        evidence: what the run left.
        after: what was seen after it.
    """
    return [_judge(act, lines.get(act.id), evidence, after) for act in acts]


def _judge(act: Act, line: Mapping[str, Any] | None, evidence: Evidence, after: Aftermath) -> Finding:
    met = "nothing" if line is None else str(line.get("errno") or "ok")
    if act.expected is Expected.ENDED:
        return _daemon(act, line or {}, met, evidence, after)
    denied = act.expected is Expected.DENIED
    record = _decision(act, "DENY" if denied else "ALLOW", evidence) or _decision(act, "", evidence)
    finding = _finding(act, act.target, met, record, evidence)
    right = record.get("verdict") == ("DENY" if denied else "ALLOW") and met in (_REFUSALS if denied else ("ok",))
    unseen = not (denied and act.kind is Kind.NET_CONNECT and after.visits)
    return replace(finding, good=right and unseen and finding.receipt == (OWN if denied else RUN))


def _daemon(act: Act, line: Mapping[str, Any], met: str, evidence: Evidence, after: Aftermath) -> Finding:
    result = line.get("result")
    pid = result.get("pid") if isinstance(result, dict) else None
    record = next((record for record in evidence.records if _left_behind(record, pid)), _NOTHING)
    ended = met == "ok" and after.daemon_gone and after.trace_absent
    finding = _finding(act, f"process {pid or '?'}", str(act.expected) if ended else met, record, evidence)
    return replace(finding, good=ended and finding.receipt == OWN)


def _left_behind(record: Fields, pid: object) -> bool:
    return record.get("ops") == [str(Kind.PROCESS_OUTLIVE)] and record.get("tid") == pid


def _decision(act: Act, verdict: str, evidence: Evidence) -> Fields:
    """Return the first record of a decision about an act, with this verdict if one is given."""
    about = (record for record in evidence.records if _is_about(record, act))
    return next((record for record in about if verdict in ("", record["verdict"])), _NOTHING)


def _is_about(record: Fields, act: Act) -> bool:
    operations = record.get("ops")
    known = isinstance(operations, list) and str(act.kind) in operations and "verdict" in record
    return known and record.get("target") == escape(act.target)


def _finding(act: Act, target: str, met: str, record: Fields, evidence: Evidence) -> Finding:
    sequence = record.get("seq")
    place = sequence if isinstance(sequence, int) else -1
    receipt = RUN if place >= 0 and evidence.report is not None else ""
    if record.get("verdict") == "DENY":
        receipt = OWN if place in evidence.receipts else ""
    rule = str(record.get("rule") or record.get("code") or "")
    return Finding(act=act, target=target, agent=met, sequence=place, rule=rule, receipt=receipt, good=False)
