"""The record of a run that was refused before it began: nothing ran, and a signed receipt says so."""

import os
from collections.abc import Sequence

from helm_sentry import __version__, features, state
from helm_sentry.abi.arch import native
from helm_sentry.audit import record
from helm_sentry.audit.log import AuditLog
from helm_sentry.confine import credentials
from helm_sentry.decision import Decision, Reason, Verdict
from helm_sentry.errors import PolicyError, SentryError, StalePolicyError
from helm_sentry.operation import Kind, Operation
from helm_sentry.policy.model import Policy
from helm_sentry.policy.plan import make_plan
from helm_sentry.receipt import store
from helm_sentry.receipt.keyring import signing_key
from helm_sentry.receipt.signer import Signer

_NOTHING = Policy(name="none")


def record_refusal(command: Sequence[str], error: PolicyError, key: str) -> None:
    """Write a sealed run with one decision in it: the program may not start, because there is no policy to ask.

    Args:
        command: what was to run.
        error: why there is no policy.
        key: private key file to sign with; empty for the one of this machine.

    Raises:
        SentryError: it could not be written.
    """
    try:
        _write(command, error, key)
    except OSError as other:
        raise SentryError(f"{error}; and the refusal could not be recorded: {other}") from error


def _write(command: Sequence[str], error: PolicyError, path: str) -> None:
    run, host = state.new_run_id(), features.probe()
    key = signing_key(state.key_directory(), os.environ, path)
    directory = state.new_run(run)
    plan = make_plan(_NOTHING, host, native().loaders)
    facts = record.start(
        run=run,
        version=__version__,
        argv=command,
        user=credentials.describe(credentials.current()),
        host=os.uname().nodename,
        features=host.words(),
        degraded=plan.missing_layers,
        digests={},
    )
    digests = store.create_run(directory, facts, _NOTHING.canonical(), plan.canonical(), key.public)
    log = AuditLog(directory, run, degraded=plan.missing_layers)
    log.append({**facts, **digests})
    signer = Signer(directory, key)
    reason = Reason.STALE_POLICY if isinstance(error, StalePolicyError) else Reason.NO_POLICY
    operation = Operation(Kind.EXEC, path=os.path.abspath(command[0]))
    log.append(
        record.decision(os.getpid(), "execve", (operation,), Decision(Verdict.DENY, reason), "none", detail=str(error))
    )
    signer.notify()
    log.end(lambda counts: record.end(counts, exit_status=error.exit_status))
    log.sync()
    store.sync_run(directory)
    signer.seal(log.totals)
    log.close()
