"""A learnt policy as text: rules that read well, each path with what it rests on. Pure.

Names come from programs and may hold anything: in the text they are quoted, in comments they are escaped.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from helm_sentry.operation import Kind, Operation
from helm_sentry.policy import pattern
from helm_sentry.policy.explain import quoted, suggestion
from helm_sentry.policy.grants import Evidence, Grant
from helm_sentry.policy.model import FILE_KINDS
from helm_sentry.policy.sensitive import SECRET_NAMES

_FEW = 3
_DNS = 53
_MOST_WITHHELD = 200
_WIDTH = 110
_NUMBER = re.compile("[0-9]+")


@dataclass(slots=True)
class Withheld:
    """Something that was done and is not granted.

    Attributes:
        operation: what was done.
        why: why it is not granted.
        evidence: where it was seen.
    """

    operation: Operation
    why: str
    evidence: Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What was learnt.

    Attributes:
        header: schema, name, extends and environment.
        commands: command line of each run.
        programs: what may be executed.
        files: what may be done to files.
        names: what may be looked at.
        sockets: Unix sockets.
        network: destinations and ports of the machine.
        secrets: patterns of what no rule above opens, with the reason for each group.
        withheld: what was done and is not granted.
    """

    header: str
    commands: tuple[tuple[str, ...], ...]
    programs: tuple[Grant, ...] = ()
    files: tuple[Grant, ...] = ()
    names: tuple[Grant, ...] = ()
    sockets: tuple[Grant, ...] = ()
    network: tuple[tuple[Operation, Evidence], ...] = ()
    secrets: tuple[tuple[str, tuple[str, ...]], ...] = ()
    withheld: tuple[Withheld, ...] = ()

    @property
    def once(self) -> int:
        """Number of grants that rest on a single operation."""
        grants = (*self.programs, *self.files, *self.names, *self.sockets)
        evidence = [*(grant.evidence for grant in grants), *(seen for _, seen in self.network)]
        return sum(1 for each in evidence if each.times == 1)

    @property
    def guessed(self) -> int:
        """Number of grants that were generalised."""
        return sum(1 for grant in (*self.programs, *self.files, *self.names, *self.sockets) if grant.remark)


def with_secrets(draft: Draft, used: Iterable[str], renamed: Iterable[str], made: Iterable[str]) -> Draft:
    """Return the draft with block rules for what secrets are called, wherever a pattern covers a whole directory.

    Args:
        draft: rules that allow.
        used: names that the program itself was seen to use; they are left out.
        renamed: places where it renamed something, as patterns. A block rule refuses renames around what it names.
        made: places that it made itself, where no secret of anybody else can be.
    """
    used, renamed, made = set(used), tuple(renamed), set(made)
    names = [name for name in SECRET_NAMES if not any(fnmatchcase(each, name) for each in used)]
    whole = {root: last for root, last in _roots(draft) if last == "**"}
    secrets = []
    for root, last in dict(_roots(draft)).items():
        covered = any(root.startswith(f"{other}/") for other in whole)
        if covered or root in made or not names:
            continue
        flat = last == "*" or any(place.startswith(f"{root}/") for place in renamed)
        why = "only directly in it, because files are renamed there" if flat and last == "**" else ""
        secrets.append((why, tuple(f"{root}{'/' if flat else '/**/'}{name}" for name in names)))
    return replace(draft, secrets=tuple(secrets))


def without_secrets(draft: Draft, rules: Iterable[str]) -> Draft:
    """Return the draft without some of its block rules, given by id."""
    unwanted = set(rules)
    kept = [group for number, group in enumerate(draft.secrets, 1) if f"secrets-{number}" not in unwanted]
    return replace(draft, secrets=tuple(kept))


def _roots(draft: Draft) -> list[tuple[str, str]]:
    """Return the directories that are allowed as a whole, with `*` or `**`; those with `**` last."""
    parts = [grant.pattern.rpartition("/") for grant in draft.files if grant.head != "${tmp}"]
    return sorted(
        {(root, last) for root, _, last in parts if last in ("*", "**")}, key=lambda entry: (entry[1], entry[0])
    )


def completed(draft: Draft, files: tuple[Grant, ...], names: tuple[Grant, ...]) -> Draft:
    """Return the draft with these file rules and these names that may be looked at."""
    return replace(draft, files=files, names=names)


def text(draft: Draft) -> str:
    """Return the policy file."""
    runs = len(draft.commands)
    lines = [*_opening(draft), draft.header.rstrip(), "allow:"]
    used: set[str] = set()
    lines += _paths_rule(_free("programs", used), "exec", (), draft.programs, runs)
    for identifier, verbs, grants in _by_verbs(draft.files):
        lines += _paths_rule(_free(identifier, used), "file", verbs, grants, runs)
    lines += _paths_rule(_free("names", used), "file", ("stat",), draft.names, runs)
    for verb in ("connect", "bind"):
        sockets = [grant for grant in draft.sockets if f"unix.{verb}" in grant.verbs]
        lines += _paths_rule(_free(f"sockets-{verb}", used), "unix", (verb,), sockets, runs)
    for operation, evidence in draft.network:
        lines += _network_rule(operation, evidence, used, runs)
    if lines[-1] == "allow:":
        lines[-1] = "allow: []"
    return "\n".join([*lines, *_secrets(draft), *_withheld(draft, runs)]) + "\n"


