"""Everything that is wrong with a policy, and what is allowed in it that its author may not have meant.

Errors are all found in one go: what an error is about is left out and the rest read again. Warnings come from asking
the policy: rules are tried on samples of what they name, and the whole policy on a list of telling operations.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from helm_sentry.decision import Reason
from helm_sentry.errors import PolicyError
from helm_sentry.operation import Kind, Operation
from helm_sentry.policy import document, pattern, samples
from helm_sentry.policy.context import Context
from helm_sentry.policy.document import Items, Node, Place, Scalar, Table
from helm_sentry.policy.engine import CompiledPolicy, compile_policy, decide
from helm_sentry.policy.fields import pairs
from helm_sentry.policy.loader import load
from helm_sentry.policy.model import ConnectMatch, Effect, ExecMatch, Policy, Rule
from helm_sentry.policy.question import only
from helm_sentry.policy.sensitive import CHANGES, danger

_MOST_ERRORS = 100
_LISTS = tuple(str(effect) for effect in Effect)

# What a policy is asked about: each would be news to most authors if it were allowed.
_TELLING = (
    ("file.read", "${home}/.ssh/id_ed25519"),
    ("file.read", "${home}/.aws/credentials"),
    ("file.read", "${home}/.config/gcloud/credentials.db"),
    ("file.read", "${home}/.netrc"),
    ("file.read", "${home}/.git-credentials"),
    ("file.read", "${home}/.mozilla/firefox/profile/logins.json"),
    ("file.read", "${home}/.config/google-chrome/Default/Cookies"),
    ("file.read", "${home}/.bash_history"),
    ("file.read", "${workspace}/.env"),
    ("file.read", "/etc/shadow"),
    ("file.read", "/etc/ssh/ssh_host_ed25519_key"),
    ("file.write", "${home}/.bashrc"),
    ("file.write", "${home}/.profile"),
    ("file.write", "${home}/.gitconfig"),
    ("file.create", "${home}/.ssh/authorized_keys"),
    ("file.create", "${home}/.config/autostart/x.desktop"),
    ("file.create", "/etc/cron.d/x"),
    ("file.create", "/etc/profile.d/x.sh"),
    ("unix.connect", "/run/docker.sock"),
    ("unix.connect", "/run/podman/podman.sock"),
    ("unix.connect", "/run/dbus/system_bus_socket"),
    ("unix.connect", "/run/user/1000/bus"),
    ("unix.connect", "${home}/.gnupg/S.gpg-agent"),
)
_METADATA = ("169.254.169.254", "fd00:ec2::254")


@dataclass(frozen=True, slots=True)
class Remark:
    """Something that is no error and may not be meant.

    Attributes:
        place: where the rule stands; without a line when it is not in the file itself.
        rule: id of the rule.
        message: what is the matter and what to write instead.
    """

    place: Place
    rule: str
    message: str

    def __str__(self) -> str:
        """Return it as one line."""
        place = ":".join(str(part) for part in (self.place.source, self.place.line, self.place.column) if part)
        return f"{place}: warning: rule `{self.rule}`: {self.message}"


def errors(text: str, source: str, variables: Mapping[str, str]) -> list[PolicyError]:
    """Return everything that is wrong with the text of a policy, in the order it is found."""
    found: list[PolicyError] = []
    left_out: list[Place] = []
    names: set[str] = set()

    def parse(content: str, name: str) -> Node:
        root = document.parse(content, name)
        here = [place for place in left_out if place.source == name]
        return _pruned(root, here) if here else root

    while len(found) < _MOST_ERRORS:
        try:
            load(text, source, variables, parse=parse)
        except PolicyError as error:
            place = Place(error.source, error.line, error.column)
            if not any(f"unknown variable `{name}`" in error.message for name in names):
                found.append(error)
            names |= _variable_at(text, source, place)
            if not error.line or place in left_out or not _can_be_left_out(text, source, place):
                return found
            left_out.append(place)
        else:
            return found
    return found


def warnings(
    policy: Policy, text: str, variables: Mapping[str, str], real: Callable[[str], str] = lambda path: path
) -> list[Remark]:
    """Return what in a policy may not be meant.

    Args:
        policy: the policy, loaded.
        text: the file it was loaded from.
        variables: the run's variables.
        real: what a path leads to on this host, links followed.
    """
    places = rule_places(document.parse(text, policy.source))
    compiled, context = compile_policy(policy), Context(policy.agent)
    plain = only(policy, *(rule for rule in policy.rules if not rule.guarded))
    found = []
    for rule in policy.rules:
        if rule.id in places:
            tried = [] if rule.guarded else list(_tried(plain, rule, context))
            found += [Remark(places[rule.id], rule.id, each) for each in (*tried, *_through_links(rule, real))]
    found += _wide(compiled, context, variables, places)
    found += _changeable(policy, compiled, context, places)
    found += _anybodys(policy, places)
    return list(dict.fromkeys(found))


def rule_places(root: Node) -> dict[str, Place]:
    """Return where each rule of a file stands, by its id."""
    found = {}
    for key, value in root.entries if isinstance(root, Table) else ():
        for item in value.items if key.text in _LISTS and isinstance(value, Items) else ():
            for name, identifier in item.entries if isinstance(item, Table) else ():
                if name.text == "id" and isinstance(identifier, Scalar):
                    found[identifier.text] = identifier.place
    return found


def _tried(policy: Policy, rule: Rule, context: Context) -> Iterator[str]:
    """Yield what follows from trying a rule on samples of what it names, in a policy of plain rules."""
    some = list(samples.operations(rule))
    if not some:
        return
    whole = compile_policy(policy)
    with_it = [decide(whole, operation, context) for operation in some]
    if rule.effect is Effect.ALLOW and all(decision.reason is Reason.BLOCK for decision in with_it):
        names = ", ".join(f"`{name}`" for name in sorted({decision.rule for decision in with_it}))
        yield f"never allows anything: block rule {names} refuses all it names; remove one of them"
        return
    others = compile_policy(only(policy, *(other for other in policy.rules if other is not rule)))
    without = [decide(others, operation, context) for operation in some]
    same = all(one.verdict is other.verdict for one, other in zip(with_it, without, strict=True))
    if same and all(decision.reason in (Reason.RULE, Reason.BLOCK) for decision in without):
        names = ", ".join(f"`{name}`" for name in sorted({decision.rule for decision in without}))
        yield f"adds nothing: {names} decides all of it already; remove this rule"


def _through_links(rule: Rule, real: Callable[[str], str]) -> Iterator[str]:
    """Yield the paths of a rule that are never met on this host, because a link stands in them."""
    for text in getattr(rule.match, "paths", ()):
        parsed = pattern.parse(text)
        there = real(parsed.prefix) if parsed.prefix else ""
        if there and there != parsed.prefix and rule.effect is not Effect.BLOCK:
            rest = text[len(pattern.quote(parsed.prefix)) :]
            yield f"`{text}` is never met on this host: a link leads to `{pattern.quote(there)}{rest}`; write that"


def _wide(
    compiled: CompiledPolicy, context: Context, variables: Mapping[str, str], places: Mapping[str, Place]
) -> Iterator[Remark]:
    """Yield the rules that allow one of the telling operations, with what they allow."""
    allowed: dict[tuple[str, str], list[str]] = {}
    for operation in _telling(variables):
        decision = decide(compiled, operation, context)
        if decision.allowed:
            asked = f"{operation.kind} {operation.target}"
            allowed.setdefault((decision.rule, danger(operation)), []).append(asked)
    for (rule, why), some in allowed.items():
        place = places.get(rule, Place(compiled.policy.source))
        yield Remark(place, rule, f"wider than it looks: it allows {', '.join(some)}: {why}")


def _telling(variables: Mapping[str, str]) -> Iterator[Operation]:
    for kind, text in _TELLING:
        path = text
        for name in ("home", "workspace"):
            path = path.replace(f"${{{name}}}", variables.get(name, ""))
        yield Operation(Kind(kind), path=path)
    for address in _METADATA:
        yield Operation(Kind.NET_CONNECT, address=address, port=80, protocol="tcp")


def _changeable(
    policy: Policy, compiled: CompiledPolicy, context: Context, places: Mapping[str, Place]
) -> Iterator[Remark]:
    """Yield the exec rules whose programs the agent can write itself."""
    for rule in policy.rules:
        if not isinstance(rule.match, ExecMatch) or rule.effect is Effect.BLOCK:
            continue
        for text in rule.match.paths:
            for path in samples.paths(text):
                writes = (decide(compiled, Operation(kind, path=path), context) for kind in sorted(CHANGES))
                allowed = next((decision for decision in writes if decision.allowed), None)
                if allowed:
                    message = f"`{text}` may be run and, by rule `{allowed.rule}`, changed: it can be the agent's code"
                    yield Remark(places.get(rule.id, Place(policy.source)), rule.id, message)
                    break


def _anybodys(policy: Policy, places: Mapping[str, Place]) -> Iterator[Remark]:
    """Yield the names beneath a whole top-level domain."""
    for rule in policy.grants:
        for host in rule.match.hosts if isinstance(rule.match, ConnectMatch) else ():
            if host.startswith("*.") and "." not in host[2:]:
                message = f"wider than it looks: anybody can own a name beneath `{host}`; write a domain, or the names"
                yield Remark(places.get(rule.id, Place(policy.source)), rule.id, message)


# What may be left out of a file so that the rest still reads: a member of a list of rules, an entry of an inner table.
def _pruned(root: Node, places: list[Place]) -> Node:
    entries = []
    for key, value in pairs(root, "a policy"):
        if any(key.place == place or value.place == place for place in places):
            continue
        if isinstance(value, Items) and key.text in _LISTS:
            value = Items(tuple(item for item in value.items if not _holds(item, places)), value.place)
        elif isinstance(value, Table):
            kept = tuple(pair for pair in value.entries if not (_holds(pair[0], places) or _holds(pair[1], places)))
            value = Table(kept, value.place)
        elif _holds(value, places):
            continue
        entries.append((key, value))
    return Table(tuple(entries), root.place)


def _holds(node: Node, places: list[Place]) -> bool:
    return any(node.place == place for place in places) or any(_holds(child, places) for child in _children(node))


def _children(node: Node) -> Iterator[Node]:
    if isinstance(node, Items):
        yield from node.items
    elif isinstance(node, Table):
        for key, value in node.entries:
            yield key
            yield value


def _can_be_left_out(text: str, source: str, place: Place) -> bool:
    if place.source != source:
        return False  # what it extends is somebody else's file: its first error is enough
    try:
        root = document.parse(text, source)
    except PolicyError:
        return False
    return root.place != place and _holds(root, [place])


def _variable_at(text: str, source: str, place: Place) -> set[str]:
    """Return the variable whose definition is at a place, so that its uses are no further errors."""
    try:
        root = document.parse(text, source)
    except PolicyError:
        return set()
    for key, value in root.entries if isinstance(root, Table) else ():
        if key.text == "variables" and isinstance(value, Table):
            return {name.text for name, content in value.entries if place in (name.place, content.place)}
    return set()
