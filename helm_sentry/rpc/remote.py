"""Runs behind a daemon, asked over gRPC, with the words of their own control sockets (`control/service.py`)."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import grpc

from helm_sentry.audit.canonical import Fields
from helm_sentry.control.client import Unreachable
from helm_sentry.errors import SentryError, UsageError
from helm_sentry.rpc import sentry_pb2 as pb
from helm_sentry.rpc.sentry_pb2_grpc import SentryStub

_PATIENCE = 30.0  # seconds for an answer
_CHOICES = {"once": pb.ONCE, "run": pb.FOR_RUN, "always": pb.ALWAYS, "deny": pb.DENY}


def channel(address: str, authority: str = "", certificate: str = "", key: str = "") -> grpc.Channel:
    """Return a channel to a daemon.

    Args:
        address: `unix:PATH` or `HOST:PORT`.
        authority: file with the authority that signed the daemon's certificate; for HOST:PORT.
        certificate: file with the caller's own certificate.
        key: file with its private key.

    Raises:
        UsageError: a file cannot be read, or there are too few or too many.
    """
    files = (authority, key, certificate)
    if address.startswith("unix:"):
        if any(files):
            raise UsageError("certificates are for HOST:PORT; on a Unix socket the kernel says who calls")
        return grpc.insecure_channel(address)
    if not all(files):
        raise UsageError("HOST:PORT needs `--tls-authority`, `--tls-certificate` and `--tls-key`")
    try:
        return grpc.secure_channel(address, grpc.ssl_channel_credentials(*map(_contents, files)))
    except OSError as error:
        raise UsageError(f"`{error.filename}` cannot be read: {error.strerror}") from error


class RemoteRuns:
    """The runs that a daemon serves; a `control.client.Runs`.

    Args:
        opened: a channel to it.
    """

    def __init__(self, opened: grpc.Channel) -> None:
        self._stub = SentryStub(opened)  # type: ignore[no-untyped-call]  # generated

    def ask(self, run: str, request: Fields) -> Fields:
        """As `Runs.ask`."""
        answer: Fields = _translated(_REQUESTS[str(request["do"])], self._stub, run, request)
        return answer

    def everywhere(self, request: Fields) -> Iterator[Fields]:
        """As `Runs.everywhere`."""
        yield from _translated(_EVERYWHERE[str(request["do"])], self._stub)


def _translated(call: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return call(*arguments)
    except grpc.RpcError as error:
        kind = Unreachable if error.code() is grpc.StatusCode.NOT_FOUND else SentryError
        raise kind(error.details() or str(error.code())) from error


def _apply(stub: SentryStub, run: str, request: Any) -> Fields:
    asked = pb.ApplyRequest(run=run, bundle=request["bundle"].encode(), dry_run=request["dry_run"])
    return _change(stub.Apply(asked, timeout=_PATIENCE))


def _grant(stub: SentryStub, run: str, request: Any) -> Fields:
    asked = pb.GrantRequest(run=run, rules=request["rules"], seconds=request["seconds"])
    return _change(stub.Grant(asked, timeout=_PATIENCE))


def _revoke(stub: SentryStub, run: str, request: Any) -> Fields:
    return _change(stub.Revoke(pb.RevokeRequest(run=run, grant=request["grant"]), timeout=_PATIENCE))


def _freeze(stub: SentryStub, run: str, request: Any) -> Fields:
    return _change(stub.Freeze(pb.FreezeRequest(run=run), timeout=_PATIENCE))


def _kill(stub: SentryStub, run: str, request: Any) -> Fields:
    stub.Kill(pb.KillRequest(run=run), timeout=_PATIENCE)
    return {"killed": True}


def _about(stub: SentryStub, run: str, request: Any) -> Fields:
    return _run(stub.Get(pb.GetRequest(run=run), timeout=_PATIENCE))


def _answer(stub: SentryStub, run: str, request: Any) -> Fields:
    choice = _CHOICES[request["choice"]]
    asked = pb.AnswerApprovalRequest(
        run=run, number=request["question"], choice=choice, digest=request.get("digest", "")
    )
    return _question(stub.AnswerApproval(asked, timeout=_PATIENCE))


def _runs(stub: SentryStub) -> list[Fields]:
    return [_run(run) for run in stub.List(pb.ListRequest(), timeout=_PATIENCE).runs]


def _questions(stub: SentryStub) -> list[Fields]:
    return [_question(each) for each in stub.ListApprovals(pb.ListApprovalsRequest(), timeout=_PATIENCE).questions]


_REQUESTS: Mapping[str, Callable[[SentryStub, str, Any], Fields]] = {
    "about": _about,
    "apply": _apply,
    "grant": _grant,
    "revoke": _revoke,
    "freeze": _freeze,
    "kill": _kill,
    "answer": _answer,
}
_EVERYWHERE: Mapping[str, Callable[[SentryStub], list[Fields]]] = {"about": _runs, "questions": _questions}


def _change(change: pb.Change) -> Fields:
    answer: Fields = {"epoch": change.epoch, "digest": change.digest, "notes": list(change.notes)}
    answer |= {"dry_run": True} if change.dry_run else {"microseconds": change.microseconds}
    return answer | ({"grant": change.grant} if change.grant else {})


def _run(run: pb.Run) -> Fields:
    policy: Fields = {"policy": json.loads(run.policy)} if run.policy else {}
    return policy | {
        "run": run.id,
        "parent": run.parent,
        "epoch": run.epoch,
        "frozen": run.frozen,
        "grants": list(run.grants),
        "name": run.policy_name,
        "role": run.role,
        "supervisor": run.supervisor,
        "agent": run.agent,
        "waiting": run.waiting,
        "decisions": dict(run.decisions),
        "variables": dict(run.variables),
    }


def _question(question: pb.Question) -> Fields:
    return {
        "run": question.run,
        "question": question.number,
        "tid": question.tid,
        "program": question.program,
        "syscall": question.syscall,
        "rule": question.rule,
        "operations": list(question.operations),
        "digest": question.digest,
        "left": question.seconds_left,
        "lines": list(question.lines),
    }


def _contents(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
