"""Control groups (version 2): which processes are an agent's, whatever they do."""

import os

from helm_sentry.errors import FeatureError

_PARENT = "helm-sentry"


def mounted() -> str:
    """Return where the hierarchy of version 2 is mounted, empty when it is not."""
    with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as file:
        fields = [line.split() for line in file]
    return next((mount[1] for mount in fields if mount[2] == "cgroup2"), "")


def make(name: str, pid: int) -> str:
    """Return the directory of a new group with one process in it; what that starts is born there.

    Raises:
        FeatureError: there can be none here.
    """
    root = mounted()
    if not root:
        raise FeatureError("control groups of version 2 are not mounted")
    directory = os.path.join(root, _PARENT, name)
    try:
        os.makedirs(directory)
        with open(os.path.join(directory, "cgroup.procs"), "w", encoding="ascii") as file:
            file.write(str(pid))
    except OSError as error:
        raise FeatureError(f"no control group can be made: {error}") from error
    return directory


def remove(name: str) -> bool:
    """Take away a group, and say whether it is gone: one with processes in it stays."""
    directory = os.path.join(mounted(), _PARENT, name)
    try:
        for place, _, _ in os.walk(directory, topdown=False):
            os.rmdir(place)
    except OSError:
        return False
    return True
