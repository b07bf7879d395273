"""What a run does for those who connect to its control socket."""

import os
import time
from collections.abc import Callable, Iterator

from helm_sentry.audit import record
from helm_sentry.audit.canonical import Fields
from helm_sentry.control.approvals import Approvals
from helm_sentry.control.endpoint import Service
from helm_sentry.control.live import LivePolicy
from helm_sentry.control.peer import Peer
from helm_sentry.control.question import Approver, Choice, Question
from helm_sentry.errors import UsageError


def approval_services(approvals: Approvals) -> dict[str, Service]:
    """Return what serves questions: `questions` and `answer`."""

    def questions(_: Peer, request: Fields) -> Iterator[Fields]:
        for question in approvals.waiting():
            yield described(question)

    def answer(peer: Peer, request: Fields) -> Iterator[Fields]:
        number, choice = request.get("question"), request.get("choice")
        if not isinstance(number, int) or choice not in set(Choice):
            raise UsageError("an answer names a question by number and one of once, run, always, deny")
        yield described(approvals.answer(number, Choice(str(choice)), _approver(peer), str(request.get("digest", ""))))

    return {"questions": questions, "answer": answer}


def policy_services(live: LivePolicy) -> dict[str, Service]:
    """Return what serves the live policy: `policy`, `apply`, `grant`, `revoke` and `freeze`."""

    def policy(_: Peer, request: Fields) -> Iterator[Fields]:
        yield live.describe()

    def apply(peer: Peer, request: Fields) -> Iterator[Fields]:
        if "too_long" in request:
            live.refuse(f"the policy bundle is not accepted: {request['too_long']} bytes are too many", _by(peer))
        bundle = _text(request, "bundle").encode("utf-8", "replace")
        yield live.apply(bundle, _by(peer), dry_run=request.get("dry_run") is True)

    def grant(peer: Peer, request: Fields) -> Iterator[Fields]:
        seconds = request.get("seconds")
        if not isinstance(seconds, int | float):
            raise UsageError("`seconds` is a number")
        yield live.grant(_text(request, "rules"), seconds, _by(peer))

    def revoke(peer: Peer, request: Fields) -> Iterator[Fields]:
        yield live.revoke(_text(request, "grant"), _by(peer))

    def freeze(peer: Peer, request: Fields) -> Iterator[Fields]:
        yield live.freeze(_by(peer))

    def under(peer: Peer, request: Fields) -> Iterator[Fields]:
        texts = request.get("policies")
        if peer.pid != os.getppid() or not isinstance(texts, list):
            raise UsageError("only the run above says what this one is under")
        yield live.put_under([str(text) for text in texts], _by(peer))

    changing: dict[str, Service] = {"apply": apply, "grant": grant, "revoke": revoke, "freeze": freeze}
    return changing | {"policy": policy, "under": under}


def run_services(
    kill: Callable[[], None], append: Callable[[Fields], int], about: Callable[[], Fields]
) -> dict[str, Service]:
    """Return what serves the run itself: `about` and `kill`."""

    def end(peer: Peer, request: Fields) -> Iterator[Fields]:
        append(record.notice("killed", f"the run was ended by {_by(peer)}"))
        kill()
        yield {"killed": True}

    def tell(_: Peer, request: Fields) -> Iterator[Fields]:
        yield about()

    return {"about": tell, "kill": end}


def _approver(peer: Peer) -> Approver:
    return Approver(peer.uid, peer.name, peer.pid, peer.way)


def _by(peer: Peer) -> str:
    return str(_approver(peer))


def _text(request: Fields, name: str) -> str:
    if not isinstance(value := request.get(name), str):
        raise UsageError(f"`{name}` is missing or not text")
    return value


def described(question: Question) -> Fields:
    """Return a question as plain data."""
    return {
        "question": question.number,
        "tid": question.tid,
        "program": question.program.encode("utf-8", "backslashreplace").decode(),
        "syscall": question.syscall,
        "rule": question.rule,
        "operations": [str(operation.kind) for operation in question.operations],
        "digest": question.digest,
        "left": max(0, int(question.expires - time.monotonic())),
        "lines": list(question.lines()),
    }
