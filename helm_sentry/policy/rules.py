"""From the nodes of a policy file to rules, limits and environment. Strict: what is not known is an error."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from helm_sentry.decision import Verdict
from helm_sentry.operation import Kind
from helm_sentry.policy import values
from helm_sentry.policy.condition import compile_condition
from helm_sentry.policy.document import Node, Place, Scalar
from helm_sentry.policy.fields import Fields, items_of, pairs, scalar, scalars
from helm_sentry.policy.model import (
    ALL_KINDS,
    ANY_PORT,
    FILE_KINDS,
    KERNEL_KINDS,
    PROTOCOLS,
    UNDECIDABLE_KINDS,
    UNIX_KINDS,
    BindMatch,
    Budget,
    ConnectMatch,
    Effect,
    Environment,
    ExecMatch,
    FileMatch,
    KernelMatch,
    Limits,
    Matcher,
    Network,
    PortRange,
    Rule,
    SocketMatch,
    UnixMatch,
)
from helm_sentry.policy.variables import Variables

Value = TypeVar("Value")
Reader = Callable[[str], Value]


class RuleReader:
    """Reads the rules of one file."""

    def __init__(self, variables: Variables, read_id: Reader[str]) -> None:
        self._variables, self._read_id = variables, read_id

    def rule(self, node: Node, effect: Effect) -> tuple[Rule, Place]:
        """Return a rule and the place of its id."""
        fields = Fields(node, "a rule", ("id", "note", "programs", *MATCHERS, "limit", *CONDITIONAL))
        name = scalar(fields.require("id", "an id for this rule, such as `id: sources`"), "`id`")
        given = [key for key in MATCHERS if fields.get(key) is not None]
        if not given:
            raise fields.place.error(f"rule `{name.text}` matches nothing; add one of {', '.join(MATCHERS)}")
        if len(given) > 1:
            second = fields.key(given[1]) or name
            raise second.place.error(f"rule `{name.text}` has both `{given[0]}` and `{given[1]}`; write two rules")
        note = fields.get("note")
        when, otherwise = self._condition(fields, effect, name)
        return Rule(
            id=name.read(self._read_id),
            effect=effect,
            match=MATCHERS[given[0]](self, fields.require(given[0], ""), effect),
            note=scalar(note, "`note`").text if note is not None else "",
            programs=fields.values("programs", self._variables.path) or (),
            limit=_budget(fields.get("limit")),
            when=when,
            otherwise=otherwise,
        ), name.place

    def _condition(self, fields: Fields, effect: Effect, name: Scalar) -> tuple[str, Verdict]:
        for key in CONDITIONAL if effect is not Effect.CONTEXTUAL else ():
            if written := fields.key(key):
                raise written.place.error(f"`{key}` in a rule of `{effect}`; move rule `{name.text}` to `contextual`")
        if effect is not Effect.CONTEXTUAL:
            return "", Verdict.DENY
        when = scalar(fields.require("when", 'a condition, such as `when: agent.role == "tester"`'), "`when`")
        otherwise = fields.get("otherwise")
        verdict = scalar(otherwise, "`otherwise`").read(_OTHERWISE) if otherwise is not None else Verdict.DENY
        return when.read(lambda text: compile_condition(text.strip()).text), verdict

    def file(self, node: Node, effect: Effect) -> FileMatch:
        """Read `file:`."""
        fields = Fields(node, "`file`", ("do", "paths"))
        everything = frozenset(FILE_KINDS.values()) if effect is Effect.BLOCK else ALL_KINDS
        verbs = {verb: frozenset({kind}) for verb, kind in FILE_KINDS.items()} | {"all": everything}
        return FileMatch(_verbs(fields, verbs, "[read, list]"), self._paths(fields))

    def exec(self, node: Node, effect: Effect) -> ExecMatch:
        """Read `exec:`."""
        fields = Fields(node, "`exec`", ("paths", "argv", "environment"))
        return ExecMatch(
            self._paths(fields),
            fields.values("argv", lambda text: self._variables.plain(text, values.text_pattern)),
            self._wanted(fields.get("environment")),
        )

    def _wanted(self, node: Node | None) -> dict[str, str]:
        entries = pairs(node, "`environment`") if node is not None else ()
        return {
            name.read(values.variable_glob): _setting(name, value, self._variables, values.text_pattern)
            for name, value in entries
        }

    def connect(self, node: Node, effect: Effect) -> ConnectMatch:
        """Read `connect:`."""
        fields = Fields(node, "`connect`", ("hosts", "addresses", "ports", "protocols", "own"))
        hosts = fields.values("hosts", lambda name: self._variables.plain(name, _host_of(effect))) or ()
        own = fields.get("own")
        match = ConnectMatch(
            hosts,
            self._addresses(fields),
            self._ports(fields),
            _protocols(fields),
            own is not None and scalar(own, "`own`").read(values.flag),
        )
        if not (match.hosts or match.addresses or match.own):
            raise fields.place.error("no destination; write `hosts`, `addresses` or `own: true`")
        return match

    def bind(self, node: Node, effect: Effect) -> BindMatch:
        """Read `bind:`."""
        fields = Fields(node, "`bind`", ("addresses", "ports", "protocols"))
        fields.require("addresses", "the local addresses, such as `addresses: [loopback]`")
        return BindMatch(self._addresses(fields), self._ports(fields), _protocols(fields))

    def unix(self, node: Node, effect: Effect) -> UnixMatch:
        """Read `unix:`."""
        fields = Fields(node, "`unix`", ("do", "paths"))
        verbs = {verb: frozenset({kind}) for verb, kind in UNIX_KINDS.items()}
        return UnixMatch(_verbs(fields, verbs, "[connect]"), self._paths(fields))

    def socket(self, node: Node, effect: Effect) -> SocketMatch:
        """Read `socket:`."""
        fields = Fields(node, "`socket`", ("families",))
        fields.require("families", "the address families, such as `families: [netlink]`")
        read = values.choice("socket family", {family: family for family in values.FAMILIES})
        return SocketMatch(fields.values("families", lambda name: name.read(read)) or ())

    def kernel(self, node: Node, effect: Effect) -> KernelMatch:
        """Read `kernel:`."""
        return KernelMatch(frozenset(name.read(_kernel_kind) for name in scalars(node, "`kernel`")))

    def _paths(self, fields: Fields) -> tuple[str, ...]:
        fields.require("paths", 'the paths, such as `paths: ["${workspace}/**"]`')
        return fields.values("paths", self._variables.path) or ()

    def _addresses(self, fields: Fields) -> tuple[Network, ...]:
        found = fields.values("addresses", lambda text: self._variables.plain(text, values.networks)) or ()
        return tuple(network for networks in found for network in networks)

    def _ports(self, fields: Fields) -> tuple[PortRange, ...]:
        return fields.values("ports", lambda text: self._variables.plain(text, values.port_range)) or (ANY_PORT,)


# The keys of a rule that say what it matches.
MATCHERS: Mapping[str, Callable[[RuleReader, Node, Effect], Matcher]] = {
    "file": RuleReader.file,
    "exec": RuleReader.exec,
    "connect": RuleReader.connect,
    "bind": RuleReader.bind,
    "unix": RuleReader.unix,
    "socket": RuleReader.socket,
    "kernel": RuleReader.kernel,
}

CONDITIONAL = ("when", "otherwise")
"""The keys that only a contextual rule has."""

_OTHERWISE = values.choice("outcome", {"deny": Verdict.DENY, "escalate": Verdict.ESCALATE})

_LIMITS: Mapping[str, Reader[int]] = {
    "wall_time": values.duration,
    "memory": values.size,
    "processes": values.count,
    "open_files": values.count,
    "file_size": values.size,
    "cpu_time": values.duration,
}


def limits(node: Node | None) -> Limits:
    """Read `limits:`."""
    if node is None:
        return Limits()
    fields = Fields(node, "`limits`", _LIMITS)
    given = {name: value for name in _LIMITS if (value := fields.get(name)) is not None}
    return Limits(**{name: scalar(value, f"`{name}`").read(_LIMITS[name]) for name, value in given.items()})


def environment(node: Node | None, variables: Variables) -> Environment:
    """Read `environment:`."""
    if node is None:
        return Environment()
    fields = Fields(node, "`environment`", ("pass", "set"))
    names = items_of(passed, "`pass`") if (passed := fields.get("pass")) is not None else ()
    settings = pairs(setting, "`set`") if (setting := fields.get("set")) is not None else ()
    return Environment(
        tuple(scalar(name, "each value of `pass`").read(values.variable_glob) for name in names),
        {name.read(values.variable_name): _setting(name, value, variables, str) for name, value in settings},
    )


def _setting(name: Scalar, value: Node, variables: Variables, reader: Reader[str]) -> str:
    # An empty value is a value here: `set: {PAGER: ""}`.
    if not isinstance(value, Scalar):
        raise value.place.error(f"`{name.text}` must be text")
    return variables.plain(value, reader)


def _budget(node: Node | None) -> Budget | None:
    if node is None:
        return None
    fields = Fields(node, "`limit`", ("count", "per"))
    count = scalar(fields.require("count", "how many operations, such as `count: 100`"), "`count`")
    per = fields.get("per")
    return Budget(count.read(values.uses), scalar(per, "`per`").read(values.duration) if per is not None else 0)


def _verbs(fields: Fields, verbs: Mapping[str, frozenset[Kind]], example: str) -> frozenset[Kind]:
    fields.require("do", f"what may be done, such as `do: {example}`")
    read = values.choice("verb", verbs)
    return frozenset().union(*(fields.values("do", lambda verb: verb.read(read)) or ()))


def _host_of(effect: Effect) -> Reader[str]:
    def read(text: str) -> str:
        # An address has the names that were asked for: a block would hold against those who ask, and nobody else.
        if effect is Effect.BLOCK and text.startswith("*"):
            raise ValueError(f"`{text}` in a rule of `block` cannot be kept to; block each name, or the addresses")
        return values.host(text)

    return read


def _protocols(fields: Fields) -> frozenset[str]:
    read = values.choice("protocol", {protocol: protocol for protocol in PROTOCOLS})
    return frozenset(fields.values("protocols", lambda text: text.read(read)) or PROTOCOLS)


def _kernel_kind(text: str) -> Kind:
    if f"kernel.{text}" in UNDECIDABLE_KINDS:
        raise ValueError(f"`{text}` is always denied; leave it out")
    return values.choice("kernel operation", KERNEL_KINDS)(text)
