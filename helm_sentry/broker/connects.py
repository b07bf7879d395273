"""Connects that the compiled receiver repeats: what it is taught of them, and what it tells.

It knows a socket's family and an address, byte by byte. So what is taught depends on nothing else: the address has no
host name, and nobody in the run listens on its port. When either may change, the receiver forgets.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from helm_sentry.audit.line import template
from helm_sentry.broker.action import Later
from helm_sentry.broker.names import Names
from helm_sentry.broker.ports import OwnPorts
from helm_sentry.broker.sockets import connect_waiting
from helm_sentry.decision import Decision, Reason, Verdict
from helm_sentry.decode import address as addresses
from helm_sentry.decode.address import Internet
from helm_sentry.intercept.interceptor import Connecting
from helm_sentry.native.library import Receiver
from helm_sentry.operation import Kind, Operation

if TYPE_CHECKING:  # a call knows the broker, which makes these; this direction is for types alone
    from helm_sentry.broker.call import Call

_TCP = "tcp"
_REPEATED = Decision(Verdict.ALLOW, Reason.RULE)


class Connects:
    """What the receiver of one run repeats of connects.

    Args:
        receiver: None where there is none, or it is to repeat nothing.
        names: what host names in rules mean.
        own_ports: ports the run itself listens on.
        between_calls: keeps the broker from deciding anything meanwhile.
    """

    def __init__(
        self,
        receiver: Receiver | None,
        names: Names,
        own_ports: OwnPorts,
        between_calls: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._receiver, self._names, self._own_ports = receiver, names, own_ports
        self._between_calls = between_calls
        self._ports: set[int] = set()
        if receiver:
            own_ports.first = self._becomes_own
            names.moved = self._names_moved

    def repeat(self, call: "Call", domain: int, raw: bytes, used: bytes) -> None:
        """Let the compiled receiver, if there is one, make the same connect to this host by itself.

        Args:
            call: a connect that was allowed.
            domain: family of its socket.
            raw: the sockaddr that the agent passed.
            used: the one that the socket is connected to.
        """
        receiver = call.broker.teachable(call) if self._receiver else None
        decision = call.decision
        if not receiver or not decision or raw != used:
            return
        (operation,) = call.operations
        # Where the kernel does not count, each connect is noted as uncounted, which is not done there.
        if call.broker.traffic.counting and self._stands(operation):
            self._ports.add(operation.port)
            record = template(call.row.name, operation, decision, call.epoch, "value")
            receiver.learn_to_connect(raw, domain, record, call.epoch)

    def begun(self) -> Iterator[tuple[int, int, Operation]]:
        """Return the connections that the receiver has begun since the last time: cookie, sequence number, what."""
        for cookie, sequence, raw in self._receiver.begun() if self._receiver else ():
            yield cookie, sequence, _operation(raw)

    def _stands(self, operation: Operation) -> bool:
        """Whether a decision holds for every TCP socket of the family until we are told otherwise."""
        return (
            (operation.kind, operation.protocol) == (Kind.NET_CONNECT, _TCP)
            and not operation.hosts
            and self._names.server is None
            and not self._own_ports.has_been(operation.port, _TCP)
        )

    def _becomes_own(self, port: int, protocol: str) -> None:
        """Take a port that the run is given: what a connect to it comes to is asked each time from now on."""
        if protocol == _TCP and port in self._ports:
            self._forget()

    def _names_moved(self) -> None:
        with self._between_calls():
            self._forget()

    def _forget(self) -> None:
        self._ports.clear()
        if self._receiver:
            self._receiver.forget()


def take_over(call: "Call", connecting: Connecting, sequence: int) -> Later:
    """Go on with a connect that the receiver recorded and began, and that takes longer than it may wait."""
    ours, raw = call.hold(connecting.descriptor), connecting.address
    call.operations, call.decision, call.sequence = (_operation(raw),), _REPEATED, sequence
    return connect_waiting(call, ours, raw, begun=True)


def _operation(raw: bytes) -> Operation:
    match addresses.parse(raw):
        case Internet(address, port):
            return Operation(Kind.NET_CONNECT, address=address, port=port, protocol=_TCP)
    raise ValueError("not an internet address")
