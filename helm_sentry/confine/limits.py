"""Resource limits of the agent's processes, as setrlimit(2) gives them."""

import resource
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ResourceLimit:
    """One rlimit.

    Attributes:
        resource: RLIMIT_* number.
        value: soft and hard limit, in the unit setrlimit(2) gives for the resource.
    """

    resource: int
    value: int


def resource_limits(
    memory: int | None,
    processes: int | None,
    open_files: int | None,
    file_size: int | None,
    cpu_time: int | None,
) -> tuple[ResourceLimit, ...]:
    """Return the rlimits for a policy's limits, lowered to what this process may set.

    Args:
        memory: bytes of address space for each process.
        processes: processes and threads of the agent's user; the kernel does not count them for uid 0.
        open_files: descriptors of each process.
        file_size: bytes of a file.
        cpu_time: seconds of processor time for each process.
    """
    wanted = {
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_NPROC: processes,
        resource.RLIMIT_NOFILE: open_files,
        resource.RLIMIT_FSIZE: file_size,
        resource.RLIMIT_CPU: cpu_time,
    }
    return tuple(
        ResourceLimit(number, _within_hard_limit(number, value))
        for number, value in wanted.items()
        if value is not None
    )


def apply(limits: tuple[ResourceLimit, ...]) -> None:
    """Set the limits on the calling process; soft and hard are the same, so the agent cannot raise them."""
    for limit in limits:
        resource.setrlimit(limit.resource, (limit.value, limit.value))


def _within_hard_limit(number: int, value: int) -> int:
    hard = resource.getrlimit(number)[1]
    return value if hard == resource.RLIM_INFINITY else min(value, hard)
