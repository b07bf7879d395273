"""The journal: what was not allowed, in every run, as entries of systemd-journald with fields to select by.

    journalctl SENTRY_VERDICT=DENY SENTRY_RUN=20261121-071503-ab12cd

The protocol: https://systemd.io/JOURNAL_NATIVE_PROTOCOL/. The log of the run stays what counts.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Mapping

from helm_sentry import state
from helm_sentry.audit.canonical import Fields
from helm_sentry.audit.follow import records
from helm_sentry.audit.query import line
from helm_sentry.control.client import live_runs, presence
from helm_sentry.errors import UsageError, VerificationError

JOURNAL = "/run/systemd/journal/socket"
_LOOK_EVERY = 0.5  # seconds between looks for new runs, and at their logs
_WARNING, _NOTICE = "4", "5"  # syslog(3)
_LONGEST = 4096
_TYPES = frozenset({"decision", "approval", "policy", "notice", "gap"})


class Journal:
    """Follows every run and sends what matters.

    Args:
        path: the journal's socket.

    Raises:
        OSError: there is no journal.
    """

    def __init__(self, path: str = JOURNAL) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.connect(path)
        threading.Thread(target=self._find, name="journal", daemon=True).start()

    def send(self, fields: Mapping[str, str]) -> None:
        """Send one entry; a journal that is away or busy misses it."""
        with contextlib.suppress(OSError):
            self._socket.sendall(encode(fields))

    def _find(self) -> None:
        seen: set[str] = set()
        while True:
            current = set(live_runs(state.control_directory()))
            for run in current - seen:
                threading.Thread(target=self._follow, args=(run,), name=f"journal {run}", daemon=True).start()
            seen = current
            time.sleep(_LOOK_EVERY)

    def _follow(self, run: str) -> None:
        with (
            contextlib.suppress(VerificationError, UsageError, ValueError),  # `verify` says what is wrong with a log
            presence(state.control_directory(), run) as goes_on,
        ):
            directory = state.run_directory(run)
            for _, fields in records(directory, from_start=True, goes_on=goes_on, look_every=_LOOK_EVERY):
                if fields.get("type") in _TYPES and fields.get("verdict") != "ALLOW":
                    self.send(entry(run, fields))


def entry(run: str, fields: Fields) -> dict[str, str]:
    """Return the journal's fields for a record."""
    found = {
        "MESSAGE": line(fields)[:_LONGEST],
        "PRIORITY": _WARNING if fields.get("verdict") == "DENY" else _NOTICE,
        "SYSLOG_IDENTIFIER": "helm-sentry",
        "SENTRY_RUN": run,
    }
    for name in ("type", "seq", "verdict", "rule", "reason", "target", "hash"):
        if name in fields:
            found[f"SENTRY_{name.upper()}"] = str(fields[name])[:_LONGEST]
    return found


def encode(fields: Mapping[str, str]) -> bytes:
    """Return an entry in the native protocol; a value of several lines is sent with its length."""
    data = b""
    for name, value in fields.items():
        text = value.encode("utf-8", "replace")
        if b"\n" in text:
            data += name.encode() + b"\n" + len(text).to_bytes(8, "little") + text + b"\n"
        else:
            data += name.encode() + b"=" + text + b"\n"
    return data
