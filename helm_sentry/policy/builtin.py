"""Rules that hold in every run, whatever the policy says: the supervisor's own files are out of reach."""

from dataclasses import replace

from helm_sentry.operation import Kind
from helm_sentry.policy.model import FILE_KINDS, Effect, FileMatch, Policy, Rule, UnixMatch
from helm_sentry.policy.pattern import quote

_EVERY_VERB = frozenset(FILE_KINDS.values())
_LOOKING = frozenset({Kind.FILE_READ, Kind.FILE_LIST, Kind.FILE_STAT})


def with_builtin_rules(policy: Policy, secrets: tuple[str, ...], sources: tuple[str, ...], key: str = "") -> Policy:
    """Return the policy with the supervisor's own block rules added.

    Args:
        policy: the effective policy.
        secrets: directories that an agent may not even look into: keys, logs, control sockets.
        sources: files and directories that decide what the next run may do: policies, the supervisor's program.
        key: the private key file, where it lies outside the secret directories.
    """
    hidden = tuple(f"{quote(path)}/**" for path in secrets)
    hidden += (quote(key),) if key else ()
    fixed = tuple(pattern for path in sources for pattern in (quote(path), f"{quote(path)}/**"))
    added = (
        Rule("sentry/state", Effect.BLOCK, FileMatch(_EVERY_VERB, hidden)),
        Rule("sentry/state-sockets", Effect.BLOCK, UnixMatch(frozenset({Kind.UNIX_CONNECT, Kind.UNIX_BIND}), hidden)),
        Rule("sentry/sources", Effect.BLOCK, FileMatch(_EVERY_VERB - _LOOKING, fixed)),
    )
    known = {rule.id for rule in added}  # the policy of an earlier run has them already
    return replace(policy, block=tuple(rule for rule in policy.block if rule.id not in known) + added)
