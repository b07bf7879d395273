"""One notified syscall on its way through the broker."""

import errno
import hashlib
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from helm_sentry.abi.flags import PATH_MAX
from helm_sentry.abi.syscalls import Row
from helm_sentry.broker.memory import Gone
from helm_sentry.broker.paths import Pinned
from helm_sentry.decision import Decision, Reason, Verdict
from helm_sentry.intercept.interceptor import Notification
from helm_sentry.intercept.process_tree import thread_group
from helm_sentry.operation import Operation

if TYPE_CHECKING:  # the broker makes the calls; this direction is for types alone
    from helm_sentry.broker.broker import Broker


_ALLOW, _ESCALATE = Verdict.ALLOW, Verdict.ESCALATE
_PIDFD_THREAD = os.O_EXCL  # <linux/pidfd.h>, Linux 6.9


class Refused(Exception):
    """A decision was not ALLOW; the syscall fails with `code`."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Held(Exception):
    """A person must be asked before the syscall can go on; it fails with `code` if the answer is no."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Call:
    """A syscall's arguments, what was decided about it, and the descriptors held for it.

    Attributes:
        notification: the kernel's message about it.
        id: notification id.
        tid: calling thread.
        args: argument registers.
        row: the syscall's row in the table.
        broker: everything the run shares.
        operations: what the syscall came to, once judged.
        decision: what the policy said, once judged.
        sequence: sequence number of the record, once written.
        object: `dev:ino` of the judged object, where known.
        keep: descriptors to close when the call is over.
        pidfd: descriptor of the calling thread, -1 until `process` opens it.
        copied: hash over what was copied from the caller's memory; None when nobody will ask for it.
        asked: what the last judgement found that needs a person's approval.
        about: what of the call the operations do not say, such as a mode, in words; set before it is judged.
        answers: operations that a person has approved for this very call, each with `digest` as it was then.
        epoch: of the rules it was judged by.
        resumed: it was held before or is judged anew, so it has been counted.
    """

    __slots__ = (
        "about",
        "answers",
        "args",
        "asked",
        "broker",
        "copied",
        "decision",
        "epoch",
        "id",
        "keep",
        "notification",
        "object",
        "operations",
        "pidfd",
        "resumed",
        "row",
        "sequence",
        "tid",
    )

    def __init__(self, broker: "Broker", notification: Notification, row: Row, *, hashed: bool = False) -> None:
        self.notification = notification
        self.id, self.tid, self.args = notification.id, notification.tid, notification.args
        self.broker, self.row = broker, row
        self.operations: tuple[Operation, ...] = ()
        self.decision: Decision | None = None
        self.sequence = -1
        self.object = ""
        self.keep: list[int] = []
        self.pidfd = -1
        self.copied = hashlib.sha256() if hashed else None
        self.about: tuple[str, ...] = ()
        self.asked: list[tuple[Operation, Decision]] = []
        self.answers: Mapping[Operation, str] = {}
        self.resumed = False
        self.epoch = 0

    def int32(self, index: int) -> int:
        """Return an argument that the kernel takes as a C `int`."""
        value = self.args[index] & 0xFFFFFFFF
        return value - (1 << 32) if value & 0x80000000 else value

    def uint32(self, index: int) -> int:
        """Return an argument that the kernel takes as a C `unsigned int`."""
        return self.args[index] & 0xFFFFFFFF

    def string(self, index: int, limit: int = PATH_MAX) -> bytes:
        """Return the NUL-terminated string an argument points to; copied once, never read again."""
        return self.copy(self.broker.memory.read_string(self.tid, self.args[index], limit))

    def read(self, address: int, size: int) -> bytes:
        """Return bytes of the agent's memory."""
        return self.copy(self.broker.memory.read(self.tid, address, size))

    def copy(self, data: bytes) -> bytes:
        """Take what was copied from the caller into account for `digest`, and return it."""
        if self.copied is not None:
            self.copied.update(b"%d:" % len(data))
            self.copied.update(data)
        return data

    def digest(self) -> str:
        """Return the hash of the call, its registers, what was copied from memory, and the object it found."""
        state = self.copied.copy() if self.copied else hashlib.sha256()
        state.update(f"{self.notification.nr} {self.args} {self.object}".encode())
        return state.hexdigest()

    def write(self, address: int, data: bytes | bytearray) -> None:
        """Copy a result into the caller's memory, if it is still there: its id may be somebody else's by now."""
        if not self.broker.listener.alive(self.id):
            raise Gone
        self.broker.memory.write(self.tid, address, data)

    def pin(self, directory: int, path: bytes, *, follow: bool = True, resolve: int = 0) -> Pinned:
        """Pin the object a path names for this thread; see `Resolver.pin`."""
        return self.broker.resolver.pin(self.keep, self.tid, directory, path, follow=follow, resolve=resolve)

    def place(self, directory: int, path: bytes) -> Pinned:
        """Pin the directory around the last component of a path; see `Resolver.place`."""
        return self.broker.resolver.place(self.keep, self.tid, directory, path)

    def descriptor(self, number: int) -> Pinned:
        """Pin what a descriptor of the agent refers to; see `Resolver.descriptor`."""
        return self.broker.resolver.descriptor(self.keep, self.tid, number)

    def opened(self, number: int) -> Pinned:
        """Pin what a descriptor refers to that was really opened; see `Resolver.opened`."""
        return self.broker.resolver.opened(self.keep, self.tid, number)

    def hold(self, descriptor: int) -> int:
        """Have a descriptor closed at the end of the call, and return it."""
        self.keep.append(descriptor)
        return descriptor

    def process(self) -> int:
        """Return a pidfd of the caller, held until the end of the call."""
        if self.pidfd < 0:
            try:
                # The thread itself, where the kernel can name one: it may not share its process's descriptors.
                self.pidfd = self.hold(os.pidfd_open(self.tid, _PIDFD_THREAD))
            except OSError:
                self.pidfd = self.hold(os.pidfd_open(thread_group(self.tid)))
        return self.pidfd

    def judge(
        self, *operations: Operation, effect: bool = False, refusal: int = errno.EACCES, use: bool = True
    ) -> None:
        """Ask the policy about all operations of the syscall; return only if every one is allowed.

        Args:
            operations: what the syscall comes to.
            effect: carrying it out changes something, so the record is written before that, not after.
            refusal: errno of a refusal.
            use: it uses up the limits of rules; false where the same is judged again with more.

        Raises:
            Refused: an operation is not allowed.
            Held: a person must be asked.
            Gone: the caller died, so what was read may not have been its own.
        """
        self.operations = operations
        self.asked.clear()
        rules = self.broker.rules
        self.epoch = rules.epoch
        self.decision = rules.decide(operations, self.tid, use=use, answered=self._answered)
        if self.asked and self.decision.verdict is _ESCALATE:
            raise Held(refusal)
        if self.decision.verdict is not _ALLOW and (self.broker.enforcing or not self.permits(*operations)):
            raise Refused(refusal)
        if effect:
            self.before_effect()

    def before_effect(self) -> None:
        """Write the record of what was judged, before it is carried out.

        Raises:
            Gone: the caller died, so what was read may not have been its own.
        """
        # What was read under the thread's id must have been its own before anything is changed for it. An answer
        # needs no such look: the kernel takes it for this notification or not at all.
        if not self.broker.listener.alive(self.id):
            raise Gone
        self.broker.record(self, "value")

    def _answered(self, operation: Operation, decision: Decision) -> Decision:
        """Return what people's answers make of a decision that asks for approval; note it if there is none."""
        approvals = self.broker.approvals
        if approvals is None:
            return decision
        if self.answers and self.digest() not in self.answers.values():
            return Decision(Verdict.DENY, Reason.CHANGED, decision.rule)
        if operation in self.answers:
            return Decision(_ALLOW, Reason.APPROVED, decision.rule)
        settled = approvals.remembered(operation, self.about, decision)
        if settled.verdict is _ESCALATE:
            self.asked.append((operation, decision))
        return settled

    def decide(self, *operations: Operation) -> Decision:
        """Return what the policy says about operations that are only looked at."""
        return self.broker.decide(operations, self.tid)

    def permits(self, *operations: Operation) -> bool:
        """Return whether operations may be carried out: the policy allows them, or this is a dry run."""
        return self.broker.permits(self.tid, *operations)

    def judge_builtin(self, decision: Decision, *operations: Operation, refusal: int = errno.EPERM) -> None:
        """Take a decision that is not the policy's to make; raise if it is a refusal."""
        self.operations, self.decision = operations, decision
        if not decision.allowed:
            raise Refused(refusal)

    def require(self, pinned: Pinned) -> None:
        """Raise the error the kernel would give for an object that cannot be reached."""
        if pinned.error:
            raise OSError(pinned.error, os.strerror(pinned.error))

    def release(self) -> None:
        """Close everything held for the call."""
        while self.keep:
            os.close(self.keep.pop())
