"""What is asked for when a run is to start. Values."""

import os
from dataclasses import dataclass

from helm_sentry.operation import Operation


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosted:
    """What the host of a run says that it starts for somebody else.

    Attributes:
        run: the run's id.
        environment: the caller's environment, from which the agent's is selected.
        connection: descriptor of the caller's signals, whose end ends the run; -1 for a run without a caller.
        cgroup: directory of a control group to enter.
        parent: run whose agent is the caller.
        depth: how many runs are above it.
        policy: text of the policy, where the caller cannot be believed to name a file.
        within: effective policies that the run may not exceed, as JSON.
        replaces: directory in them that stands for the run's own `tmp`.
    """

    run: str
    environment: dict[str, str]
    connection: int = -1
    cgroup: str = ""
    parent: str = ""
    depth: int = 0
    policy: str = ""
    within: tuple[str, ...] = ()
    replaces: str = ""

    def ceilings(self, scratch: str) -> tuple[str, ...]:
        """Return what the run may not exceed, with its own directory in it."""
        return tuple(text.replace(self.replaces, scratch) if self.replaces else text for text in self.within)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a user asks for.

    Attributes:
        command: the agent's program and arguments.
        policy: file or name of a shipped policy.
        workspace: directory the agent works in.
        user: name of the user the agent runs as; empty for the caller.
        accept_degraded: run although a layer is missing.
        max_policy_age: seconds since a policy file was last written after which it is refused.
        dry_run: perform what the policy denies, and only write down that it would be denied.
        durable: have the record of what changes something on the disk before it is carried out.
        quiet: print nothing.
        witness: have the kernel count the calls where it can; it slows every syscall of the machine a little.
        watch: read the policy file again when it changes, and upon SIGHUP.
        approve_within: seconds until what needs approval is denied.
        key: private key file to sign with; empty for the one of this machine.
        probe: try this one operation instead of running the command.
        tier: how the agent's calls are to reach the supervisor; `auto` for the quickest that the host has.
        hosted: what the host says, where there is one.
    """

    command: tuple[str, ...]
    policy: str = "default"
    workspace: str = "."
    user: str = ""
    accept_degraded: bool = False
    max_policy_age: int | None = None
    dry_run: bool = False
    durable: bool = False
    quiet: bool = False
    witness: bool = True
    watch: bool = False
    approve_within: float = 120.0
    key: str = ""
    probe: Operation | None = None
    tier: str = "auto"
    hosted: Hosted | None = None

    @property
    def outer_environment(self) -> dict[str, str]:
        """The caller's environment."""
        return dict(os.environ) if self.hosted is None else self.hosted.environment
