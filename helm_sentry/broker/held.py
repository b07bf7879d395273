"""Calls that wait for a person: parked without a thread, and begun anew when they are approved.

What is done after an approval is the whole call again, from its arguments, which are copied and hashed once more: an
approval counts only for the very operations that were asked about, with the same hash.
"""

import errno
import os
import signal
from typing import TYPE_CHECKING

from helm_sentry.audit import record
from helm_sentry.broker.action import Action, Answered, Errno, errno_name
from helm_sentry.broker.call import Call, Held
from helm_sentry.broker.workers import interruption
from helm_sentry.control.question import Question
from helm_sentry.decision import Decision, Reason, Verdict

if TYPE_CHECKING:  # the broker parks the calls; this direction is for types alone
    from helm_sentry.broker.broker import Broker

_GONE = -1
_STOP = 1 << (signal.SIGSTOP - 1)  # sent while a terminal asks; it takes effect when the call has ended
_NO_THREAD = Decision(Verdict.DENY, Reason.SUPERVISOR_ERROR, detail="no thread can be had")


def park(broker: "Broker", call: Call, held: Held) -> Action:
    """Record that a call waits, put the question, and leave the call unanswered."""
    if broker.approvals is None:
        return Errno(held.code)
    broker.record(call, "none")
    broker.approvals.ask(
        Question(
            tid=call.tid,
            program=_program(call.tid),
            syscall=call.row.name,
            asked=tuple(call.asked),
            about=call.about,
            digest=call.digest(),
            sequence=call.sequence,
            resume=lambda decision: _resume(broker, call, held.code, decision),
            state=lambda: interruption(call.tid, _STOP) if broker.listener.alive(call.id) else _GONE,
            interrupt=lambda code: _interrupt(broker, call, code),
        )
    )
    return Answered()


def _resume(broker: "Broker", call: Call, refusal: int, decision: Decision) -> None:
    """Begin an approved call anew, on a thread with the agent's identity; refuse one that was not approved."""
    again = Call(broker, call.notification, call.row, hashed=True)
    again.answers = {**call.answers} | {operation: call.digest() for operation, _ in call.asked}
    again.resumed = True
    if decision.allowed:
        if broker.workers.submit(lambda: broker.complete(again)):
            return
        decision, refusal = _NO_THREAD, errno.EAGAIN
    again.operations, again.object, again.decision = call.operations, call.object, decision
    broker.finish(again, Errno(refusal))


def _interrupt(broker: "Broker", call: Call, code: int) -> None:
    if code != _GONE:
        broker.fail_answer(call.id, record.outcome(call.sequence, errno_name(code)), code)


def _program(tid: int) -> str:
    try:
        return os.readlink(f"/proc/{tid}/exe")
    except OSError:
        return ""
