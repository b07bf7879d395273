"""The broker: every notified syscall, from the listener to its answer.

Nothing is answered before its record is written. Whatever goes wrong on the way ends in a refusal and a record.
"""

import contextlib
import errno
import os
import stat as stat_bits
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence

from helm_sentry.abi import libc, syscalls
from helm_sentry.abi.arch import Arch
from helm_sentry.abi.syscalls import Row, Treatment
from helm_sentry.audit import record as records
from helm_sentry.audit.canonical import Fields
from helm_sentry.audit.line import Template, decision_line, template
from helm_sentry.audit.log import AuditLog
from helm_sentry.audit.record import ActionName
from helm_sentry.broker import beneath, files, metadata, process, send, sockets, stat, tree
from helm_sentry.broker import exec as programs
from helm_sentry.broker.action import Action, Answered, Continue, Errno, Later, errno_name
from helm_sentry.broker.call import Call, Held, Refused
from helm_sentry.broker.circumstances import Circumstances
from helm_sentry.broker.connects import Connects, take_over
from helm_sentry.broker.entries import Entries
from helm_sentry.broker.held import park
from helm_sentry.broker.memory import Gone, Memory, Unreadable
from helm_sentry.broker.names import Names
from helm_sentry.broker.paths import Resolver
from helm_sentry.broker.ports import OwnPorts
from helm_sentry.broker.rules import Rules
from helm_sentry.broker.tally import Tally
from helm_sentry.broker.traffic import Traffic
from helm_sentry.broker.workers import INTERRUPT, Workers
from helm_sentry.confine.credentials import Identity, assume_in_thread
from helm_sentry.control.approvals import Approvals
from helm_sentry.decision import Decision, Reason, Verdict
from helm_sentry.decode import address as addresses
from helm_sentry.errors import AuditError
from helm_sentry.intercept.interceptor import Interceptor, Notification, Unserved
from helm_sentry.intercept.process_tree import ancestors
from helm_sentry.native.library import Counts, Receiver
from helm_sentry.operation import Kind, Operation
from helm_sentry.policy.dry_run import performed
from helm_sentry.policy.engine import CompiledPolicy

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

_ALLOW = Verdict.ALLOW
_LOOKS = frozenset({Kind.FILE_READ, Kind.FILE_LIST, Kind.FILE_STAT})  # change nothing
_LAST_WORD = 0.5  # seconds for the kernel to tell that a connection has ended
_REPEATED_TYPES = (stat_bits.S_IFREG, stat_bits.S_IFDIR, stat_bits.S_IFLNK)
_UNREADABLE = Decision(Verdict.DENY, Reason.UNREADABLE)
_FAILED = Decision(Verdict.DENY, Reason.SUPERVISOR_ERROR)
_FOREIGN = Decision(Verdict.DENY, Reason.FOREIGN_ABI)
_UNKNOWN = Decision(Verdict.DENY, Reason.UNKNOWN_SYSCALL)


