"""Host names in rules: resolved by the supervisor, matched by address, and told to the agent.

Exact names are looked up before the agent starts and stand in the /etc/hosts that it reads. What lies beneath a
`*.example.com` nobody can list, so the agent may ask: its /etc/resolv.conf names the supervisor (`name_server.py`),
which looks the name up itself. An address has a name because the supervisor found it, never because the agent or a
name server of its choice said so.
"""

import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable
from itertools import chain

from helm_sentry.abi.flags import MFD_CLOEXEC
from helm_sentry.broker.name_server import NameServer, Say
from helm_sentry.decode.address import is_loopback
from helm_sentry.decode.dns import MOST_ADDRESSES
from helm_sentry.operation import Kind, Operation
from helm_sentry.policy.engine import CompiledPolicy, decide
from helm_sentry.policy.model import ConnectMatch, Policy

_FIRST_ANSWER = 5.0  # seconds to wait for all names before the agent starts
_REFRESH = 60.0  # seconds between look-ups
_REMEMBERED = 600.0  # seconds for which an address keeps a name that the agent asked for
_MOST_LEARNT = 512  # names that are remembered because the agent asked for them
_HOSTS, _RESOLV_CONF = "/etc/hosts", "/etc/resolv.conf"
_NAME_SERVER = re.compile(rb"^[ \t]*nameserver[ \t]+(\S+).*\n?", re.MULTILINE)
_DNS = 53
_NOT_THERE = (socket.EAI_NONAME, socket.EAI_NODATA)

Found = frozenset[str]


class Names:
    """What the names in a policy's connect rules resolve to, kept fresh by a thread of its own.

    Attributes:
        server: answers the agent's questions; None where no rule has a `*.`.
        moved: told that an address of this host has got or lost a name, or that there is a server now.
    """

    def __init__(
        self, policy: CompiledPolicy, say: Say, fail: Callable[[Exception], object], *, enforcing: bool = True
    ) -> None:
        """Look up the names of a policy.

        Args:
            policy: the policy a run begins with.
            say: told what became of a question of the agent: a code and a sentence.
            fail: called when that cannot be recorded.
            enforcing: false for a dry run, in which the agent may ask other servers whatever the policy says.

        Raises:
            OSError: there is no loopback address to answer on.
        """
        self._say, self._fail, self._enforcing = say, fail, enforcing
        self._hosts, self._suffixes = _stated(policy)
        self._addresses: dict[str, Found] = {}
        self._learnt: dict[str, _Learnt] = {}
        self._names_of: dict[str, set[str]] = {}  # of the learnt
        self._changing = threading.Lock()
        self._instead: dict[str, Callable[[bytes], bytes]] = {}
        self.server: NameServer | None = None
        self.moved: Callable[[], object] = _nobody
        if self._suffixes:
            self._serve(policy)
        if self._hosts:
            ready = threading.Event()
            self._begin(ready)
            ready.wait(_FIRST_ANSWER)

    def extend(self, policy: CompiledPolicy) -> None:
        """Resolve what a further policy names, before it holds."""
        hosts, suffixes = _stated(policy)
        before = self._hosts
        self._hosts |= hosts
        self._suffixes |= suffixes
        if self._suffixes and not self.server:
            self._serve(policy)
            self.moved()
        new = self._hosts - before
        for host in new:
            self._found(host, resolve(host))
        if new and not before:
            self._begin(threading.Event())

    def of(self, address: str) -> tuple[str, ...]:
        """Return the names that resolve to an address."""
        exact = tuple(host for host, found in self._addresses.items() if address in found)
        if address not in self._names_of:
            return exact
        now = time.monotonic()
        with self._changing:
            learnt = sorted(name for name in self._names_of.get(address, ()) if self._learnt[name].holds(address, now))
        return exact + tuple(name for name in learnt if name not in exact)

    @property
    def replaced(self) -> tuple[str, ...]:
        """Files in whose place the agent reads something else."""
        return tuple(self._instead)

    def open_instead(self, path: str) -> int:
        """Return a descriptor of what the agent reads in place of a file, -1 where it reads the file itself.

        Raises:
            OSError: the file cannot be read.
        """
        text_of = self._instead.get(path)
        if text_of is None:
            return -1
        with open(path, "rb") as file:
            text = text_of(file.read())
        written = os.memfd_create(os.path.basename(path), MFD_CLOEXEC)
        try:
            os.write(written, text)
            return os.open(f"/proc/self/fd/{written}", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.close(written)

    def stated(self, name: str) -> bool:
        """Whether a rule states a name, by itself or by a `*.` above it."""
        return name in self._hosts or any(above in self._suffixes for above in _above(name))

    def fresh(self, name: str) -> Found:
        """Return the addresses of a name that were found a moment ago; none where it must be looked up."""
        if found := self._addresses.get(name):
            return found
        with self._changing:
            learnt = self._learnt.get(name)
            return learnt.latest if learnt and learnt.since + _REFRESH > time.monotonic() else frozenset()

    def learn(self, name: str, found: Found) -> bool:
        """Remember what a name stands for, for a while; False when too many names are remembered already."""
        now = time.monotonic()
        with self._changing:
            if name not in self._learnt and len(self._learnt) >= _MOST_LEARNT:
                self._forget(now)
                if len(self._learnt) >= _MOST_LEARNT:
                    return False
            self._learnt.setdefault(name, _Learnt()).add(found, now)
            for address in found:
                self._names_of.setdefault(address, set()).add(name)
        return True

    def _forget(self, now: float) -> None:
        self._learnt = {name: learnt for name, learnt in self._learnt.items() if learnt.since + _REMEMBERED > now}
        names_of: dict[str, set[str]] = {}
        for name, learnt in self._learnt.items():
            for address in learnt.until:
                names_of.setdefault(address, set()).add(name)
        self._names_of = names_of

    def _serve(self, policy: CompiledPolicy) -> None:
        # The agent reads these for itself and asks nobody.
        self._hosts |= {name for name in _names_in(_HOSTS) if self.stated(name)}
        path = os.path.realpath(_RESOLV_CONF)
        elsewhere = not self._enforcing or _may_ask_elsewhere(policy, path)
        self.server = server = NameServer(self, resolve, self._say, self._fail, elsewhere)

        def resolv_conf(text: bytes) -> bytes:
            rest = text if elsewhere else _NAME_SERVER.sub(b"", text)
            return b"nameserver %b\n" % server.address.encode() + rest

        self._instead[path] = resolv_conf

    def _begin(self, ready: threading.Event) -> None:
        self._instead[os.path.realpath(_HOSTS)] = self._hosts_file
        threading.Thread(target=self._keep_fresh, args=(ready,), name="names", daemon=True).start()

    def _hosts_file(self, text: bytes) -> bytes:
        for host, found in sorted(self._addresses.items()):
            text += b"".join(f"{address}\t{host}\n".encode() for address in sorted(found))
        return text

    def _keep_fresh(self, ready: threading.Event) -> None:
        while True:
            for host in sorted(self._hosts):
                self._found(host, resolve(host))
            ready.set()
            threading.Event().wait(_REFRESH)

    def _found(self, host: str, found: Found | None) -> None:
        """Take what a look-up gave; a name server that fails for a moment does not take an address away."""
        if not found:
            return
        moved = found ^ self._addresses.get(host, frozenset())
        self._addresses = self._addresses | {host: found}
        if any(is_loopback(address) for address in moved):
            self.moved()


def _nobody() -> None:
    """Stand where nobody asks when names move."""


class _Learnt:
    """What the supervisor found for a name that the agent asked for."""

    def __init__(self) -> None:
        self.since = 0.0
        self.latest: Found = frozenset()
        self.until: dict[str, float] = {}

    def add(self, found: Found, now: float) -> None:
        # Of a name with many addresses each look-up gives some: what was answered a moment ago still counts.
        self.since, self.latest = now, found
        self.until = {address: until for address, until in self.until.items() if until > now}
        self.until |= dict.fromkeys(found, now + _REMEMBERED)

    def holds(self, address: str, now: float) -> bool:
        return self.until.get(address, 0.0) > now


def resolve(host: str) -> Found | None:
    """Return the addresses of a name; None when nobody answers."""
    try:
        found = socket.getaddrinfo(host, None, proto=socket.IPPROTO_TCP)
    except socket.gaierror as error:
        return frozenset() if error.errno in _NOT_THERE else None
    except (OSError, UnicodeError):
        return None
    texts = [str(entry[4][0]).partition("%")[0] for entry in found]
    # As many of each family as an answer holds: what the agent is not told it need not reach.
    four, six = ([text for text in texts if (":" in text) is wide][:MOST_ADDRESSES] for wide in (False, True))
    return frozenset((*four, *six))


def _stated(policy: CompiledPolicy) -> tuple[frozenset[str], frozenset[str]]:
    """Return the names that rules state, and what stands behind each `*.`, as far as every ceiling states it too."""
    own, *ceilings = [_hosts(layer) for layer in (policy.policy, *policy.policy.within)]
    everything = own.union(*ceilings)
    domains = [[host.removeprefix("*.") for host in hosts if host.startswith("*.")] for hosts in (own, *ceilings)]
    common = {
        domain
        for domain in chain(*domains)
        if all(any(f".{domain}".endswith(f".{other}") for other in others) for others in domains)
    }
    return frozenset(host for host in everything if not host.startswith("*.")), frozenset(common)


def _hosts(policy: Policy) -> set[str]:
    matches = [rule.match for rule in policy.rules]
    return {host for match in matches if isinstance(match, ConnectMatch) for host in match.hosts}


def _names_in(path: str) -> Iterable[str]:
    """Return the names in a hosts(5) file; none if it cannot be read."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return [name.lower() for line in file for name in line.partition("#")[0].split()[1:]]
    except OSError:
        return []


def _above(name: str) -> Iterable[str]:
    labels = name.split(".")
    return (".".join(labels[index:]) for index in range(1, len(labels)))


def _may_ask_elsewhere(policy: CompiledPolicy, path: str) -> bool:
    """Whether a plain rule lets the agent ask one of the machine's own name servers."""
    try:
        with open(path, "rb") as file:
            servers = _NAME_SERVER.findall(file.read())
    except OSError:
        return False
    asked = [
        Operation(Kind.NET_CONNECT, address=server.decode("ascii", "replace"), port=_DNS, protocol="udp")
        for server in servers
    ]
    return any(decide(policy, operation).allowed for operation in asked)
