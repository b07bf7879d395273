"""Whose authority a process or a broker thread acts with."""

import grp
import os
import pwd
from dataclasses import dataclass

from helm_sentry.abi import flags, libc
from helm_sentry.errors import UsageError


@dataclass(frozen=True, slots=True)
class Identity:
    """The user an agent runs as.

    Attributes:
        uid: user id.
        gid: primary group id.
        groups: supplementary group ids.
        switch: the supervisor runs as somebody else and must change ids to become this user.
    """

    uid: int
    gid: int
    groups: tuple[int, ...]
    switch: bool = False


def current() -> Identity:
    """Return the identity of this process."""
    return Identity(os.getuid(), os.getgid(), tuple(os.getgroups()))


def of_user(name: str) -> Identity:
    """Return the identity of a named user.

    Raises:
        UsageError: no such user, or this process may not become another user.
    """
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise UsageError(f"there is no user `{name}` on this machine") from None
    if entry.pw_uid != os.getuid() and os.geteuid() != 0:
        raise UsageError(f"only root can run an agent as another user; run as root or without --user {name}")
    if entry.pw_uid == os.getuid():
        return current()
    groups = tuple(os.getgrouplist(name, entry.pw_gid))
    return Identity(entry.pw_uid, entry.pw_gid, groups, switch=True)


def user_name(uid: int) -> str:
    """Return a user's name, or the number when it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def describe(identity: Identity) -> str:
    """Return `user:group` for people and logs."""
    try:
        group = grp.getgrgid(identity.gid).gr_name
    except KeyError:
        group = str(identity.gid)
    return f"{user_name(identity.uid)}:{group}"


def assume_in_process(identity: Identity) -> None:
    """Become the agent's user with no capability and no way to gain one. For the child, before it execs."""
    if os.geteuid() == 0:
        _empty_bounding_set()
    libc.prctl(flags.PR_CAP_AMBIENT, flags.PR_CAP_AMBIENT_CLEAR_ALL)
    _assume(identity)
    libc.prctl(flags.PR_SET_NO_NEW_PRIVS, 1)
    # A change of ids hides a process from its own user; the broker, which acts as that user, must see the exec's path.
    libc.prctl(flags.PR_SET_DUMPABLE, 1)


def assume_in_thread(identity: Identity) -> None:
    """Make the calling broker thread act as the agent would: its ids, its groups, no capabilities, its own umask.

    The other threads of the supervisor keep what they have; the log, the keys and the guardian are theirs.
    """
    libc.unshare(flags.CLONE_FS)
    _assume(identity)


def _assume(identity: Identity) -> None:
    if identity.switch and os.geteuid() != identity.uid:  # a thread inherits the ids of the one that starts it
        libc.set_thread_identity(identity.uid, identity.gid, identity.groups)
    libc.drop_capabilities()


def _empty_bounding_set() -> None:
    for capability in range(flags.LAST_CAPABILITY + 1):
        try:
            libc.prctl(flags.PR_CAPBSET_DROP, capability)
        except OSError:
            return  # EINVAL: this kernel has no more of them; EPERM: not root in the sense that counts
