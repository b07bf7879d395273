"""Reading policies that programs write: JSON that stands alone. Sooner than policy files, with the same outcome.

A policy is replaced while its agent goes on, mostly by one that has nearly all of its rules, and whoever replaces it
waits. So rules that are known word for word are not read a second time, and places are only looked for when there is
a mistake.
"""

import json
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from helm_sentry.errors import PolicyError
from helm_sentry.policy import document
from helm_sentry.policy.loader import load
from helm_sentry.policy.model import EFFECTIVE_SCHEMA, Effect, Policy, Rule


def load_effective(text: str, source: str, known: Collection[Rule] = ()) -> Policy:
    """Return what `load` makes of JSON text that extends neither packs nor files.

    Args:
        text: the policy; mostly an effective one.
        source: its name in errors.
        known: rules that may be in it.

    Raises:
        PolicyError: as `load`.
    """
    try:
        return _load_again(text, source, known) if known else _load(text, source)
    except (PolicyError, ValueError, RecursionError):
        return load(text, source, packs={source: text})  # for the place of the mistake


def _load(text: str, source: str) -> Policy:
    # As the one pack there is it has no file beside it that it could extend.
    return load(text, source, packs={source: text}, parse=document.parse_without_places)


def _load_again(text: str, source: str, known: Collection[Rule]) -> Policy:
    document.check_text(text, source)
    members: Any = json.loads(text, object_pairs_hook=_unique)
    if not isinstance(members, dict) or members.get("schema") != EFFECTIVE_SCHEMA:
        return _load(text, source)
    words = {(rule.effect, json.dumps(rule.canonical())): rule for rule in known}
    found: dict[str, list[Rule | None]] = {}
    for effect in Effect:
        if not isinstance(items := members.get(effect, []), list):
            return _load(text, source)
        found[effect] = [words.get((effect, json.dumps(item))) for item in items]
        members[effect] = [item for item, rule in zip(items, found[effect], strict=True) if rule is None]
    new = _load(json.dumps(members), source)
    whole = {effect: _in_order(some, getattr(new, effect)) for effect, some in found.items()}
    if len({rule.id for rules in whole.values() for rule in rules}) < sum(map(len, whole.values())):
        raise ValueError("an id is used twice")
    return replace(new, **whole)  # type: ignore[arg-type]  # effects are the names of their rules


def _in_order(found: list[Rule | None], others: tuple[Rule, ...]) -> tuple[Rule, ...]:
    rest = iter(others)
    return tuple([next(rest) if rule is None else rule for rule in found])


def _unique(entries: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(entries)
    if len(members) < len(entries):
        raise ValueError("a key is given twice")
    return members
