"""Trying one operation for real, in a confined child that is thrown away."""

import errno
import os
import shutil
from typing import Any

from helm_sentry.errors import UsageError
from helm_sentry.operation import Kind, Operation
from helm_sentry.policy.observation import read_log
from helm_sentry.receipt.store import read_run

_REFUSALS = (errno.EACCES, errno.EPERM)
_MADE = frozenset({Kind.FILE_CREATE, Kind.UNIX_BIND})


def probe(operation: Operation, policy: str, workspace: str) -> dict[str, Any]:
    """Return what really happens: the errno, in words, and whether it is what the policy says.

    Raises:
        UsageError: it cannot be tried without doing it.
    """
    # Imported here: only this needs the supervisor's machinery.
    from helm_sentry.launch.probe import TRIALS
    from helm_sentry.options import Options
    from helm_sentry.session import supervise

    if operation.kind not in TRIALS:
        raise UsageError(f"{operation.kind} cannot be tried without doing it")
    there = os.path.lexists(operation.path)
    command = ("probe", str(operation.kind), operation.target)
    status, directory = supervise(
        Options(command=command, policy=policy, workspace=workspace, quiet=True, probe=operation)
    )
    if operation.kind in _MADE and not there and os.path.lexists(operation.path):
        os.unlink(operation.path)
    run = read_log(read_run(directory).log)
    shutil.rmtree(directory, ignore_errors=True)
    mine = [seen for seen in run.observations if operation.kind in {each.kind for each in seen.operations}]
    decided = all(seen.decision.allowed for seen in mine)
    code = os.waitstatus_to_exitcode(status)
    started = operation.kind is Kind.EXEC and bool(mine) and decided
    name = "it was started" if started else errno.errorcode.get(code, "") or "it succeeded"
    refused = code in _REFUSALS and not started
    return {"result": name, "agrees": refused != decided if mine else False, "decided": "ALLOW" if decided else "DENY"}
