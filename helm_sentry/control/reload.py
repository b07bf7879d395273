"""Reading a run's policy file again: when it changes, and when somebody sends SIGHUP."""

import contextlib
import os
import threading
from collections.abc import Callable

from helm_sentry.control.live import LivePolicy
from helm_sentry.errors import PolicyError, UsageError
from helm_sentry.policy.model import Policy

_LOOK_EVERY = 0.5  # seconds between looks at the files

_State = tuple[tuple[int, int, int] | None, ...]


class Reload:
    """Watches the files of a policy.

    Args:
        live: the run's policy.
        read: reads the file again.
        policy: what the run began with.
        say: prints a line.

    Raises:
        UsageError: the policy has no file.
    """

    def __init__(
        self, live: LivePolicy, read: Callable[[], Policy], policy: Policy, say: Callable[[str], None]
    ) -> None:
        if not policy.files:
            raise UsageError("`--watch` is for a policy in a file; a shipped policy does not change")
        self._live, self._read, self._say, self._files = live, read, say, policy.files
        self._wakes = threading.Event()
        threading.Thread(target=self._watch, name="reload", daemon=True).start()

    def now(self) -> None:
        """Have it read again, changed or not. Never waits."""
        self._wakes.set()

    def _watch(self) -> None:
        seen = self._state()
        while True:
            asked = self._wakes.wait(_LOOK_EVERY)
            self._wakes.clear()
            state = self._state()
            if asked or state != seen:
                seen = state
                with contextlib.suppress(PolicyError):  # it is recorded, and said
                    self._reload("SIGHUP" if asked else "its file changed")

    def _reload(self, why: str) -> None:
        try:
            answer = self._live.reload(self._policy, why)
        except PolicyError as error:
            self._say(f"the policy stays as it was: {error}")
            raise
        self._say(f"the policy was read again: epoch {answer['epoch']}")

    def _policy(self) -> Policy:
        policy = self._read()
        self._files = policy.files
        return policy

    def _state(self) -> _State:
        return tuple(map(_state, self._files))


def _state(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
