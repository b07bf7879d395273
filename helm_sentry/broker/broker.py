"""The broker: every notified syscall, from the listener to its answer.

Nothing is answered before its record is written. Whatever goes wrong on the way ends in a refusal and a record.
"""

import errno
import os
import threading
import traceback
from collections.abc import Callable, Mapping

from helm_sentry.abi import libc, syscalls
from helm_sentry.abi.arch import Arch
from helm_sentry.abi.syscalls import Row, Treatment
from helm_sentry.audit import record as records
from helm_sentry.audit.log import AuditLog
from helm_sentry.broker import exec as programs
from helm_sentry.broker import files, metadata, process, send, sockets, stat, tree
from helm_sentry.broker.action import Action, Answered, Continue, Errno, Inject, Later, Value
from helm_sentry.broker.call import Call, Refused
from helm_sentry.broker.memory import Gone, Memory, Unreadable
from helm_sentry.broker.names import Names
from helm_sentry.broker.paths import Resolver
from helm_sentry.broker.ports import OwnPorts
from helm_sentry.broker.workers import Workers
from helm_sentry.confine.credentials import Identity, assume_in_thread
from helm_sentry.decision import Decision, Reason, Verdict
from helm_sentry.decode import address as addresses
from helm_sentry.errors import AuditError
from helm_sentry.intercept.notify import Listener, Notification
from helm_sentry.intercept.process_tree import thread_group
from helm_sentry.operation import Kind, Operation
from helm_sentry.policy.engine import CompiledPolicy, Context, decide

Handler = Callable[[Call], Action | Later]
HANDLERS: Mapping[str, Handler] = {
    **files.HANDLERS,
    **stat.HANDLERS,
    **tree.HANDLERS,
    **metadata.HANDLERS,
    **programs.HANDLERS,
    **process.HANDLERS,
    **sockets.HANDLERS,
    **send.HANDLERS,
}
"""What is done for each row of the syscall table that says `mediate`."""

_UNREADABLE = Decision(Verdict.DENY, Reason.UNREADABLE)
_FAILED = Decision(Verdict.DENY, Reason.SUPERVISOR_ERROR)
_FOREIGN = Decision(Verdict.DENY, Reason.FOREIGN_ABI)
_UNKNOWN = Decision(Verdict.DENY, Reason.UNKNOWN_SYSCALL)
_PIDFD_THREAD = os.O_EXCL  # <linux/pidfd.h>, Linux 6.9


