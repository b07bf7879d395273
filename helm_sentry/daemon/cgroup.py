"""A control group a run, below the daemon's own, where that was delegated (cgroup v2; systemd: `Delegate=yes`).

What is left of a run is killed through it, in one step that no fork can slip through, and the limits of its policy hold
for all of the agent's processes together (`confine/group.py`).
"""

import contextlib
import os
from collections.abc import Collection

from helm_sentry.state import is_run_id

_SELF, _MOUNTS = "/proc/self/cgroup", "/proc/self/mountinfo"
_OURS = "daemon"


class Groups:
    """The control groups of the runs that a daemon hosts; none where it may not make any."""

    def __init__(self) -> None:
        own = _own()
        self._root = own if own and _delegated(own) else ""
        if self._root:
            try:
                self._move_aside()
            except OSError:
                self._root = ""

    def make(self, run: str) -> str:
        """Return the directory of a new group for a run, empty where there can be none."""
        if not self._root:
            return ""
        path = os.path.join(self._root, run)
        try:
            os.mkdir(path)
        except OSError:
            return ""
        return path

    def end(self, run: str) -> None:
        """Kill what is left in a run's group and take it away."""
        if not self._root:
            return
        path = os.path.join(self._root, run)
        with contextlib.suppress(OSError), open(os.open(os.path.join(path, "cgroup.kill"), os.O_WRONLY), "wb") as file:
            file.write(b"1")
        with contextlib.suppress(OSError):  # the killed take a moment; an empty group costs nothing
            for place, _, _ in os.walk(path, topdown=False):
                os.rmdir(place)

    def sweep(self, live: Collection[str]) -> None:
        """Take away the groups of runs that are over, which a daemon that was killed has left; none may begin now."""
        if self._root:
            for name in os.listdir(self._root):
                if is_run_id(name) and name not in live:
                    self.end(name)

    def _move_aside(self) -> None:
        # A group with processes of its own cannot have controllers for those below it.
        ours = os.path.join(self._root, _OURS)
        os.makedirs(ours, exist_ok=True)
        with open(os.path.join(ours, "cgroup.procs"), "w", encoding="ascii") as file:
            file.write("0")
        control = os.path.join(self._root, "cgroup.subtree_control")
        with contextlib.suppress(OSError), open(control, "w", encoding="ascii") as file:
            file.write("+memory +pids")  # where that fails, limits hold for each process alone


def _own() -> str:
    """Return the directory of this process's group in the v2 hierarchy, empty where there is none or it is the root."""
    try:
        with open(_SELF, encoding="utf-8") as file:
            path = next((line[3:].strip() for line in file if line.startswith("0::")), "/")
        with open(_MOUNTS, encoding="utf-8") as file:
            mounts = [line.split() for line in file]
    except OSError:
        return ""
    places = [fields[4] for fields in mounts if fields[fields.index("-") + 1] == "cgroup2"]
    return places[0] + path if places and path != "/" else ""


def _delegated(path: str) -> bool:
    """Whether systemd says that what is below a group is ours: its mark, in the attribute that we may read."""
    for name in ("user.delegate", "trusted.delegate"):
        with contextlib.suppress(OSError):
            return os.getxattr(path, name) == b"1"
    return False
