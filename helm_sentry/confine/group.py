"""A control group (version 2) for an agent, with limits on all of its processes together.

    <group of the run>/supervisor     who supervises
    <group of the run>/agent          memory.max, memory.swap.max, pids.max

The group of a run is made by the daemon, where the service manager delegated it.
"""

import os

_SUPERVISOR, _AGENT = "supervisor", "agent"


def enter(run: str) -> None:
    """Put the calling process into a run's group, beside where the agent will be.

    Raises:
        OSError: it cannot be entered.
    """
    own = os.path.join(run, _SUPERVISOR)  # a group with processes of its own cannot have limits for those below it
    os.makedirs(own, exist_ok=True)
    _write(os.path.join(own, "cgroup.procs"), "0")


def limit(run: str, memory: int | None, processes: int | None) -> int:
    """Return a descriptor of the agent's group: who writes `0` to it is in it, under the limits.

    Args:
        run: directory of the run's group, which the calling process has entered.
        memory: bytes of all processes together, their swap space included.
        processes: processes and threads of all users.

    Raises:
        OSError: the kernel keeps no such limits here.
    """
    limits = {"memory.max": memory, "memory.swap.max": None if memory is None else 0, "pids.max": processes}
    wanted = {name: value for name, value in limits.items() if value is not None}
    controllers = sorted({f"+{name.partition('.')[0]}" for name in wanted})
    _write(os.path.join(run, "cgroup.subtree_control"), " ".join(controllers))
    directory = os.path.join(run, _AGENT)
    os.makedirs(directory, exist_ok=True)
    for name, value in wanted.items():
        if name != "memory.swap.max" or os.path.exists(os.path.join(directory, name)):  # a kernel without swap space
            _write(os.path.join(directory, name), str(value))
    return os.open(os.path.join(directory, "cgroup.procs"), os.O_WRONLY | os.O_CLOEXEC)


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
