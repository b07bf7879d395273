"""The agent's name server: what it asks for is looked up by the supervisor, if a rule states the name.

It listens on a loopback address of its own, on port 53 where the supervisor may, else on any: the broker sends what
the agent addresses to port 53 there (`redirected`), so a program that connects its socket, as the C library does, sees
no difference. Questions are hints: they choose which names are looked up, nothing in them is believed.
"""

import contextlib
import queue
import secrets
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from helm_sentry.decode.dns import AAAA, A, Code, Question, answer, read_question
from helm_sentry.errors import AuditError

if TYPE_CHECKING:  # names make their server; this direction is for types alone
    from helm_sentry.broker.names import Names

Say: TypeAlias = Callable[[str, str], object]
Asker: TypeAlias = tuple[str, int]

PORT = 53
LOOKED_UP, UNSTATED, TOO_MANY = "name", "name-refused", "too-many-names"
"""What becomes of a name that the agent asks for."""

LIFETIME = 60
"""Seconds for which the agent may keep an answer."""

_NOTHING = {Code.FAILED: "nobody answered", Code.NO_SUCH_NAME: "no address"}
_WORKERS = 4  # look-ups at a time
_MOST_WAITING = 64  # names that wait to be looked up, and askers for one name
_MOST_REFUSED = 256  # names that are recorded because no rule states them
_TRIES = 16  # loopback addresses
_LARGEST = 4096  # bytes of a question


class NameServer:
    """Answers one run's questions for addresses, on threads of its own.

    Attributes:
        address: the loopback address that the agent's programs are told.
    """

    def __init__(
        self,
        names: "Names",
        resolve: Callable[[str], frozenset[str] | None],
        say: Say,
        fail: Callable[[Exception], object],
        elsewhere: bool = False,
    ) -> None:
        """Begin to answer.

        Args:
            names: which names are stated and known.
            resolve: looks a name up; None when nobody answers.
            say: told what became of a name: a code and a sentence.
            fail: called when `say` cannot record that.
            elsewhere: the agent may ask other servers too, so a name that no rule states is left to those.

        Raises:
            OSError: there is no loopback address to listen on.
        """
        self._names, self._resolve, self._say, self._fail = names, resolve, say, fail
        self._elsewhere = elsewhere
        self._refused: set[str] = set()
        self._waiting: dict[str, list[tuple[Question, Asker]]] = {}
        self._queue: queue.Queue[str] = queue.Queue(_MOST_WAITING)
        self._lock = threading.Lock()
        self._socket = _listen()
        bound: Asker = self._socket.getsockname()
        self.address, self._port = bound
        for number in range(_WORKERS):
            threading.Thread(target=self._guarded, args=(self._look_up,), name=f"look-up {number}", daemon=True).start()
        threading.Thread(target=self._guarded, args=(self._hear,), name="name server", daemon=True).start()

    def serves(self, address: str, port: int, protocol: str) -> bool:
        """Whether a destination is this server, as the agent knows it."""
        return (address, port, protocol) == (self.address, PORT, "udp")

    def redirected(self, raw: bytes) -> bytes:
        """Return a sockaddr of this server with the port on which it really listens."""
        return raw[:2] + self._port.to_bytes(2, "big") + raw[4:]

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            while True:
                work()
        except AuditError as error:
            self._fail(error)

    def _hear(self) -> None:
        message, asker = self._socket.recvfrom(_LARGEST)
        try:
            question = read_question(message)
        except ValueError:
            return  # not even a name to answer for
        name = question.name
        if not self._names.stated(name):
            self._refuse(question, asker)
        elif question.kind not in (A, AAAA):
            self._answer(question, asker, Code.FOUND)
        elif found := self._names.fresh(name):
            self._answer(question, asker, Code.FOUND, found)
        elif not self._wait(question, asker):
            self._answer(question, asker, Code.FAILED)

    def _wait(self, question: Question, asker: Asker) -> bool:
        """Put a question behind the look-up of its name; False when too many wait."""
        with self._lock:
            if (askers := self._waiting.get(question.name)) is None:
                try:
                    self._queue.put_nowait(question.name)
                except queue.Full:
                    return False
                askers = self._waiting[question.name] = []
            if len(askers) >= _MOST_WAITING:
                return False
            askers.append((question, asker))
            return True

    def _look_up(self) -> None:
        name = self._queue.get()
        found = self._resolve(f"{name}.")  # as it stands: the machine's search list is not for what was asked
        code = Code.FAILED if found is None else Code.FOUND if found else Code.NO_SUCH_NAME
        if found and not self._names.learn(name, found):
            self._say(TOO_MANY, f"{name}: so many names are remembered that this one is not")
            found, code = None, Code.REFUSED
        else:  # the question has left the machine, whatever came of it
            self._say(LOOKED_UP, f"{name}: {', '.join(sorted(found or ())) or _NOTHING[code]}")
        with self._lock:
            askers = self._waiting.pop(name)
        for question, asker in askers:
            self._answer(question, asker, code, found or frozenset())

    def _refuse(self, question: Question, asker: Asker) -> None:
        name = question.name
        if not self._elsewhere and name not in self._refused and len(self._refused) < _MOST_REFUSED:
            self._refused.add(name)
            self._say(UNSTATED, f"{name}: no rule states it; `connect: {{hosts: [{name}]}}` would")
        # Programs take the one answer to the next server, the other as the last word.
        self._answer(question, asker, Code.REFUSED if self._elsewhere else Code.NO_SUCH_NAME)

    def _answer(self, question: Question, asker: Asker, code: Code, found: frozenset[str] = frozenset()) -> None:
        with contextlib.suppress(OSError):  # the asker is gone
            self._socket.sendto(answer(question, code, sorted(found), LIFETIME), asker)


def _listen() -> socket.socket:
    for port in (PORT, 0):
        for _ in range(_TRIES):
            listening = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            try:
                listening.bind((f"127.{64 + secrets.randbelow(64)}.{secrets.randbelow(256)}.53", port))
                return listening
            except OSError as error:
                listening.close()
                failure = error
    raise failure
