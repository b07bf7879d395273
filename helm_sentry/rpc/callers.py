"""Who may do what to agents of which role: the list that `helm-sentry daemon --callers FILE` goes by.

    schema: helm-sentry/callers/v1
    callers:
      - users: [alice]                 # of this machine, by the kernel's word; or
        certificates: [ops.example]    # common names in client certificates
        roles: [payments]              # `agent.role` in the policies of the agents; left out: any
        rules: [deploy]                # whose questions they may answer; left out: any rule's
        may: [watch, approve]          # of watch, approve, grant, push, freeze, kill

The daemon's own user and root may do everything: they can do it without the daemon.
"""

import os
import pwd
from dataclasses import dataclass
from enum import StrEnum

from helm_sentry.audit.canonical import Fields
from helm_sentry.control.peer import Peer
from helm_sentry.errors import SentryError
from helm_sentry.policy import document, values
from helm_sentry.policy.document import Node, Place, Scalar
from helm_sentry.policy.fields import Fields as Members
from helm_sentry.policy.fields import items_of, scalar
from helm_sentry.policy.loader import read_text

SCHEMA = "helm-sentry/callers/v1"


class Act(StrEnum):
    """What callers may do."""

    WATCH = "watch"
    APPROVE = "approve"
    GRANT = "grant"
    PUSH = "push"
    FREEZE = "freeze"
    KILL = "kill"


class NotAllowed(SentryError):
    """The caller may not do this to an agent of this role."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a call.

    Attributes:
        peer: process and user, by the kernel's word; user -1 for one who came with a certificate.
        certificate: common name in it.
        address: where it came from.
    """

    peer: Peer
    certificate: str = ""
    address: str = ""

    @property
    def fields(self) -> Fields:
        """The caller as runs are told, and record it."""
        name = f"{self.certificate} at {self.address}" if self.address else self.peer.name
        return {"pid": self.peer.pid, "uid": self.peer.uid, "name": name}


@dataclass(frozen=True, slots=True)
class Entry:
    """Callers who may do the same.

    Attributes:
        users: user ids.
        certificates: common names.
        roles: of agents; None for any.
        rules: whose questions they may answer; None for any.
        may: what they may do.
    """

    users: frozenset[int]
    certificates: frozenset[str]
    roles: frozenset[str] | None
    rules: frozenset[str] | None
    may: frozenset[Act]

    def allows(self, caller: Caller, act: Act, role: str, rule: str | None = None) -> bool:
        """Whether a caller may do something to an agent of a role by this entry."""
        named = caller.certificate in self.certificates if caller.address else caller.peer.uid in self.users
        if act is Act.APPROVE and None not in (rule, self.rules) and rule not in (self.rules or ()):
            return False
        return named and act in self.may and (self.roles is None or role in self.roles)


@dataclass(frozen=True, slots=True)
class Callers:
    """The list; without one, every caller who is let in may do everything.

    Attributes:
        entries: None where there is no list.
    """

    entries: tuple[Entry, ...] | None = None

    @property
    def users(self) -> frozenset[int]:
        """Users who are let in besides the daemon's own and root."""
        return frozenset().union(*(entry.users for entry in self.entries or ()))

    def trusts(self, caller: Caller) -> bool:
        """Whether a caller may do everything, whatever the agent's role."""
        return self.entries is None or (not caller.address and caller.peer.uid in (0, os.geteuid()))

    def allows(self, caller: Caller, act: Act, role: str, rule: str | None = None) -> bool:
        """Whether a caller may do something to an agent of a role; for an answer, to some question or one of a rule."""
        return self.trusts(caller) or any(entry.allows(caller, act, role, rule) for entry in self.entries or ())


EVERYBODY = Callers()
"""No list."""


def load_callers(path: str) -> Callers:
    """Return the list in a file.

    Raises:
        PolicyError: it is none; with the place.
    """
    root = Members(document.parse(read_text(path, Place("")), path), "a list of callers", ("schema", "callers"))
    schema = scalar(root.require("schema", f"`schema: {SCHEMA}`"), "`schema`")
    if schema.text != SCHEMA:
        raise schema.place.error(f"unknown schema `{schema.text}`; write `schema: {SCHEMA}`")
    return Callers(tuple(map(_entry, items_of(root.require("callers", "`callers: []`"), "`callers`"))))


def _entry(node: Node) -> Entry:
    members = Members(node, "a caller", ("users", "certificates", "roles", "rules", "may"))
    users, certificates = members.values("users", _user), members.values("certificates", _text)
    if not users and not certificates:
        raise members.place.error("names nobody; write `users` or `certificates`")
    members.require("may", "what they may do, such as `may: [watch]`")
    roles, rules = members.values("roles", _text), members.values("rules", _text)
    read = values.choice("act", {str(act): act for act in Act})
    may = members.values("may", lambda act: act.read(read)) or ()
    return Entry(
        frozenset(users or ()),
        frozenset(certificates or ()),
        None if roles is None else frozenset(roles),
        None if rules is None else frozenset(rules),
        frozenset(may),
    )


def _text(node: Scalar) -> str:
    return node.text


def _user(node: Scalar) -> int:
    try:
        return pwd.getpwnam(node.text).pw_uid
    except KeyError:
        raise node.place.error(f"there is no user `{node.text}`") from None
