"""The floor: a Landlock domain that handles every right and grants only what the kernel's exec needs.

The supervisor's own descriptors are not bound by the agent's domain, so whatever the broker hands over works; what
the seccomp filter should ever miss hits this floor.
"""

import os
import re
from collections.abc import Iterable, Iterator
from functools import cache

from helm_sentry.abi import flags, libc, structs
from helm_sentry.policy import pattern
from helm_sentry.policy.pattern import Component

_EXECUTE_AND_READ = flags.LANDLOCK_ACCESS_FS_EXECUTE | flags.LANDLOCK_ACCESS_FS_READ_FILE


def ruleset(abi: int, programs: Iterable[str]) -> int:
    """Return a ruleset descriptor that grants execute and read on `programs` and nothing else.

    Landlock checks READ_FILE too when the kernel opens a program, so EXECUTE alone would not do.

    Args:
        abi: Landlock ABI version of this kernel, at least 1.
        programs: path patterns of exec rules and the dynamic loaders. A pattern is granted on the objects that
            match now; `dir/**` is granted on the directory.

    Raises:
        OSError: the kernel refused the ruleset.
    """
    descriptor = libc.landlock_create_ruleset(_attributes(abi))
    for path in sorted(_objects(programs)):
        _grant(descriptor, path)
    return descriptor


def _attributes(abi: int) -> bytes:
    """Return `struct landlock_ruleset_attr` with every right that this ABI version knows."""
    rights = flags.LANDLOCK_FS_RIGHTS_BY_ABI[min(abi, max(flags.LANDLOCK_FS_RIGHTS_BY_ABI))]
    handled = (1 << rights) - 1
    if abi < 4:
        return handled.to_bytes(8, "little")
    if abi < 6:
        return structs.LANDLOCK_RULESET_ATTR.pack(handled, flags.LANDLOCK_NET_RIGHTS, 0)[:16]
    return structs.LANDLOCK_RULESET_ATTR.pack(handled, flags.LANDLOCK_NET_RIGHTS, flags.LANDLOCK_SCOPES)


def _objects(patterns: Iterable[str]) -> set[str]:
    """Return the paths that match now."""
    found: set[str] = set()
    for text in patterns:
        parsed = pattern.parse(text)
        found.update(_expand(parsed.prefix or "/", parsed.rest))
    _names_in.cache_clear()
    return found


def _expand(directory: str, rest: tuple[Component | None, ...]) -> Iterator[str]:
    """Yield what a pattern matches below a directory; `**` stands for the directory it begins in, and all beneath."""
    if not rest or rest[0] is None:
        yield directory
        return
    component = rest[0]
    matches = re.compile(component.regex).fullmatch
    names = [component.literal] if component.literal is not None else filter(matches, _names_in(directory))
    for name in names:
        yield from _expand(os.path.join(directory, name), rest[1:])


@cache
def _names_in(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []  # what cannot be listed cannot be matched


def _grant(ruleset_descriptor: int, path: str) -> None:
    try:
        target = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # a program that does not exist, or cannot be seen, stays without the right
    try:
        libc.landlock_allow_path(ruleset_descriptor, _EXECUTE_AND_READ, target)
    finally:
        os.close(target)
