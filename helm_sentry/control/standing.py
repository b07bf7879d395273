"""Answers that outlive a run: `always`, kept for the policy they were given under and no other.

    <state>/approvals/<policy digest in hex>.jsonl     a line an answer: the rule, the operation, who and when

`helm-sentry approvals kept` shows them and `approvals forget` takes one away; runs that go on have read them already.

A changed policy has another digest, so it asks anew.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from helm_sentry.control.question import Approver
from helm_sentry.operation import Operation
from helm_sentry.policy.model import Policy

_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW
_MOST_BYTES = 1 << 22
_NAME = 8  # digits


class Standing:
    """The standing answers for one policy.

    Args:
        directory: where they are kept; made when the first one is given.
        policy_digest: `lasting_digest` of the policy.
        scratch: directory that only this run has, the variable `tmp`; what was said of another run's counts for it.
    """

    def __init__(self, directory: str, policy_digest: str, scratch: str) -> None:
        self._directory, self._digest, self._scratch = directory, policy_digest, scratch
        self._path = os.path.join(directory, policy_digest + ".jsonl")

    def load(self) -> set[tuple[str, str]]:
        """Return the (rule, operation) pairs that were approved for good; a line that makes no sense counts nothing.

        Raises:
            OSError: there are some, and they cannot be read.
        """
        try:
            with open(os.open(self._path, os.O_RDONLY | _FLAGS), encoding="utf-8", errors="surrogateescape") as file:
                lines = file.read(_MOST_BYTES).splitlines()
        except FileNotFoundError:
            return set()
        found = set()
        for line in lines:
            try:
                fields = json.loads(line)
            except ValueError:
                continue
            if isinstance(fields, dict) and fields.get("policy") == self._digest:
                operation = str(fields.get("operation"))
                if then := str(fields.get("tmp", "")):
                    operation = operation.replace(then, self._scratch)
                found.add((str(fields.get("rule")), operation))
        return found

    def add(self, rule: str, key: str, lines: Sequence[str], by: Approver) -> None:
        """Keep an answer.

        Raises:
            OSError: it cannot be kept.
        """
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        fields = {
            "policy": self._digest,
            "rule": rule,
            "operation": key,
            "tmp": self._scratch,
            "lines": list(lines),
            "by": str(by),
            "time": time.time_ns() // 1000,
        }
        opened = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | _FLAGS, 0o600)
        try:
            os.write(opened, json.dumps(fields).encode() + b"\n")
            os.fsync(opened)
        finally:
            os.close(opened)


@dataclass(frozen=True, slots=True)
class Kept:
    """A standing answer.

    Attributes:
        name: what it is called: the begin of a hash of its line.
        path: file it stands in.
        line: as it stands there.
        rule: id of the rule that asked.
        lines: what it allows, for a person to read.
        by: who gave it.
        time: when, in microseconds since the epoch.
    """

    name: str
    path: str
    line: str
    rule: str
    lines: tuple[str, ...]
    by: str
    time: int


def kept(directory: str) -> list[Kept]:
    """Return all standing answers, the oldest first.

    Raises:
        OSError: there are some, and they cannot be read.
    """
    try:
        paths = [os.path.join(directory, name) for name in os.listdir(directory) if name.endswith(".jsonl")]
    except FileNotFoundError:
        return []
    return sorted((found for path in paths for found in _kept(path)), key=lambda each: each.time)


def _kept(path: str) -> Iterator[Kept]:
    with open(os.open(path, os.O_RDONLY | _FLAGS), encoding="utf-8", errors="surrogateescape") as file:
        lines = file.read(_MOST_BYTES).splitlines()
    for line in lines:
        try:
            fields = json.loads(line)
            name = hashlib.sha256(os.fsencode(line)).hexdigest()[:_NAME]
            shown = tuple(map(str, fields.get("lines") or [fields["operation"]]))
            yield Kept(name, path, line, str(fields["rule"]), shown, str(fields["by"]), int(fields["time"]))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue  # it counts for nothing


def forget(answer: Kept) -> None:
    """Take a standing answer away.

    Raises:
        OSError: its file cannot be written.
    """
    with open(os.open(answer.path, os.O_RDONLY | _FLAGS), encoding="utf-8", errors="surrogateescape") as file:
        lines = [line for line in file.read(_MOST_BYTES).splitlines() if line != answer.line]
    unborn = answer.path + ".new"
    with open(
        os.open(unborn, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _FLAGS, 0o600), "w", errors="surrogateescape"
    ) as file:
        file.write("".join(f"{line}\n" for line in lines))
        file.flush()
        os.fsync(file.fileno())
    os.rename(unborn, answer.path)


def lasting_digest(policy: Policy, scratch: str) -> str:
    """Return the SHA-256, in hex, of what a policy says in every run: without the run's own directory and rules.

    Args:
        policy: the effective policy.
        scratch: directory that only this run has, the variable `tmp`.
    """
    block = tuple(rule for rule in policy.block if not rule.id.startswith("sentry/"))
    text = json.dumps(replace(policy, block=block).canonical(), sort_keys=True).replace(scratch, "${tmp}")
    return hashlib.sha256(text.encode()).hexdigest()


def key_of(operation: Operation, about: tuple[str, ...]) -> str:
    """Return a text that equal operations share and others do not."""
    return repr(operation) + (repr(about) if about else "")
