"""The second witness of a run: the kernel's own count of what the agent did, held against the supervisor's books.

What must hold at every moment, when the kernel's counts are read first:

    finished + carried <= received          nobody but the supervisor answered a call
    carried <= continued                    the kernel carried out what the supervisor let continue, nothing else
    execs <= exec records                   no program ran that was not verified
    held = reported + lost                  where the kernel holds opens by itself, each is in the log

and, when every process of the agent has ended:

    received <= finished + carried + interrupted
    continued <= carried + interrupted      nothing is in the books that did not happen
    forks + 1 = exits                       every process was seen from its first moment to its last
    recorded + unjudged = received          every call that arrived has its record, or asked for nothing

A difference, a lost event and a program that stopped running are gaps: records of their own, each with a receipt.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace

from helm_sentry.abi import libc
from helm_sentry.audit import record
from helm_sentry.audit.canonical import Fields
from helm_sentry.sensor import records
from helm_sentry.sensor.loader import EVENT_BYTES, OPEN_BYTES
from helm_sentry.sensor.opens import Opens
from helm_sentry.sensor.programs import Loaded
from helm_sentry.sensor.records import COUNTS, Counts
from helm_sentry.sensor.ring import RingBuffer, possible_processors

_LOOK_EVERY = 0.05  # seconds between looks at the ring buffer
_CHECK_EVERY = 20  # looks between comparisons
_FIRST = bytes(4)
_NOT_TOLD = ("lost_opens", "lost_events", "lost_tasks", "entries_seen", "exits_seen")


@dataclass(frozen=True, slots=True)
class Books:
    """What the supervisor did.

    Attributes:
        received: calls that arrived.
        continued: calls that the kernel was let to carry out.
        recorded: calls whose record is in the log.
        unjudged: calls that were answered without a record, because they asked for nothing that a policy decides.
        execs: programs whose verification is in the log.
        held: opens that the kernel judged by itself, and that were reported.
    """

    received: int
    continued: int
    recorded: int
    unjudged: int
    execs: int
    held: int = 0


class Witness:
    """Watches one run.

    Args:
        loaded: the programs, which it takes over.
        books: returns what the supervisor has done so far.
        write: appends a record to the log; may raise.
        on_gap: told the code and the sentence of each gap, after its record is written.
        on_failure: told why the witness cannot go on.
        opens: writes the records of the calls that the kernel holds by itself.
    """

    def __init__(
        self,
        loaded: Loaded,
        books: Callable[[], Books],
        write: Callable[[Fields], object],
        on_gap: Callable[[str, str], None],
        on_failure: Callable[[Exception], None],
        opens: Opens | None = None,
    ) -> None:
        self._opens = opens
        self._opened = RingBuffer(loaded.maps["opens"], OPEN_BYTES) if opens else None
        self._loaded, self._books, self._write = loaded, books, write
        self._on_gap, self._on_failure = on_gap, on_failure
        self._events = RingBuffer(loaded.maps["events"], EVENT_BYTES)
        self._counts_size = possible_processors() * COUNTS.size
        self._told: set[str] = set()
        self._last: tuple[Counts, Books] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="witness", daemon=True)

    def start(self, agent: int) -> None:
        """Begin with a process that is inside a syscall and has one thread; all it will start belongs to it."""
        libc.bpf_map_update(self._loaded.maps["tasks"], agent.to_bytes(4, "little"), records.AGENT)
        self._write(record.witnessing())
        self._thread.start()

    def counts(self) -> Counts:
        """Return what the kernel has counted so far."""
        return records.total(libc.bpf_map_lookup(self._loaded.maps["counts"], _FIRST, self._counts_size))

    def finish(self) -> None:
        """Compare for the last time, when every process of the agent has ended, and let go of the programs."""
        self._stop.set()
        self._thread.join()
        self._compare(final=True)
        self._events.close()
        self._opened.close() if self._opened else None
        self._loaded.close()

    def _watch(self) -> None:
        try:
            me = threading.get_native_id().to_bytes(4, "little")
            libc.bpf_map_update(self._loaded.maps["tasks"], me, records.PROBE)
            looks = 0
            while not self._stop.wait(_LOOK_EVERY):
                self._drain()
                looks += 1
                if looks % _CHECK_EVERY == 0:
                    self._require_running()
                    self._compare(final=False)
            self._drain()
            self._require_running()
        except Exception as error:
            self._on_failure(error)
            raise

    def _drain(self) -> None:
        if self._opens and self._opened:
            self._opens.take(self._opened.records())
        for data in self._events.records():
            event = records.event(data)
            if event.type == records.FORK:
                self._write(record.forked(event.pid, event.parent))
            else:
                self._write(record.exited(event.pid, event.status))

    def _require_running(self) -> None:
        """Look twice: each look is a syscall of this thread, which the programs must have counted."""
        before, after = self.counts(), self.counts()
        for name in ("entries_seen", "exits_seen"):
            if getattr(after, name) <= getattr(before, name):
                self._gap("stopped", "a program of the witness no longer runs")

    def _compare(self, *, final: bool) -> None:
        if self._opens and final:
            self._drain()
        kernel = self.counts()  # before the books: what is being done meanwhile is in the books alone
        books = self._books()
        books = replace(books, held=self._opens.count) if self._opens else books
        for code, detail in differences(kernel, books, final=final):
            self._gap(code, detail)
        if final or (kernel, books) != self._last:
            told = {name: value for name, value in asdict(kernel).items() if name not in _NOT_TOLD}
            self._write(record.witnessed(told, asdict(books), final=final))
        self._last = kernel, books

    def _gap(self, code: str, detail: str) -> None:
        if code not in self._told:
            self._told.add(code)
            self._write(record.gap(code, detail))
            self._on_gap(code, detail)


def differences(kernel: Counts, books: Books, *, final: bool) -> Iterator[tuple[str, str]]:
    """Yield a code and a sentence for everything in which two accounts of one run do not agree. Pure.

    Args:
        kernel: what the kernel counted.
        books: what the supervisor did, read after `kernel`.
        final: every process of the agent has ended.
    """
    done = kernel.finished + kernel.carried
    if kernel.lost_events:
        yield "lost-events", f"{kernel.lost_events} forks and exits were too many for the ring buffer"
    if kernel.lost_opens:
        yield "lost-opens", f"{kernel.lost_opens} opens were too many for the ring buffer and are not in the log"
    if kernel.lost_tasks:
        yield "lost-threads", f"{kernel.lost_tasks} threads were not watched"
    if kernel.carried > books.continued:
        yield "carried", f"the kernel carried out {kernel.carried} calls, the supervisor let {books.continued} continue"
    if done > books.received and not kernel.own_filters:
        yield "answered", f"{done} calls were answered, {books.received} of them by the supervisor"
    if kernel.execs > books.execs:
        yield "execs", f"{kernel.execs} programs ran, {books.execs} were verified"
    if not final:
        return
    if kernel.held != books.held + kernel.lost_opens:
        yield "held", f"the kernel judged {kernel.held} opens by itself, {books.held} were reported"
    if books.received > done + kernel.interrupted or books.continued > kernel.carried + kernel.interrupted:
        yield "unseen", f"the kernel saw {done} calls, {books.received} were received"
    if kernel.forks + 1 != kernel.exits:
        yield "processes", f"{kernel.forks + 1} processes began and {kernel.exits} ended"
    if books.recorded + books.unjudged != books.received:
        made = books.recorded + books.unjudged
        yield "unrecorded", f"{books.received} calls were received, {made} are accounted for in the log"
