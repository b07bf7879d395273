"""How many bytes left for which address.

TCP is counted by the kernel (`intercept/sock_diag.py`): write(2) on a connected socket is not mediated, and what
was written has not left yet. Datagrams are counted here, because the supervisor sends every one that names its
destination. What neither can count is recorded with `exact: false`, never left out:

- a datagram socket that was connected, and any protocol but TCP and UDP: write(2) on it is seen by nobody;
- a TCP socket whose association the agent dissolved: another thread may have sent until the very moment;
- a connection that somebody outside the run still holds open, or whose end the kernel did not tell in time.

Connections that others made to a port of the run, and sockets it was started with, have no decision to be recorded
with; they are not counted.
"""

import contextlib
import threading
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass

from helm_sentry.audit import record as records
from helm_sentry.audit.canonical import Fields
from helm_sentry.errors import AuditError
from helm_sentry.intercept import sock_diag
from helm_sentry.intercept.sock_diag import Count, Destroyed
from helm_sentry.operation import Kind, Operation

# Seconds between two looks at what has ended: each takes the interpreter from whoever serves the agent's next call. The
# kernel keeps some three hundred ends meanwhile, or as many more as net.core.rmem_max lets it.
_GATHER = 0.01
_MOST_TARGETS = 1024  # datagram destinations counted at a time; more are written out in parts


@dataclass(slots=True)
class _Flow:
    """Datagrams to one destination."""

    sequence: int
    operation: Operation
    sent: int = 0
    exact: bool = True


class Traffic:
    """What left through the sockets of a run, and the records of it.

    Args:
        write: appends a record to the log.
        on_failure: hears that the log is dead.
        begun: returns the TCP connections that somebody else has begun since it was asked last, each before it can
            end: cookie, number of the decision's record, and what was allowed.
    """

    def __init__(
        self,
        write: Callable[[Fields], int],
        on_failure: Callable[[Exception], None],
        begun: Callable[[], Iterable[tuple[int, int, Operation]]] = tuple,
    ) -> None:
        self._write, self._on_failure, self._begun = write, on_failure, begun
        self._changed, self._hurry = threading.Condition(), threading.Event()
        self._connections: dict[int, list[tuple[int, Operation]]] = {}
        self._flows: dict[tuple[str, str], _Flow] = {}
        self._left = 0  # bytes that are already written down
        self._state = "idle"  # then `counting`, or `blind` on a kernel without sock_diag; `over` in the end

    def begins(self, descriptor: int, sequence: int, operation: Operation) -> None:
        """Follow a socket that is about to connect; a datagram socket's first destination is noted.

        Args:
            descriptor: a duplicate of the agent's socket.
            sequence: number of the decision's record.
            operation: what was allowed.
        """
        with self._changed:
            if operation.kind is not Kind.NET_CONNECT:
                return
            if operation.protocol == "tcp" and self._counting():
                self._take_begun()
                self._follow(sock_diag.cookie_of(descriptor), sequence, operation)
            else:
                self._flow(sequence, operation).exact = False

    @property
    def counting(self) -> bool:
        """Whether the kernel counts TCP connections, as it does from the first one on where it can."""
        return self._state == "counting"

    def sent(self, sequence: int, operation: Operation, size: int) -> None:
        """Count a datagram that has just been sent to the address it named."""
        with self._changed:
            self._flow(sequence, operation).sent += size

    def dissolves(self, descriptor: int) -> None:
        """Take the count of a TCP socket that is about to lose it."""
        with self._changed:
            self._take_begun()
            known = self._connections.pop(sock_diag.cookie_of(descriptor), [])
            if known:
                sent, received = sock_diag.count_of(descriptor)
                self._record(*known[-1], sent, received, exact=False)

    def total(self) -> int:
        """Return the bytes that have left so far, those of connections that are still open included.

        Raises:
            OSError: the kernel does not tell.
        """
        with self._changed:
            self._take_begun()
            found = self._left + sum(flow.sent for flow in self._flows.values())
            if self._connections:
                found += sum(count.sent for count in sock_diag.open_connections() if count.cookie in self._connections)
            return found

    def settle(self, patience: float) -> None:
        """Write what is known of everything that is left; nothing is counted afterwards.

        Args:
            patience: seconds to wait for the kernel's word on connections that are just ending.

        Raises:
            AuditError: it could not be written.
        """
        self._hurry.set()
        with self._changed:
            self._take_begun()
            self._changed.wait_for(lambda: not self._connections, patience)
            if self._connections:
                with contextlib.suppress(OSError):  # as unknown as a connection the kernel does not tell of
                    for count in sock_diag.open_connections():
                        self._ended(count, exact=False)
            for known in self._connections.values():
                self._record(*known[-1], 0, 0, exact=False)
            self._connections.clear()
            self._write_flows()
            self._state = "over"

    def _counting(self) -> bool:
        """Whether the kernel counts; the first question has it begin."""
        if self._state == "idle":
            try:
                destroyed = Destroyed()
            except OSError as error:
                self._state = "blind"
                self._write(records.notice("no-byte-counts", f"the kernel has no sock_diag for us: {error.strerror}"))
            else:
                self._state = "counting"
                threading.Thread(target=self._listen, args=(destroyed,), name="traffic", daemon=True).start()
        return self._state == "counting"

    def _follow(self, cookie: int, sequence: int, operation: Operation) -> None:
        self._connections.setdefault(cookie, []).append((sequence, operation))

    def _take_begun(self) -> None:
        for connection in self._begun():
            self._follow(*connection)

    def _followed(self) -> Container[int]:
        with self._changed:
            self._take_begun()
        return self._connections

    def _listen(self, destroyed: Destroyed) -> None:
        try:
            while self._state == "counting":
                for count in destroyed.receive(self._followed):
                    with self._changed:
                        self._ended(count, exact=True)
                        self._changed.notify()
                self._hurry.wait(_GATHER)
        except AuditError as error:
            self._on_failure(error)

    def _ended(self, count: Count, exact: bool) -> None:
        known = self._connections.pop(count.cookie, None)
        if known:
            # A refused attempt may stand before the one that came about, an attempt on a connected socket after it.
            met = [entry for entry in known if (entry[1].address, entry[1].port) == (count.address, count.port)]
            self._record(*(met or known)[-1], count.sent, count.received, exact=exact, unsent=count.unsent)

    def _flow(self, sequence: int, operation: Operation) -> _Flow:
        key = operation.protocol, operation.target
        if key not in self._flows and len(self._flows) >= _MOST_TARGETS:
            self._write_flows()
        return self._flows.setdefault(key, _Flow(sequence, operation))

    def _write_flows(self) -> None:
        for flow in self._flows.values():
            self._record(flow.sequence, flow.operation, flow.sent, 0, exact=flow.exact)
        self._flows.clear()

    def _record(
        self, sequence: int, operation: Operation, sent: int, received: int, *, exact: bool, unsent: int = 0
    ) -> None:
        self._left += sent
        self._write(records.traffic(sequence, operation, sent, received, exact=exact, unsent=unsent))
