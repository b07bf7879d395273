"""Cases: what a policy is expected to decide, written beside it and tried by `policy test`. Pure.

    schema: helm-sentry/cases/v1
    policy: ./agent.yaml            # a file beside this one, or a shipped policy by name
    cases:
      - {do: file.read, target: '${workspace}/notes', want: allow, rule: workspace}
      - {note: keys stay closed, do: file.read, target: '${home}/.ssh/id_rsa', want: deny, as: payments}

The run's variables are fixed, so a case means the same on every machine; `variables` may set others.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from helm_sentry.decision import Decision, Verdict
from helm_sentry.errors import UsageError
from helm_sentry.operation import Operation
from helm_sentry.policy import document, values
from helm_sentry.policy.document import Node, Place
from helm_sentry.policy.engine import CompiledPolicy, compile_policy, decide
from helm_sentry.policy.fields import Fields, items_of, pairs, scalar
from helm_sentry.policy.loader import load_file
from helm_sentry.policy.question import context, operation_of

SCHEMA = "helm-sentry/cases/v1"

VARIABLES: Mapping[str, str] = {
    "workspace": "/work",
    "home": "/home/user",
    "tmp": "/tmp/run",  # noqa: S108  # a name to decide about, nothing is made there
    "user": "user",
    "program": "/usr/bin/agent",
}
"""What the run's variables stand for in cases."""

_KEYS = ("note", "do", "target", "argv", "own", "as", "by", "want", "rule")
_VERDICTS = {"allow": Verdict.ALLOW, "deny": Verdict.DENY, "escalate": Verdict.ESCALATE}


@dataclass(frozen=True, slots=True)
class Case:
    """One expectation.

    Attributes:
        place: where it stands.
        note: what it is about, for people.
        operation: what is asked.
        role: the agent's role, empty for the one the policy states.
        program: the program that asks, empty for an unknown one.
        want: the wanted verdict.
        rule: the rule that must have decided; empty for any.
    """

    place: Place
    note: str
    operation: Operation
    role: str
    program: str
    want: Verdict
    rule: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a case.

    Attributes:
        case: the case.
        decision: what the policy decides.
    """

    case: Case
    decision: Decision

    @property
    def passed(self) -> bool:
        """Whether the policy decides as wanted."""
        return self.decision.verdict is self.case.want and self.case.rule in ("", self.decision.rule)

    def __str__(self) -> str:
        """Return it as one line."""
        case, place = self.case, self.case.place
        wanted = case.want.lower() + (f" by `{case.rule}`" if case.rule else "")
        got = f"{self.decision.verdict.lower()} by `{self.decision.rule}`"
        about = f"{case.operation.kind} {case.operation.target}" + (f" ({case.note})" if case.note else "")
        return f"{place.source}:{place.line}:{place.column}: {about}: wanted {wanted}, got {got}"


def run_cases(text: str, source: str) -> list[Outcome]:
    """Return what becomes of every case of a file.

    Raises:
        PolicyError: the file or its policy cannot be read.
    """
    fields = Fields(document.parse(text, source), "a cases file", ("schema", "policy", "variables", "cases"))
    schema = scalar(fields.require("schema", f"`schema: {SCHEMA}`"), "`schema`")
    schema.read(values.choice("schema", {SCHEMA: SCHEMA}))
    variables = dict(VARIABLES)
    for key, value in pairs(node, "`variables`") if (node := fields.get("variables")) is not None else ():
        variables[key.read(values.variable_name)] = scalar(value, f"`{key.text}`").text
    named = scalar(fields.require("policy", "the policy, such as `policy: ./agent.yaml`"), "`policy`").text
    beside = os.path.join(os.path.dirname(source), named) if named.startswith(".") else named
    compiled = compile_policy(load_file(beside, variables))
    cases = _cases(fields.require("cases", "a list of cases"), variables)
    return [Outcome(case, _decide(compiled, case)) for case in cases]


def _decide(compiled: CompiledPolicy, case: Case) -> Decision:
    return decide(compiled, case.operation, context(compiled.policy, case.role, case.program))


def _cases(node: Node, variables: Mapping[str, str]) -> Iterator[Case]:
    for item in items_of(node, "`cases`"):
        fields = Fields(item, "a case", _KEYS)
        kind = scalar(fields.require("do", "an operation, such as `do: file.read`"), "`do`")
        target = scalar(fields.require("target", "what it is done to"), "`target`")
        try:
            operation = operation_of(kind.text, _expanded(target.text, variables))
        except UsageError as error:
            raise target.place.error(str(error)) from None
        argv = fields.values("argv", lambda word: word.text) or ()
        own = (flag := fields.get("own")) is not None and scalar(flag, "`own`").read(values.flag)
        yield Case(
            item.place,
            _text(fields, "note"),
            replace(operation, argv=argv, own=own),
            _text(fields, "as"),
            _expanded(_text(fields, "by"), variables),
            scalar(fields.require("want", "`allow`, `deny` or `escalate`"), "`want`").read(
                values.choice("verdict", _VERDICTS)
            ),
            _text(fields, "rule"),
        )


def _expanded(text: str, variables: Mapping[str, str]) -> str:
    for name, value in variables.items():
        text = text.replace(f"${{{name}}}", value)
    return text


def _text(fields: Fields, key: str) -> str:
    node = fields.get(key)
    return scalar(node, f"`{key}`").text if node is not None else ""
