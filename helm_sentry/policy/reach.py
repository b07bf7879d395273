"""How a path pattern and a path, or all beneath it, lie to each other. Pure; in doubt they meet."""

import re
from enum import Enum

from helm_sentry.policy.pattern import Pattern


class _Way(Enum):
    # What becomes of a pattern that is followed along the names of a path.
    APART = "it leads elsewhere"
    SHORT = "it matches a directory above the path, and nothing beneath that"
    HERE = "it matches the path itself"
    BENEATH = "it matches only what lies beneath the path"
    ANYWHERE = "it may match the path, and beneath it"


def covers(path: str, prefix: bool, wanted: Pattern) -> bool:
    """Whether everything a pattern matches is `path`, or with `prefix` lies beneath it."""
    if not prefix:
        return not wanted.rest and wanted.prefix == path
    return _is_at_or_beneath(wanted.prefix or "/", path)


def may_match(wanted: Pattern, path: str, prefix: bool) -> bool:
    """Whether a pattern may match `path`, or with `prefix` something beneath it."""
    way = _follow(wanted, path)
    return way in (_Way.HERE, _Way.ANYWHERE) or (prefix and way is _Way.BENEATH)


def may_lead_through(wanted: Pattern, path: str, prefix: bool) -> bool:
    """Whether `path`, or with `prefix` something beneath it, may be a directory that a pattern leads through."""
    return may_match(wanted, path, prefix) or _follow(wanted, path) is _Way.BENEATH


def matches_all_beneath(wanted: Pattern, directory: str) -> bool:
    """Whether a pattern matches everything beneath a directory, whatever it is named."""
    return (
        None in wanted.rest
        and wanted.rest.index(None) == len(wanted.rest) - 1
        and (_follow(wanted, directory) is _Way.ANYWHERE)
    )


def _follow(wanted: Pattern, path: str) -> _Way:
    place = "/" if not wanted.prefix else wanted.prefix
    if place != path and _is_at_or_beneath(place, path):
        return _Way.BENEATH
    if not _is_at_or_beneath(path, place):
        return _Way.APART
    names = [name for name in path[len(wanted.prefix) :].split("/") if name]
    for component in wanted.rest:
        if component is None:
            return _Way.ANYWHERE
        if not names:
            return _Way.BENEATH
        if not re.fullmatch(component.regex, names.pop(0)):
            return _Way.APART
    return _Way.SHORT if names else _Way.HERE


def _is_at_or_beneath(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")
