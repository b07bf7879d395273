"""Where state lives: `$XDG_STATE_HOME/helm-sentry`, by default `~/.local/state/helm-sentry`.

keys/             the signing key
witness/          compiled kernel programs of the witness
control/<run id>  sockets of the runs that go on
approvals/        answers that outlive their run
daemon/           sockets of the daemon
entries           locked while a run changes entries of directories
standby/          socket of the standby
output/<run id>   what agents printed that were started with `run --detach`
runs/<run id>/    one directory a run; ids sort by time: 20261121-071503-ab12cd
"""

import os
import time

from helm_sentry.errors import UsageError

LATEST = "latest"
_RUN_ID = "00000000-000000-xxxxxx"  # of digits, and hexadecimal ones
_ALPHABETS = {"0": "0123456789", "x": "0123456789abcdef", "-": "-"}


def state_directory() -> str:
    """Return the state directory, which need not exist yet."""
    home = os.environ.get("XDG_STATE_HOME", "")
    # The XDG specification has relative paths ignored.
    if not os.path.isabs(home):
        home = os.path.join(os.path.expanduser("~"), ".local", "state")
    return os.path.join(home, "helm-sentry")


def key_directory() -> str:
    """Return the directory of the signing key."""
    return os.path.join(state_directory(), "keys")


def witness_directory() -> str:
    """Return the directory of compiled kernel programs."""
    return os.path.join(state_directory(), "witness")


def control_directory() -> str:
    """Return the directory of the control sockets of runs that go on."""
    return os.path.join(state_directory(), "control")


def entries_lock() -> str:
    """Return the path of the file that keeps runs from changing entries of directories at the same time."""
    return os.path.join(state_directory(), "entries")


def daemon_directory() -> str:
    """Return the directory of the daemon's sockets."""
    return os.path.join(state_directory(), "daemon")


def standby_socket() -> str:
    """Return the path of the socket on which the standby is asked for runs."""
    return os.path.join(state_directory(), "standby", "socket")


def output_directory() -> str:
    """Return the directory of what detached agents printed."""
    return os.path.join(state_directory(), "output")


def runs_directory() -> str:
    """Return the directory of the run directories."""
    return os.path.join(state_directory(), "runs")


def approvals_directory() -> str:
    """Return the directory of answers that outlive their run."""
    return os.path.join(state_directory(), "approvals")


def new_run_id(now: float | None = None) -> str:
    """Return an id for a run that starts now: UTC time, and six random hex digits."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(now))}-{os.urandom(3).hex()}"


def is_run_id(name: str) -> bool:
    """Return whether a name has the form of a run id."""
    return len(name) == len(_RUN_ID) and all(mark in _ALPHABETS[kind] for kind, mark in zip(_RUN_ID, name, strict=True))


def run_directory(name: str) -> str:
    """Return the directory of an existing run, given by its id, by its path, or as `latest`.

    Raises:
        UsageError: there is no such run.
    """
    if name == LATEST:
        name = latest_run()
    path = os.path.join(runs_directory(), name) if is_run_id(name) else name
    if not os.path.isdir(path) and os.path.isdir(name):  # somebody else's, brought here under its id
        path = name
    if not os.path.isdir(path):
        raise UsageError(f"there is no run `{name}`: `{path}` is not a directory")
    return path


def latest_run() -> str:
    """Return the id of the run that started last.

    Raises:
        UsageError: there is none.
    """
    runs = runs_directory()
    found = [name for name in os.listdir(runs) if is_run_id(name)] if os.path.isdir(runs) else []
    if not found:
        raise UsageError(f"there are no runs in `{runs}`")
    return max(found, key=lambda name: (name[:15], os.stat(os.path.join(runs, name)).st_mtime_ns))


def new_run(run_id: str) -> str:
    """Create the directory of a new run, closed to others, and return it.

    Raises:
        OSError: it exists already or cannot be created.
    """
    state = state_directory()
    runs = os.path.join(state, "runs")
    os.makedirs(os.path.dirname(state), exist_ok=True)
    # makedirs would give the inner directories the process's umask, not this mode.
    for directory in (state, runs):
        try:
            os.mkdir(directory, 0o700)
        except FileExistsError:  # since long, or another first run makes it now
            if not os.path.isdir(directory):
                raise
    path = os.path.join(runs, run_id)
    os.mkdir(path, 0o700)
    return path
