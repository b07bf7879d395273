"""Reading policies: text and everything it extends, merged into one `Policy`.

Each policy that is extended is read once, however many paths lead to it. The ids of its rules get its name in
front (`python/stdlib`), so that a decision names the file to look into. Where two state the same limit, agent
attribute or environment variable, the one that extends wins over what it extends, and a later entry of
`extends` over an earlier one.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from helm_sentry.errors import PolicyError
from helm_sentry.policy import document, rules, values
from helm_sentry.policy.document import Node, Place, Scalar
from helm_sentry.policy.fields import Fields, items_of, pairs, scalar
from helm_sentry.policy.model import EFFECTIVE_SCHEMA, SCHEMA, Effect, Environment, Limits, Policy, Rule
from helm_sentry.policy.variables import NO_VARIABLES, Variables

_KEYS = (
    *("schema", "name", "extends", "agent", "variables", "allow", "block", "contextual"),
    *("limits", "environment", "on_witness_gap"),
)
_NOT_EFFECTIVE, _EFFECTIVE_ONLY = ("extends", "variables"), ("within",)
_PRESETS = "presets"
_EXAMPLE = "`schema: helm-sentry/policy/v1`"


class PackDirectory(Mapping[str, str]):
    """The packs in a directory: `NAME.yaml` is the pack NAME. A pack is read when it is asked for."""

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def __getitem__(self, name: str) -> str:
        for directory in (self.directory, os.path.join(self.directory, _PRESETS)):
            if name in _policies_in(directory):
                return read_text(os.path.join(directory, f"{name}.yaml"), Place(name))
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(_policies_in(self.directory))

    @property
    def presets(self) -> list[str]:
        """Names of the presets: policies for known agents, found by name like packs but not listed with them."""
        return _policies_in(os.path.join(self.directory, _PRESETS))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def shipped_packs() -> PackDirectory:
    """Return the packs that come with the program: inside an installed package, or in the checkout."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    installed = os.path.join(package, "policies")
    return PackDirectory(installed if os.path.isdir(installed) else os.path.join(os.path.dirname(package), "policies"))


def load(
    text: str,
    source: str = "",
    variables: Mapping[str, str] = NO_VARIABLES,
    packs: Mapping[str, str] | None = None,
    parse: Callable[[str, str], Node] = document.parse,
) -> Policy:
    """Return the policy that a text stands for.

    Args:
        text: YAML, or JSON when `source` ends in `.json`.
        source: file or pack name, for errors; `./` files of `extends` are found beside it.
        variables: the run's variables: `workspace`, `home`, `tmp`, `user` and `program`.
        packs: text of each pack by its name; by default the shipped ones.
        parse: makes a tree of a text and the name of its source.

    Raises:
        PolicyError: the text is not a policy; with the place, and what to write instead.
    """
    packs = shipped_packs() if packs is None else packs
    key = source if source in packs else os.path.abspath(source or "policy")
    return _Loader(variables, packs, parse).load(text, source, key)


def load_file(name_or_path: str, variables: Mapping[str, str] = NO_VARIABLES) -> Policy:
    """Return the policy in a file, or the shipped pack when the argument is a bare name such as `default`.

    Raises:
        PolicyError: there is no such file or pack, or it is not a policy.
    """
    packs = shipped_packs()
    text = text_of(name_or_path)
    if _is_file(name_or_path):
        return load(text, name_or_path, variables, packs)
    return _Loader(variables, packs).load(text, name_or_path, name_or_path)


def text_of(name_or_path: str) -> str:
    """Return the text of the policy in a file, or of the shipped pack when the argument is a bare name.

    Raises:
        PolicyError: there is no such file or pack.
    """
    if _is_file(name_or_path):
        return read_text(name_or_path, Place(""))
    packs = shipped_packs()
    if (text := packs.get(name_or_path)) is None:
        hint = f"; write `./{name_or_path}` for a file" if os.path.exists(name_or_path) else ""
        raise PolicyError(_unknown_pack(name_or_path, [*packs, *packs.presets]) + hint)
    return text


def _is_file(name_or_path: str) -> bool:
    return not re.fullmatch("[A-Za-z0-9_-]+", name_or_path)


