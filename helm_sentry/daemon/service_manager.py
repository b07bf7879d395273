"""The service manager's protocols: sockets it listens on for us, and telling it that we are ready and alive.

sd_listen_fds(3), sd_notify(3), sd_watchdog_enabled(3); without systemd nothing happens.
"""

import os
import socket

_FIRST = 3  # SD_LISTEN_FDS_START


def inherited() -> dict[str, socket.socket]:
    """Return the listening sockets that were handed over, by the last part of their names."""
    if os.environ.pop("LISTEN_PID", "") != str(os.getpid()):
        return {}
    found = {}
    for descriptor in range(_FIRST, _FIRST + int(os.environ.pop("LISTEN_FDS", "0"))):
        os.set_inheritable(descriptor, False)
        listener = socket.socket(fileno=descriptor)
        found[os.path.basename(str(listener.getsockname()))] = listener
    return found


def tell(**facts: str | int) -> None:
    """Send the service manager assignments, such as READY=1."""
    if not (path := os.environ.get("NOTIFY_SOCKET", "")):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
        manager.connect("\0" + path[1:] if path.startswith("@") else path)
        manager.sendall("\n".join(f"{name}={value}" for name, value in facts.items()).encode())


def patience() -> float | None:
    """Return the seconds after which the service manager wants to hear that we are alive, or None."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    microseconds = int(os.environ.get("WATCHDOG_USEC", "0"))
    return microseconds / 2e6 if microseconds else None
