"""The floor: a Landlock domain that handles every right and grants only what the kernel's exec needs.

The supervisor's own descriptors are not bound by the agent's domain, so whatever the broker hands over works; what
the seccomp filter should ever miss hits this floor.
"""

import os
import re
import stat
from collections.abc import Iterable, Iterator
from functools import cache

from helm_sentry.abi import flags, libc, structs
from helm_sentry.operation import Kind
from helm_sentry.policy import pattern
from helm_sentry.policy.pattern import Component
from helm_sentry.policy.rights import Grant, Place

_IOCTL_ABI = 5
_RIGHTS = {
    Kind.FILE_READ: flags.LANDLOCK_ACCESS_FS_READ_FILE,
    Kind.FILE_LIST: flags.LANDLOCK_ACCESS_FS_READ_DIR,
    Kind.FILE_TRUNCATE: flags.LANDLOCK_ACCESS_FS_TRUNCATE,
}
_EXECUTE_AND_READ = flags.LANDLOCK_ACCESS_FS_EXECUTE | flags.LANDLOCK_ACCESS_FS_READ_FILE


def ruleset(abi: int, programs: Iterable[str], held: Iterable[Grant] = ()) -> int:
    """Return a ruleset descriptor that grants execute and read on `programs`, what the kernel holds, and nothing else.

    Landlock checks READ_FILE too when the kernel opens a program, so EXECUTE alone would not do.

    Args:
        abi: Landlock ABI version of this kernel, at least 1.
        programs: path patterns of exec rules and the dynamic loaders. A pattern is granted on the objects that
            match now; `dir/**` is granted on the directory.
        held: what the kernel holds by itself; a path that no longer leads to itself is not granted.

    Raises:
        OSError: the kernel refused the ruleset.
    """
    descriptor = libc.landlock_create_ruleset(_attributes(abi))
    for path in sorted(_objects(programs)):
        _grant(descriptor, path, _EXECUTE_AND_READ)
    for grant in held:
        if os.path.realpath(grant.path) == grant.path:
            _grant(descriptor, grant.path, _rights(abi, grant), os.O_NOFOLLOW)
    return descriptor


def floor(programs: Iterable[str]) -> list[Place]:
    """Return what the floor of `programs` is granted on."""
    return [place for path in sorted(_objects(programs)) if (place := look(path)) is not None]


def look(path: str) -> Place | None:
    """Return what is at a path, None when nothing can be found there."""
    try:
        mode = os.stat(path).st_mode
        canonical = os.path.realpath(path, strict=True)
    except OSError:
        return None
    return Place(canonical, stat.S_ISDIR(mode), stat.S_ISCHR(mode) or stat.S_ISBLK(mode))


def _rights(abi: int, grant: Grant) -> int:
    rights = sum(right for kind, right in _RIGHTS.items() if kind in grant.kinds)
    rights &= _handled(abi)
    # Whoever may open a device may ask it what it is, as with a descriptor from the supervisor.
    return rights | (flags.LANDLOCK_ACCESS_FS_IOCTL_DEV if grant.device and abi >= _IOCTL_ABI else 0)


def _attributes(abi: int) -> bytes:
    """Return `struct landlock_ruleset_attr` with every right that this ABI version knows."""
    handled = _handled(abi)
    if abi < 4:
        return handled.to_bytes(8, "little")
    if abi < 6:
        return structs.LANDLOCK_RULESET_ATTR.pack(handled, flags.LANDLOCK_NET_RIGHTS, 0)[:16]
    return structs.LANDLOCK_RULESET_ATTR.pack(handled, flags.LANDLOCK_NET_RIGHTS, flags.LANDLOCK_SCOPES)


def _handled(abi: int) -> int:
    return (1 << flags.LANDLOCK_FS_RIGHTS_BY_ABI[min(abi, max(flags.LANDLOCK_FS_RIGHTS_BY_ABI))]) - 1


def _objects(patterns: Iterable[str]) -> set[str]:
    """Return the paths that match now, those in one directory under one name of it: `/bin` may be `/usr/bin`."""
    found: set[str] = set()
    for text in patterns:
        parsed = pattern.parse(text)
        if parsed.rest:
            found.update(_expand(parsed.prefix or "/", parsed.rest))
        else:
            found.add(parsed.prefix)
    _names_in.cache_clear()
    split = [path.rpartition("/") for path in found]
    places = {place: os.path.realpath(place or "/").rstrip("/") for place in {place for place, _, _ in split}}
    return {f"{places[place]}/{name}" for place, _, name in split}


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


def _grant(ruleset_descriptor: int, path: str, rights: int, how: int = 0) -> None:
    try:
        target = os.open(path, os.O_PATH | os.O_CLOEXEC | how)
    except OSError:
        return  # what does not exist, or cannot be seen, stays without the right
    try:
        libc.landlock_allow_path(ruleset_descriptor, rights, target)
    finally:
        # An entry of /proc is another object once nobody holds it, and the right would be gone.
        if not path.startswith("/proc/"):
            os.close(target)
