"""The service of `sentry.proto`: each request is passed on to the run it is about, in the name of the one who asks.

What is decided here is only who may ask (`callers.py`). The run's own control socket does what there is to do, and its
log names both the caller and the daemon.
"""

import functools
import json
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import grpc

from helm_sentry import state
from helm_sentry.audit.canonical import Fields
from helm_sentry.audit.follow import records
from helm_sentry.control.client import ONE_OF_MANY, Silent, Unreachable, ask, live_runs, presence
from helm_sentry.control.endpoint import MOST_BYTES
from helm_sentry.errors import SentryError, UsageError, VerificationError
from helm_sentry.rpc import sentry_pb2 as pb
from helm_sentry.rpc.callers import Act, Caller, Callers, NotAllowed
from helm_sentry.rpc.sentry_pb2_grpc import SentryServicer

MOST_WATCHERS = 32
"""Streams at once, so that they leave threads to those who act."""

_CHOICES = {pb.ONCE: "once", pb.FOR_RUN: "run", pb.ALWAYS: "always", pb.DENY: "deny"}

_Method = TypeVar("_Method", bound=Callable[..., Any])


def _reported(method: _Method) -> _Method:
    """Make the project's own errors those of gRPC."""

    @functools.wraps(method)
    def wrapped(self: "Sentry", request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return method(self, request, context)
        except SentryError as error:
            context.abort(_code(error), str(error))

    return wrapped  # type: ignore[return-value]


def _code(error: SentryError) -> grpc.StatusCode:
    if isinstance(error, Silent):
        return grpc.StatusCode.UNAVAILABLE
    if isinstance(error, Unreachable):
        return grpc.StatusCode.NOT_FOUND
    if isinstance(error, NotAllowed):
        return grpc.StatusCode.PERMISSION_DENIED
    return grpc.StatusCode.FAILED_PRECONDITION


class Streams:
    """Counts the streams of a server."""

    def __init__(self) -> None:
        self._places = threading.BoundedSemaphore(MOST_WATCHERS)

    def begin(self, context: grpc.ServicerContext) -> None:
        """Take a place until the call ends, or end it."""
        if not self._places.acquire(blocking=False):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{MOST_WATCHERS} streams are open already")
        if not context.add_callback(self._places.release):
            self._places.release()


class Sentry(SentryServicer):
    """Serves the runs of this machine's state directory.

    Args:
        caller: tells who makes a call.
        callers: returns the list that says who may do what, as it is now.
        streams: counts those of the server.
    """

    def __init__(
        self, caller: Callable[[grpc.ServicerContext], Caller], callers: Callable[[], Callers], streams: Streams
    ) -> None:
        self._caller, self._callers, self._streams = caller, callers, streams
        self._runs = state.control_directory()

    @_reported
    def List(self, request: pb.ListRequest, context: grpc.ServicerContext) -> pb.ListReply:
        """Return the runs that go on."""
        return pb.ListReply(runs=[_run(about) for about in self._visible(context)])

    @_reported
    def Get(self, request: pb.GetRequest, context: grpc.ServicerContext) -> pb.Run:
        """Return a run and its policy."""
        self._permit(context, Act.WATCH, request.run)
        about = self._one(request.run, {"do": "about"}, context)
        return _run(about | self._one(request.run, {"do": "policy"}, context))

    @_reported
    def Watch(self, request: pb.WatchRequest, context: grpc.ServicerContext) -> Iterator[pb.Record]:
        """Return the records of a run as they are written."""
        self._permit(context, Act.WATCH, request.run)
        directory = os.path.join(state.runs_directory(), _id(request.run))
        if not os.path.isdir(directory):
            raise Unreachable(f"there is no run `{request.run}`")
        self._streams.begin(context)
        return self._watched(directory, request, context)

    def _watched(self, directory: str, request: pb.WatchRequest, context: grpc.ServicerContext) -> Iterator[pb.Record]:
        verdicts, types = set(request.verdicts), set(request.types) or {"decision"}
        try:
            with presence(self._runs, request.run) as goes_on:
                asked = records(
                    directory, from_start=request.from_start, goes_on=lambda: context.is_active() and goes_on()
                )
                for text, fields in asked:
                    if fields["type"] in types and (not verdicts or fields.get("verdict") in verdicts):
                        yield _record(text, fields)
        except (VerificationError, ValueError) as error:
            context.abort(grpc.StatusCode.DATA_LOSS, f"the log is damaged, see `helm-sentry verify`: {error}")

    @_reported
    def Apply(self, request: pb.ApplyRequest, context: grpc.ServicerContext) -> pb.Change:
        """Put a run under another policy."""
        asked: Fields = {"do": "apply", "bundle": request.bundle.decode("utf-8", "replace"), "dry_run": request.dry_run}
        if len(json.dumps(asked)) > MOST_BYTES // 2:  # the run is to say so itself, and to record it
            asked = {"do": "apply", "too_long": len(request.bundle)}
        return self._change(request, context, Act.PUSH, asked)

    @_reported
    def Grant(self, request: pb.GrantRequest, context: grpc.ServicerContext) -> pb.Change:
        """Add allow rules for a while."""
        asked: Fields = {"do": "grant", "rules": request.rules, "seconds": request.seconds}
        return self._change(request, context, Act.GRANT, asked)

    @_reported
    def Revoke(self, request: pb.RevokeRequest, context: grpc.ServicerContext) -> pb.Change:
        """Take a grant back."""
        return self._change(request, context, Act.GRANT, {"do": "revoke", "grant": request.grant})

    @_reported
    def Freeze(self, request: pb.FreezeRequest, context: grpc.ServicerContext) -> pb.Change:
        """Allow nothing more."""
        return self._change(request, context, Act.FREEZE, {"do": "freeze"})

    @_reported
    def Kill(self, request: pb.KillRequest, context: grpc.ServicerContext) -> pb.KillReply:
        """End a run."""
        self._permit(context, Act.KILL, request.run)
        self._one(request.run, {"do": "kill"}, context)
        return pb.KillReply()

    @_reported
    def ListApprovals(self, request: pb.ListApprovalsRequest, context: grpc.ServicerContext) -> pb.ListApprovalsReply:
        """Return the calls that wait for a person."""
        if request.run:
            self._permit(context, Act.WATCH, request.run)
        runs = [request.run] if request.run else [str(about["run"]) for about in self._visible(context)]
        return pb.ListApprovalsReply(questions=map(_question, self._everywhere({"do": "questions"}, runs)))

    @_reported
    def AnswerApproval(self, request: pb.AnswerApprovalRequest, context: grpc.ServicerContext) -> pb.Question:
        """Answer one of them."""
        if request.choice not in _CHOICES:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "an answer has a choice")
        self._permit(context, Act.APPROVE, request.run, request.number)
        answer: Fields = {"do": "answer", "question": request.number, "choice": _CHOICES[request.choice]}
        return _question(self._one(request.run, answer | {"digest": request.digest}, context) | {"run": request.run})

    def _permit(self, context: grpc.ServicerContext, act: Act, run: str, question: int = 0) -> None:
        """Require that the caller may do something to a run; whoever may not do everything, to one that goes on.

        Raises:
            NotAllowed: it may not.
        """
        caller, callers = self._caller(context), self._callers()
        if callers.trusts(caller):
            return
        role = str(self._one(run, {"do": "about"}, context)["role"])
        of = f"of role `{role}`" if role else "without a role"
        if not callers.allows(caller, act, role):
            raise NotAllowed(f"`{caller.fields['name']}` may not {act} an agent {of}")
        if question and not callers.allows(caller, act, role, rule := self._rule(run, question)):
            raise NotAllowed(f"`{caller.fields['name']}` may not answer rule `{rule}` of an agent {of}")

    def _rule(self, run: str, question: int) -> str:
        """Return the rule that asks a question; its number is never used twice.

        Raises:
            UsageError: it does not wait; the answer must not be passed on, or it might be to one that is asked then.
        """
        for each in ask(self._runs, _id(run), {"do": "questions"}):
            if each["question"] == question:
                return str(each["rule"])
        raise UsageError(f"no question {question} waits")

    def _visible(self, context: grpc.ServicerContext) -> Iterator[Fields]:
        caller = self._caller(context)
        for about in self._everywhere({"do": "about"}, live_runs(self._runs)):
            if self._callers().allows(caller, Act.WATCH, str(about["role"])):
                yield about

    def _change(self, request: Any, context: grpc.ServicerContext, act: Act, asked: Fields) -> pb.Change:
        self._permit(context, act, request.run)
        answer: Any = self._one(request.run, asked, context)
        known = set(pb.Change.DESCRIPTOR.fields_by_name)
        return pb.Change(**{name: value for name, value in answer.items() if name in known})

    def _one(self, run: str, request: Fields, context: grpc.ServicerContext) -> Fields:
        answers = list(ask(self._runs, _id(run), request | {"for": self._caller(context).fields}))
        return answers[0]

    def _everywhere(self, request: Fields, runs: list[str]) -> Iterator[Fields]:
        for run in runs:
            try:
                yield from [answer | {"run": run} for answer in ask(self._runs, run, request, patience=ONE_OF_MANY)]
            except Unreachable:
                continue  # it has just ended, or was killed


