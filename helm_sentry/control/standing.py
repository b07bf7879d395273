"""Answers that outlive a run: `always`, kept for the policy they were given under and no other.

    <state>/approvals/<policy digest in hex>.jsonl     a line an answer: the rule, the operation, who and when

A changed policy has another digest, so it asks anew.
"""

import hashlib
import json
import os
import time
from dataclasses import replace

from helm_sentry.control.question import Approver
from helm_sentry.operation import Operation
from helm_sentry.policy.model import Policy

_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW
_MOST_BYTES = 1 << 22


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

    def add(self, rule: str, key: str, by: Approver) -> None:
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
            "by": str(by),
            "time": time.time_ns() // 1000,
        }
        opened = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | _FLAGS, 0o600)
        try:
            os.write(opened, json.dumps(fields).encode() + b"\n")
            os.fsync(opened)
        finally:
            os.close(opened)


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