class Broker:
    """Serves one run's notifications.

    Attributes:
        listener: where they arrive.
        resolver: resolves the agent's paths.
        memory: reads the agent's memory.
        workers: threads for what may wait.
        connects: what the compiled receiver repeats of connects.
        brief: connects here what nearly never waits, None without the compiled receiver.
        names: what host names in rules mean.
        own_ports: ports the run itself listens on.
        traffic: how many bytes left for which address.
        rules: what the run is under at present.
        entries: entered while entries of directories are looked at and changed.
        signal_scope: the kernel keeps the agent's signals inside its Landlock domain.
        enforcing: false in a dry run, which performs what the policy denies.
        durable: what changes something is carried out when its record is on the disk.
        tally: what has become of the calls that arrived.
        approvals: asks people; None where nobody can be asked, so that what needs approval is refused.
    """

    def __init__(
        self,
        *,
        arch: Arch,
        policy: CompiledPolicy,
        listener: Interceptor,
        resolver: Resolver,
        names: Names,
        log: AuditLog,
        identity: Identity,
        signal_scope: bool,
        enforcing: bool = True,
        durable: bool = False,
        on_denial: Callable[[Operation, Decision, bool], None],
        on_failure: Callable[[Exception], None],
        receiver: Receiver | None = None,
        approvals: Approvals | None = None,
    ) -> None:
        self.listener, self.resolver, self.names = listener, resolver, names
        self.memory, self.workers, self.own_ports = Memory(), Workers(identity), OwnPorts()
        self.brief = receiver.brief(INTERRUPT) if receiver else None
        self.signal_scope, self.enforcing, self.durable = signal_scope, enforcing, durable
        # A decision that depends on more than the object is taken each time.
        self._receiver = None if policy.guards else receiver
        self.entries = self._receiver.entries if self._receiver else Entries()
        self.connects = Connects(None if durable else self._receiver, names, self.own_ports, self._between_calls)
        self.traffic = Traffic(log.append, on_failure, self.connects.begun)
        self.rules = Rules.of(policy, self.traffic.total)
        self.tally, self.approvals = Tally(), approvals
        self._arch = arch
        self._turn = threading.Lock()  # held while a receiver handles a notification
        # A lock goes to whoever asks first, which under load is the receiver again: it waits here for a new policy.
        self._door, self._changing = threading.Lock(), False
        self._rows = syscalls.table(arch)
        self._log, self._identity = log, identity
        self._on_denial, self._on_failure = on_denial, on_failure

    def start(self) -> None:
        """Begin to serve, on threads that act with the agent's identity."""
        for at, source in enumerate(self._receiver.sources() if self._receiver else [self._calls()]):
            threading.Thread(target=self._serve, args=(source, at == 0), name="receiver", daemon=True).start()

    def arrived(self) -> Counts:
        """Return what has become of the calls that have arrived."""
        served, listener, tally = self._receiver.counts() if self._receiver else Counts(), self.listener, self.tally
        return Counts(
            listener.received + served.received,
            listener.continued + served.continued,
            tally.records + served.recorded,
            tally.without + served.unjudged,
        )

    def settle(self, seconds: float) -> None:
        """Wait, when every process of the agent has ended, until what was begun for them is finished and recorded."""
        self.workers.drain(seconds)
        if self._turn.acquire(timeout=seconds):
            self._turn.release()
        if self._receiver:
            self._receiver.settle()
        self.traffic.settle(_LAST_WORD)

    @property
    def circumstances(self) -> Circumstances:
        """What rules ask for besides the operation."""
        return self.rules.circumstances

    def swap(self, policy: CompiledPolicy, announce: Callable[[int], object]) -> int:
        """Put the run under another policy, between two decisions, and return its epoch.

        When this returns, no call of the agent is decided by the old one any more, nor is any old decision repeated.

        Args:
            policy: what holds from here on.
            announce: called with the epoch before it holds; nothing changes if that raises.

        Raises:
            ValueError: a rule asks for what has not been counted or followed since the run began.
        """
        self.names.extend(policy)
        with self._between_calls():
            rules = self.rules.succeeded_by(policy, self.rules.epoch + 1)
            announce(rules.epoch)
            self.rules = rules
            if self._receiver:
                self._receiver.forget(self.rules.epoch)
            return self.rules.epoch

    @contextlib.contextmanager
    def _between_calls(self) -> Iterator[None]:
        """Hold the receiver between two calls."""
        with self._door:
            self._changing = True
            try:
                with self._turn:
                    yield
            finally:
                self._changing = False

    def decide(self, operations: tuple[Operation, ...], tid: int) -> Decision:
        """Return the decision about all operations of one syscall; see `Rules.decide`."""
        return self.rules.decide(operations, tid)

    def permits(self, tid: int, *operations: Operation) -> bool:
        """Return whether all operations may be carried out: the policy allows them, or this is a dry run."""
        decisions = [(operation, self.decide((operation,), tid)) for operation in operations]
        if self.enforcing:
            return all(decision.verdict is _ALLOW for _, decision in decisions)
        return all(performed(*decided) for decided in decisions)

    def duplicate(self, call: Call, number: int) -> int:
        """Return a duplicate of one of the agent's descriptors, closed at the end of the call.

        Raises:
            OSError: EBADF.
        """
        try:
            return call.hold(libc.pidfd_getfd(call.process(), number))
        except PermissionError:
            raise Unreadable from None

    def internet_operation(self, kind: Kind, address: str, port: int, protocol: str, size: int) -> Operation:
        """Return the operation for traffic to an address, with what is known about it."""
        target = addresses.destination(address)
        return Operation(
            kind,
            address=target,
            port=port,
            protocol=protocol,
            hosts=self.names.of(target),
            own=self.own_ports.holds(target, port, protocol),
            size=size,
        )

    def record(self, call: Call, action: records.ActionName, code: int = 0, detail: str = "") -> None:
        """Write the record of a call's decision.

        Raises:
            AuditError: it could not be written.
        """
        decision = call.decision or _FAILED
        error = errno_name(code) if code else ""
        operations = call.operations
        detail = detail or decision.detail
        first = call.sequence < 0 and not call.resumed
        named = operations[0].hosts or operations[0].own
        if detail or named or operations[0].argv or self._log.degraded:
            call.sequence = self._log.append(
                records.decision(
                    call.tid,
                    call.row.name,
                    operations,
                    decision,
                    action,
                    errno=error,
                    object=call.object,
                    detail=detail,
                    epoch=call.epoch,
                )
            )
        else:
            line = decision_line(call.tid, call.row.name, operations, decision, action, error, call.object, call.epoch)
            call.sequence = self._log.append_decision(line, decision.verdict)
        if self.durable and not all(operation.kind in _LOOKS for operation in operations):
            self._log.sync()
        if first:
            self.tally.recorded()
        if decision.verdict is not _ALLOW and not (call.asked and decision.verdict is Verdict.ESCALATE):
            self._tell(call, decision)

    def repeat(self, call: Call, status: os.stat_result) -> None:
        """Let the compiled receiver, if there is one, take the same decision about the same object by itself.

        Args:
            call: an open for reading or a look that was allowed, of an object by its canonical path.
            status: of the object; names in /proc mean something else to each process and are not repeated.
        """
        kind = stat_bits.S_IFMT(status.st_mode)
        if status.st_dev in self.resolver.proc_devices or kind not in _REPEATED_TYPES:
            return
        action: ActionName = "value" if call.operations[0].kind is Kind.FILE_STAT else "fd"
        if receiver := self.teachable(call):
            path = call.operations[0].path
            receiver.learn(call.row.name, status, path, self._template(call, action), call.epoch)
            beneath.teach(self, receiver, call, status, action)

    def repeat_going_on(self, call: Call) -> None:
        """Let the compiled receiver, if there is one, leave the same call to the kernel again by itself.

        Args:
            call: one that was allowed, all of whose meaning lies in its first three arguments, each a C `int`.
        """
        if _may_continue(call.row) and (receiver := self.teachable(call)):
            arguments = call.int32(0), call.int32(1), call.int32(2)
            receiver.learn_to_go_on(call.row.name, arguments, self._template(call, Continue.word), call.epoch)

    def teachable(self, call: Call) -> Receiver | None:
        """Return the receiver, if it may take the decision about this call again by itself."""
        if self._log.degraded or not (call.decision and call.decision.allowed):
            return None
        return None if self.circumstances.concern(call.operations) else self._receiver

    def _template(self, call: Call, action: ActionName) -> Template:
        (operation,) = call.operations
        return template(call.row.name, operation, call.decision or _FAILED, call.epoch, action)

    def executed(self, pid: int, path: str, identity: str, argv: Sequence[str]) -> None:
        """Mark a process with its verified program and write the record, before the program's first instruction."""
        if self.circumstances.lineage:
            self.circumstances.lineage.entered(pid, path)
        self._log.append(records.executed(pid, path, identity, argv, ancestors(pid, self.resolver.guardian)))
        if self.durable:
            self._log.sync()
        self.tally.executed()

    def killed(self, call: Call, decision: Decision, detail: str) -> None:
        """Write the record of a process that was killed because verification failed."""
        call.decision = decision
        self.record(call, "kill", detail=detail)

    def _tell(self, call: Call, decision: Decision) -> None:
        """Report a denial to whoever is watching; the operation is the one the decision is about."""
        denied = next(
            (operation for operation in call.operations if self.decide((operation,), call.tid) == decision),
            call.operations[0],
        )
        self._on_denial(denied, decision, _exists(denied))

    def _serve(self, source: Iterator[Unserved | None], attach: bool) -> None:
        try:
            assume_in_thread(self._identity)
            if self.brief:
                self.brief.allow()
            if attach:
                self.listener.attach()
            for unserved in source:
                if unserved is not None:
                    if self._changing:
                        self._door.acquire()
                        self._door.release()
                    with self._turn:
                        self._take(unserved)
        except Exception as error:  # the receiver cannot go on: the run ends, and nothing is answered any more
            self._on_failure(error)

    def _calls(self) -> Iterator[Unserved | None]:
        while True:
            notification = self.listener.receive()
            yield None if notification is None else Unserved(notification)

    def _take(self, unserved: Unserved) -> None:
        notification, sequence, error, connecting = unserved
        if error:
            self.fail_answer(notification.id, records.outcome(sequence, errno_name(error)), error)
        elif connecting:
            self._handle(notification, lambda call: take_over(call, connecting, sequence))
        else:
            self._handle(notification)

    def _handle(self, notification: Notification, begun: Handler | None = None) -> None:
        row, handler = self._entry(notification)
        handler = begun or handler
        call = Call(self, notification, row, hashed=self.circumstances.escalates)
        call.epoch = self.rules.epoch
        action = self._act(call, handler)
        if action.__class__ is Later:
            work = action.work
            if self.workers.submit(lambda: self.finish(call, self._act(call, lambda call: work()))):
                return
            action = Errno(errno.EAGAIN)
        self.finish(call, action)

    def complete(self, call: Call) -> None:
        """Carry a call out from beginning to end on this thread."""
        with self._turn:  # as where it began: no policy changes on the way
            call.epoch = self.rules.epoch
            action = self._act(call, self._entry(call.notification)[1])
        if action.__class__ is Later:
            work = action.work
            action = self._act(call, lambda call: work())
        self.finish(call, action)

    def _entry(self, notification: Notification) -> tuple[Row, Handler]:
        row = self._rows.get(notification.nr) if notification.arch == self._arch.audit_arch else None
        if row is None:
            return self._stranger(notification), self._deny
        return row, HANDLERS[row.name] if row.treatment is Treatment.MEDIATE else self._deny

    def _stranger(self, notification: Notification) -> Row:
        """Return a row for a call that is in no table: another ABI's, or newer than this version."""
        foreign = notification.arch != self._arch.audit_arch
        crossed = foreign or (notification.nr > 0 and bool(notification.nr & self._arch.foreign_bit))
        name = f"{'foreign' if crossed else 'unknown'}-{notification.nr}"
        kind = Kind.KERNEL_ABI if crossed else Kind.KERNEL_UNKNOWN
        return Row(name, "other", kind, (), Treatment.DENY, (), errno.EPERM if crossed else errno.ENOSYS, "", {})

    def _deny(self, call: Call) -> Action:
        """Refuse a row that says `deny`, or one of no table; a policy may name a known row's kind."""
        row = call.row
        kind = row.operation or Kind.KERNEL_UNKNOWN
        operation = Operation(kind, name=row.name)
        if not row.numbers:
            crossed = kind is Kind.KERNEL_ABI
            call.judge_builtin(_FOREIGN if crossed else _UNKNOWN, operation, refusal=row.errno)
        # A policy that names the kind grants it whole, whatever the arguments: there is nothing to race for.
        call.judge(operation, refusal=row.errno)
        return Continue()

    def _act(self, call: Call, handler: Handler) -> Action | Later:
        """Run a handler; every way it can fail is an errno for the agent."""
        try:
            return handler(call)
        except Refused as refusal:
            return Errno(refusal.code)
        except Held as held:
            return self._park(call, held)
        except Gone:
            return Answered()
        except Unreadable:  # the kernel also keeps us from a caller that is dying, and then nobody was refused
            return self._refuse(call, _UNREADABLE) if self.listener.alive(call.id) else Answered()
        except AuditError as error:
            return self._give_up(error)
        except OSError as error:
            beneath.teach_missing(self, call, error.errno or errno.EIO)
            return Errno(error.errno or errno.EIO)
        except Exception as error:  # fail closed: an error of ours is a refusal, and is recorded
            return self._refuse(call, _FAILED, "".join(traceback.format_exception_only(error)).strip())

    def _park(self, call: Call, held: Held) -> Action:
        try:
            return park(self, call, held)
        except AuditError as error:
            return self._give_up(error)

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

    def finish(self, call: Call, action: Action | Later) -> None:
        """Record what is not recorded yet, then answer."""
        if isinstance(action, Later):  # a worker's work that asks for more work
            action = self._refuse(call, _FAILED, "work does not end")
        try:
            if call.sequence < 0:
                self._record_first(call, action)
            elif action.code and call.decision and (call.decision.verdict is _ALLOW or not self.enforcing):
                self._log.append(records.outcome(call.sequence, errno_name(action.code)))
            if action.__class__ is Continue and not _may_continue(call.row):
                action = Errno(errno.EPERM)
            action.answer(self.listener, call.notification, call.release)
        except AuditError as error:
            self.listener.send_errno(call.id, errno.EPERM)
            self._on_failure(error)
        except OSError as error:
            self._answer_failed(call, error.errno or errno.EIO)
        finally:
            if call.sequence < 0 and not call.resumed:
                self.tally.unjudged()
            call.release()

    def _record_first(self, call: Call, action: Action) -> None:
        if call.decision is not None:
            self.record(call, action.word, action.code)
        elif action.code not in (0, errno.ENOSYS):
            # Nothing was judged, because the arguments made no sense.
            call.sequence = self._log.append(
                records.notice("bad-arguments", f"{call.row.name}: {errno_name(action.code)}")
            )
            self.tally.recorded()

    def _answer_failed(self, call: Call, code: int) -> None:
        """The answer itself failed, as when the agent's descriptor table is full: that is the call's error."""
        if call.sequence >= 0:
            record = records.outcome(call.sequence, errno_name(code))
        else:
            record = records.notice("no-answer", f"{call.row.name}: {errno_name(code)}")
        self.fail_answer(call.id, record, code)

    def fail_answer(self, notification_id: int, record: Fields, code: int) -> None:
        """Write the record of a call that ends in an error after it had a record, and answer it."""
        try:
            self._log.append(record)
        except AuditError as error:
            self._on_failure(error)
        self.listener.send_errno(notification_id, code)


def _may_continue(row: Row) -> bool:
    """Whether the table says why a call may go on, or the policy has granted the row's whole kind."""
    return bool(row.continue_reason) or row.treatment is Treatment.DENY


def _exists(operation: Operation) -> bool:
    return not operation.path or os.path.lexists(operation.path)