def read_text(path: str, place: Place) -> str:
    """Return the text of a policy file. `place` is where it is asked for."""
    try:
        with open(path, "rb") as file:
            data = file.read(document.MAX_SIZE + 1)
        return data.decode()
    except OSError as error:
        raise place.error(f"cannot read `{path}`: {(error.strerror or str(error)).lower()}") from None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        raise PolicyError("not utf-8; in a path write the byte as `\\xHH`", path, line, column) from None


class _Loader:
    def __init__(
        self,
        variables: Mapping[str, str],
        packs: Mapping[str, str],
        parse: Callable[[str, str], Node] = document.parse,
    ) -> None:
        self._variables, self._packs, self._parse = variables, packs, parse
        self._chain: list[str] = []  # files being read, outermost first
        self._layers: dict[str, Policy] = {}  # files read, as they stand, each after what it extends

    def load(self, text: str, source: str, key: str) -> Policy:
        self._read(text, source, key)
        files = tuple(key for key in self._layers if os.path.isabs(key))
        return replace(_merge(list(self._layers.values())), files=files)

    def _read(self, text: str, source: str, key: str) -> None:
        fields, effective = _fields(self._parse(text, source))
        if effective and self._chain:
            raise fields.place.error("an effective policy cannot be extended; extend the files it was made from")
        self._chain.append(key)
        extends = fields.values("extends", lambda entry: entry) or ()
        for entry in extends:
            self._extend(entry, key)
        self._chain.pop()
        layer = _layer(fields, source, Variables({} if effective else self._variables, enabled=not effective))
        for other in self._layers.values():
            if other.name == layer.name:
                place = fields.require("name", "").place
                raise place.error(f"`{layer.name}` is also the name of `{other.source}`; choose another")
        self._layers[key] = layer

    def _extend(self, entry: Scalar, parent: str) -> None:
        key, text = self._find(entry, parent)
        if key in self._chain:
            circle = [*self._chain[self._chain.index(key) :], key]
            raise entry.place.error(f"`{entry.text}` extends itself: {' -> '.join(map(os.path.basename, circle))}")
        if key not in self._layers:
            self._read(text, key, key)

    def _find(self, entry: Scalar, parent: str) -> tuple[str, str]:
        if "/" not in entry.text:
            if (text := self._packs.get(entry.text)) is None:
                hint = f"; write `./{entry.text}` for a file" if "." in entry.text else ""
                raise entry.place.error(_unknown_pack(entry.text, self._packs) + hint)
            return entry.text, text
        if not entry.text.startswith(("./", "../")):
            raise entry.place.error(f"`{entry.text}` is not relative; write a path that begins with `./`, or a pack")
        if not os.path.isabs(parent):
            raise entry.place.error("a pack can extend only packs; write a bare name")
        path = os.path.normpath(os.path.join(os.path.dirname(parent), entry.text))
        return path, read_text(path, entry.place)


def _unknown_pack(name: str, packs: Iterable[str]) -> str:
    known = sorted(packs)
    close = values.nearest(name, known)
    guess = f"did you mean `{close}`? " if close else ""
    return f"unknown pack `{name}`; {guess}there are {', '.join(known)}"


def _fields(root: Node) -> tuple[Fields, bool]:
    # The keys of a policy file, and whether it is an effective policy.
    claims = {key.text: value for key, value in pairs(root, "a policy")}.get("schema")
    more = _EFFECTIVE_ONLY if isinstance(claims, Scalar) and claims.text == EFFECTIVE_SCHEMA else ()
    fields = Fields(root, "a policy", (*_KEYS, *more))
    schema = scalar(fields.require("schema", _EXAMPLE), "`schema`")
    if schema.text not in (SCHEMA, EFFECTIVE_SCHEMA):
        raise schema.place.error(f"unknown schema `{schema.text}`; write {_EXAMPLE}")
    effective = schema.text == EFFECTIVE_SCHEMA
    for name in _NOT_EFFECTIVE:
        if effective and (written := fields.key(name)):
            raise written.place.error(f"`{name}` in an effective policy; write {_EXAMPLE}")
    return fields, effective


