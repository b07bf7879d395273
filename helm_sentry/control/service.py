"""What a run does for those who connect to its control socket."""

import time
from collections.abc import Iterator

from helm_sentry.audit.canonical import Fields
from helm_sentry.control.approvals import Approvals
from helm_sentry.control.endpoint import Peer, Service
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
        way = "grpc" if request.get("way") == "grpc" else "command"
        yield described(approvals.answer(number, Choice(str(choice)), Approver(peer.uid, peer.name, peer.pid, way)))

    return {"questions": questions, "answer": answer}


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