class Broker:
    """Serves one run's notifications.

    Attributes:
        listener: where they arrive.
        resolver: resolves the agent's paths.
        memory: reads the agent's memory.
        workers: threads for what may wait.
        names: what host names in rules mean.
        own_ports: ports the run itself listens on.
        unix_names: names of brokered Unix sockets as the agent wrote them.
        signal_scope: the kernel keeps the agent's signals inside its Landlock domain.
    """

    def __init__(
        self,
        *,
        arch: Arch,
        policy: CompiledPolicy,
        context: Context,
        listener: Listener,
        resolver: Resolver,
        names: Names,
        log: AuditLog,
        identity: Identity,
        signal_scope: bool,
        on_denial: Callable[[Operation, Decision, bool], None],
        on_failure: Callable[[Exception], None],
    ) -> None:
        self.listener, self.resolver, self.names = listener, resolver, names
        self.memory, self.workers, self.own_ports = Memory(), Workers(identity), OwnPorts()
        self.unix_names: dict[bytes, bytes] = {}
        self.signal_scope = signal_scope
        self._arch, self._table = arch, syscalls.table(arch)
        self._policy, self._context, self._log, self._identity = policy, context, log, identity
        self._on_denial, self._on_failure = on_denial, on_failure

    def start(self) -> None:
        """Begin to serve, on a thread that acts with the agent's identity."""
        threading.Thread(target=self._serve, name="receiver", daemon=True).start()

    def decide(self, operations: tuple[Operation, ...]) -> Decision:
        """Return the first decision that is not ALLOW, or the first one."""
        first: Decision | None = None
        for operation in operations:
            decision = decide(self._policy, operation, self._context)
            if not decision.allowed:
                return decision
            first = first or decision
        return first or _FAILED

    def duplicate(self, call: Call, number: int) -> int:
        """Return a duplicate of one of the agent's descriptors, closed at the end of the call.

        Raises:
            OSError: EBADF.
        """
        try:
            # The thread itself, where the kernel can name one: it may not share its process's descriptors.
            pidfd = call.hold(os.pidfd_open(call.tid, _PIDFD_THREAD))
        except OSError:
            pidfd = call.hold(os.pidfd_open(thread_group(call.tid)))
        try:
            return call.hold(libc.pidfd_getfd(pidfd, number))
        except PermissionError:
            raise Unreadable from None

    def internet_operation(self, kind: Kind, address: str, port: int, protocol: str) -> Operation:
        """Return the operation for traffic to an address, with what is known about it."""
        target = addresses.destination(address)
        return Operation(
            kind,
            address=target,
            port=port,
            protocol=protocol,
            hosts=self.names.of(target),
            own=self.own_ports.holds(target, port, protocol),
        )

    def record(self, call: Call, action: records.ActionName, code: int = 0, detail: str = "") -> None:
        """Write the record of a call's decision.

        Raises:
            AuditError: it could not be written.
        """
        assert call.decision is not None
        fields = records.decision(
            call.tid,
            call.row.name,
            call.operations,
            call.decision,
            action,
            errno=errno.errorcode.get(code, str(code)) if code else "",
            object=call.object,
            detail=detail,
        )
        call.sequence = self._log.append(fields)
        if not call.decision.allowed:
            self._tell(call)

    def executed(self, pid: int, path: str, identity: str) -> None:
        """Write the record of a verified exec."""
        self._log.append(records.executed(pid, path, identity))

    def killed(self, call: Call, decision: Decision, detail: str) -> None:
        """Write the record of a process that was killed because verification failed."""
        call.decision = decision
        self.record(call, "kill", detail=detail)

    def _tell(self, call: Call) -> None:
        """Report a denial to whoever is watching; the operation is the one the decision is about."""
        assert call.decision is not None
        denied = next(
            (
                operation
                for operation in call.operations
                if decide(self._policy, operation, self._context) == call.decision
            ),
            call.operations[0] if call.operations else Operation(Kind.KERNEL_UNKNOWN, name=call.row.name),
        )
        self._on_denial(denied, call.decision, _exists(denied))

    def _serve(self) -> None:
        try:
            assume_in_thread(self._identity)
            while True:
                notification = self.listener.receive()
                if notification is not None:
                    self._handle(notification)
        except (
            Exception
        ) as error:  # the receiver cannot go on: the run ends, and nothing is answered any more
            self._on_failure(error)

    def _handle(self, notification: Notification) -> None:
        call = Call(self, notification, self._row(notification))
        action = self._act(call, lambda: self._dispatch(call, notification))
        if isinstance(action, Later):
            work = action.work
            if self.workers.submit(lambda: self._finish(call, self._act(call, work))):
                return
            action = Errno(errno.EAGAIN)
        self._finish(call, action)

    def _row(self, notification: Notification) -> Row:
        """Return the row of a syscall, or one made up for a call that is in no table."""
        foreign = notification.arch != self._arch.audit_arch
        row = None if foreign else self._table.get(notification.nr)
        if row is not None:
            return row
        crossed = foreign or (self._arch.foreign_bit and notification.nr & self._arch.foreign_bit > 0)
        name = f"{'foreign' if crossed else 'unknown'}-{notification.nr}"
        kind = Kind.KERNEL_ABI if crossed else Kind.KERNEL_UNKNOWN
        code = errno.EPERM if crossed else errno.ENOSYS
        return Row(name, "other", kind, (), Treatment.DENY, (), code, "", {})

    def _dispatch(self, call: Call, notification: Notification) -> Action | Later:
        row = call.row
        if row.treatment is Treatment.MEDIATE:
            return HANDLERS[row.name](call)
        kind = row.operation or Kind.KERNEL_UNKNOWN
        operation = Operation(kind, name=row.name)
        if kind is Kind.KERNEL_ABI:
            call.judge_builtin(_FOREIGN, operation, refusal=row.errno)
        if not row.numbers:
            call.judge_builtin(_UNKNOWN, operation, refusal=row.errno)
        # A policy that names the kind grants it whole, whatever the arguments: there is nothing to race for.
        call.judge(operation, refusal=row.errno)
        return Continue()

    def _act(self, call: Call, work: Callable[[], Action | Later]) -> Action | Later:
        """Run a handler; every way it can fail is an errno for the agent."""
        try:
            return work()
        except Refused as refusal:
            return Errno(refusal.code)
        except Gone:
            return Answered()
        except Unreadable:
            return self._refuse(call, _UNREADABLE)
        except AuditError as error:
            return self._give_up(error)
        except OSError as error:
            return Errno(error.errno or errno.EIO)
        except Exception as error:  # fail closed: an error of ours is a refusal, and is recorded
            return self._refuse(call, _FAILED, "".join(traceback.format_exception_only(error)).strip())

    def _refuse(self, call: Call, decision: Decision, detail: str = "") -> Action:
        call.decision = decision
        if not call.operations:
            call.operations = (Operation(call.row.operation or Kind.KERNEL_UNKNOWN, name=call.row.name),)
        try:
            self.record(call, "errno", errno.EPERM, detail)
        except AuditError as error:
            return self._give_up(error)
        return Errno(errno.EPERM)

    def _give_up(self, error: AuditError) -> Action:
        self._on_failure(error)
        return Errno(errno.EPERM)

    def _finish(self, call: Call, action: Action | Later) -> None:
        """Record what is not recorded yet, then answer."""
        try:
            self._complete(call, action)
            self._answer(call, action)
        except AuditError as error:
            self.listener.send_errno(call.id, errno.EPERM)
            self._on_failure(error)
        except OSError as error:
            self._answer_failed(call, error.errno or errno.EIO)
        finally:
            call.release()

    def _complete(self, call: Call, action: Action | Later) -> None:
        code = action.code if isinstance(action, Errno) else 0
        if call.sequence >= 0:
            if code and call.decision is not None and call.decision.allowed:
                self._log.append(records.outcome(call.sequence, errno.errorcode.get(code, str(code))))
        elif call.decision is not None:
            self.record(call, _word(action), code)
        elif code not in (0, errno.ENOSYS):
            detail = f"{call.row.name}: {errno.errorcode.get(code, str(code))}"
            self._log.append(records.notice("bad-arguments", detail))

    def _answer(self, call: Call, action: Action | Later) -> None:
        match action:
            case Value(number):
                self.listener.send_value(call.id, number)
            case Errno(code):
                self.listener.send_errno(call.id, code)
            case Inject(descriptor, close_on_exec):
                self.listener.inject(call.id, descriptor, close_on_exec)
            case Continue():
                self._continue(call)
            case Answered() | Later():
                pass

    def _continue(self, call: Call) -> None:
        """Let the kernel go on with a call, if the table says why that is safe or the policy grants the whole kind."""
        if call.row.continue_reason or call.row.treatment is Treatment.DENY:
            self.listener.send_continue(call.id)
        else:
            self.listener.send_errno(call.id, errno.EPERM)

    def _answer_failed(self, call: Call, code: int) -> None:
        """The answer itself failed, as when the agent's descriptor table is full: that is the call's error."""
        try:
            self._log.append(records.outcome(max(call.sequence, 0), errno.errorcode.get(code, str(code))))
        except AuditError as error:
            self._on_failure(error)
        self.listener.send_errno(call.id, code)


def _word(action: Action | Later) -> records.ActionName:
    match action:
        case Value():
            return "value"
        case Errno():
            return "errno"
        case Inject():
            return "fd"
        case Continue():
            return "continue"
        case Answered(killed=True):
            return "kill"
        case _:
            return "none"


def _exists(operation: Operation) -> bool:
    return not operation.path or os.path.lexists(operation.path)