def _layer(fields: Fields, source: str, variables: Variables) -> Policy:
    name = scalar(fields.require("name", "a name for this policy, such as `name: my-agent`"), "`name`")
    for key, value in pairs(node, "`variables`") if (node := fields.get("variables")) else ():
        variables.define(key, scalar(value, f"`{key.text}`"))
    reader = rules.RuleReader(variables, values.identifier if variables.enabled else values.prefixed_identifier)
    seen: dict[str, int] = {}
    return Policy(
        name=name.read(values.identifier),
        source=source,
        agent=_agent(fields),
        allow=tuple(_rules(fields, Effect.ALLOW, reader, seen)),
        block=tuple(_rules(fields, Effect.BLOCK, reader, seen)),
        contextual=tuple(_rules(fields, Effect.CONTEXTUAL, reader, seen)),
        limits=rules.limits(fields.get("limits")),
        environment=rules.environment(fields.get("environment"), variables),
        on_witness_gap=_on_witness_gap(fields),
        within=tuple(_within(fields, source)),
    )


def _within(fields: Fields, source: str) -> Iterator[Policy]:
    node = fields.get("within")
    for item in items_of(node, "`within`") if node is not None else ():
        inner, effective = _fields(item)
        if not effective:
            raise inner.place.error(f"a ceiling is an effective policy; write `schema: {EFFECTIVE_SCHEMA}`")
        yield _layer(inner, source, Variables({}, enabled=False))


def _on_witness_gap(fields: Fields) -> str:
    node = fields.get("on_witness_gap")
    return scalar(node, "`on_witness_gap`").read(values.on_gap) if node is not None else "record"


def _agent(fields: Fields) -> dict[str, str]:
    node = fields.get("agent")
    entries = pairs(node, "`agent`") if node is not None else ()
    return {key.read(values.word): scalar(value, f"`{key.text}`").text for key, value in entries}


def _rules(fields: Fields, effect: Effect, reader: rules.RuleReader, seen: dict[str, int]) -> Iterator[Rule]:
    node = fields.get(effect)
    for item in items_of(node, f"`{effect}`") if node is not None else ():
        rule, place = reader.rule(item, effect)
        if rule.id in seen:
            raise place.error(f"rule id `{rule.id}` is already used on line {seen[rule.id]}; choose another")
        seen[rule.id] = place.line
        yield rule


def _merge(layers: list[Policy]) -> Policy:
    own = layers[-1]
    named = [*(_prefixed(policy) for policy in layers[:-1]), own]
    return replace(
        own,
        agent={key: value for policy in layers for key, value in policy.agent.items()},
        allow=tuple(rule for policy in named for rule in policy.allow),
        block=tuple(rule for policy in named for rule in policy.block),
        contextual=tuple(rule for policy in named for rule in policy.contextual),
        limits=_merged_limits(policy.limits for policy in layers),
        environment=Environment(
            tuple(dict.fromkeys(name for policy in layers for name in policy.environment.pass_)),
            {key: value for policy in layers for key, value in policy.environment.set_.items()},
        ),
        # What one policy insists on, another cannot take back.
        on_witness_gap="deny" if any(policy.on_witness_gap == "deny" for policy in layers) else "record",
    )


def _prefixed(policy: Policy) -> Policy:
    def named(some: tuple[Rule, ...]) -> tuple[Rule, ...]:
        return tuple(replace(rule, id=f"{policy.name}/{rule.id}") for rule in some)

    return replace(policy, allow=named(policy.allow), block=named(policy.block), contextual=named(policy.contextual))


def _merged_limits(all_limits: Iterable[Limits]) -> Limits:
    merged: dict[str, Any] = {}
    for limits in all_limits:
        merged |= {name: value for name in Limits.__slots__ if (value := getattr(limits, name)) is not None}
    return Limits(**merged)


def _policies_in(directory: str) -> list[str]:
    names = (name.removesuffix(".yaml") for name in _listing(directory) if name.endswith(".yaml"))
    return sorted(name for name in names if re.fullmatch("[A-Za-z0-9_-]+", name))


def _listing(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []
