"""Host names in rules: resolved by the supervisor, matched by address, and told to the agent through /etc/hosts.

The agent never has to ask a name server, so a rule that names a host opens no way to leak through DNS, and the
address it connects to is one the supervisor itself found for that name.
"""

import os
import socket
import threading
from collections.abc import Iterable

from helm_sentry.abi.flags import MFD_CLOEXEC

_FIRST_ANSWER = 5.0  # seconds to wait for all names before the agent starts
_REFRESH = 60.0  # seconds between look-ups
_HOSTS = "/etc/hosts"


class Names:
    """What the names in a policy's connect rules resolve to, kept fresh by a thread of its own."""

    def __init__(self, hosts: Iterable[str]) -> None:
        self._hosts = tuple(sorted(set(hosts)))
        self._addresses: dict[str, frozenset[str]] = {}
        if self._hosts:
            ready = threading.Event()
            threading.Thread(target=self._keep_fresh, args=(ready,), name="names", daemon=True).start()
            ready.wait(_FIRST_ANSWER)

    def extend(self, hosts: Iterable[str]) -> None:
        """Resolve more names, before rules that use them hold."""
        new = tuple(sorted(set(hosts) - set(self._hosts)))
        if not new:
            return
        first, self._hosts = not self._hosts, (*self._hosts, *new)
        self._addresses = self._addresses | {host: found for host in new if (found := _resolve(host))}
        if first:
            threading.Thread(target=self._keep_fresh, args=(threading.Event(),), name="names", daemon=True).start()

    @property
    def hosts_file(self) -> bool:
        """Whether the agent's /etc/hosts differs from the machine's."""
        return bool(self._hosts)

    def of(self, address: str) -> tuple[str, ...]:
        """Return the names that resolve to an address."""
        return tuple(host for host, found in self._addresses.items() if address in found)

    def open_hosts_file(self) -> int:
        """Return a descriptor of the machine's /etc/hosts with the resolved names added, open for reading."""
        with open(_HOSTS, "rb") as file:
            text = file.read()
        for host, found in sorted(self._addresses.items()):
            text += b"".join(f"{address}\t{host}\n".encode() for address in sorted(found))
        written = os.memfd_create("hosts", MFD_CLOEXEC)
        try:
            os.write(written, text)
            return os.open(f"/proc/self/fd/{written}", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.close(written)

    def _keep_fresh(self, ready: threading.Event) -> None:
        while True:
            for host in self._hosts:
                # A name server that fails for a moment does not take an address away.
                if found := _resolve(host):
                    self._addresses = self._addresses | {host: found}
            ready.set()
            threading.Event().wait(_REFRESH)


def _resolve(host: str) -> frozenset[str]:
    try:
        found = socket.getaddrinfo(host, None, proto=socket.IPPROTO_TCP)
    except OSError:
        return frozenset()
    return frozenset(str(entry[4][0]).partition("%")[0] for entry in found)