def _id(run: str) -> str:
    if not state.is_run_id(run):
        raise UsageError(f"`{run}` is no id of a run")
    return run


def _run(about: Any) -> pb.Run:
    return pb.Run(
        id=about["run"],
        parent=about.get("parent", ""),
        epoch=about["epoch"],
        frozen=about["frozen"],
        grants=about["grants"],
        policy_name=about["name"],
        policy=json.dumps(about["policy"]) if "policy" in about else "",
        supervisor=about["supervisor"],
        agent=about["agent"],
        waiting=about["waiting"],
        decisions=about["decisions"],
        role=about["role"],
        variables=about["variables"],
    )


def _record(text: bytes, fields: Any) -> pb.Record:
    return pb.Record(
        seq=fields["seq"],
        time=fields["time"],
        type=fields["type"],
        verdict=fields.get("verdict", ""),
        rule=fields.get("rule", ""),
        syscall=fields.get("syscall", ""),
        operations=fields.get("ops", ()),
        target=fields.get("target", ""),
        policy_epoch=fields.get("epoch", 0),
        json=text.decode(),
    )


def _question(fields: Any) -> pb.Question:
    return pb.Question(
        run=fields["run"],
        number=fields["question"],
        tid=fields["tid"],
        program=fields["program"],
        syscall=fields["syscall"],
        rule=fields["rule"],
        operations=fields["operations"],
        digest=fields["digest"],
        seconds_left=fields["left"],
        lines=fields["lines"],
    )