def _opening(draft: Draft) -> Iterator[str]:
    runs = len(draft.commands)
    yield f"# Learnt from {runs} run{'s' if runs > 1 else ''}:"
    for command in dict.fromkeys(draft.commands):
        yield "#   " + pattern.printable(" ".join(command))[:_WIDTH]
    yield "# It allows what was seen there and what `extends` allows. Read it before you use it: above all what was"
    yield "# seen once, what is generalised, and at the end what was done and is not granted."


def _by_verbs(grants: Sequence[Grant]) -> Iterator[tuple[str, tuple[str, ...], list[Grant]]]:
    groups: dict[tuple[str, tuple[str, ...]], list[Grant]] = {}
    for grant in grants:
        verbs = tuple(verb for verb, kind in FILE_KINDS.items() if kind in grant.verbs)
        groups.setdefault((grant.head, verbs), []).append(grant)
    for (head, verbs), members in sorted(groups.items()):
        words = "-".join(verbs) if len(verbs) <= _FEW else "change"
        yield f"{head.strip('${}') or 'system'}-{words}", verbs, members


def _paths_rule(
    identifier: str, matcher: str, verbs: Sequence[str], grants: Sequence[Grant], runs: int
) -> Iterator[str]:
    if not grants:
        return
    yield f"  - id: {identifier}"
    yield f"    {matcher}:"
    if verbs:
        yield f"      do: [{', '.join(verbs)}]"
    yield "      paths:"
    for grant in sorted(grants, key=lambda grant: grant.pattern):
        remark = f"; {pattern.printable(grant.remark)}" if grant.remark else ""
        yield f"        - {quoted(grant.pattern)}  # {_seen(grant.evidence, runs)}{remark}"


def _network_rule(operation: Operation, evidence: Evidence, used: set[str], runs: int) -> Iterator[str]:
    _, name, match = suggestion(operation).splitlines()
    identifier = _free(name.partition("id: ")[2], used)
    yield f"  # {_seen(evidence, runs)}{_about(operation)}"
    yield f"  - id: {identifier}"
    yield match


def _about(operation: Operation) -> str:
    if operation.port == _DNS:
        return "; a name server: whoever may ask it can send data out in the names; name the hosts with --host instead"
    if operation.kind is not Kind.NET_BIND and not operation.hosts and not operation.own:
        return "; an address without a name: if it belongs to one, give it with --host"
    return ""


def _seen(evidence: Evidence, runs: int) -> str:
    run, seq, syscall = evidence.first
    first = f"record {seq} ({syscall})" if runs == 1 else f"run {run}, record {seq} ({syscall})"
    if evidence.times == 1:
        return f"seen once: {first}"
    share = "" if runs == 1 else f" in {len(evidence.runs)} of {runs} runs"
    return f"{evidence.times} times{share}; first: {first}"


def _secrets(draft: Draft) -> Iterator[str]:
    if not draft.secrets:
        return
    yield "block:"
    yield "  # Names that secrets are kept under, in directories that are allowed as a whole."
    for number, (why, paths) in enumerate(draft.secrets, 1):
        if why:
            yield f"  # {why}"
        yield f"  - id: secrets-{number}"
        yield "    file:"
        yield "      do: [read, write, create, delete, rename, link, truncate, chmod, chown, xattr, utime, mknod]"
        yield from _wrapped("      paths: [", [quoted(path) for path in paths])


def _wrapped(start: str, words: Sequence[str]) -> Iterator[str]:
    line, inset = start, " " * len(start)
    for number, word in enumerate(words, 1):
        part = word + (", " if number < len(words) else "]")
        if len(line) + len(part) > _WIDTH and line.strip():
            yield line.rstrip()
            line = inset
        line += part
    yield line


def _withheld(draft: Draft, runs: int) -> Iterator[str]:
    if not draft.withheld:
        return
    yield "# Done in the runs and not granted; what of this the program really needs, add by hand:"
    alike: dict[tuple[str, str, str], list[Withheld]] = {}
    for each in draft.withheld:
        key = (each.operation.kind, _NUMBER.sub("0", each.operation.target), each.why)
        alike.setdefault(key, []).append(each)
    for (kind, _, why), some in list(alike.items())[:_MOST_WITHHELD]:
        evidence = Evidence()
        for each in some:
            evidence.add(each.evidence)
        more = f" and {len(some) - 1} like it" if len(some) > 1 else ""
        yield f"#   {kind} {pattern.printable(some[0].operation.target)}{more}: {why}; {_seen(evidence, runs)}"
    if len(alike) > _MOST_WITHHELD:
        yield f"#   and {len(alike) - _MOST_WITHHELD} more"


def _free(identifier: str, used: set[str]) -> str:
    number, candidate = 1, identifier
    while candidate in used:
        number += 1
        candidate = f"{identifier}-{number}"
    used.add(candidate)
    return candidate
