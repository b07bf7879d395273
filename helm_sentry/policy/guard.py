"""Rules that depend on more than an operation's object: on a condition, the process, a limit, or arguments.

Such a rule has an opinion, or none, about each operation it matches:

- an allow rule says ALLOW; with a limit that is used up, DENY;
- a block rule says DENY; one with a limit only when that is used up;
- a contextual rule is an allow rule while its condition is true, and a block rule while it is not; what it then says
  is its `otherwise`. A condition that cannot be evaluated denies.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from helm_sentry.decision import Decision, Reason, Verdict
from helm_sentry.operation import Kind, Operation
from helm_sentry.policy import pattern
from helm_sentry.policy.compiler import Finders, finders
from helm_sentry.policy.condition import Condition, ConditionError, compile_condition
from helm_sentry.policy.context import Context
from helm_sentry.policy.match import NOTHING, PathIndex
from helm_sentry.policy.model import Effect, ExecMatch, Rule

PROGRAMS, LIMITS, ARGV, ENVIRONMENT = "programs", "limits", "argv", "environment"
"""What a rule may ask for besides the variables of conditions."""

REST = "..."
"""As the last pattern of `argv`: any number of further arguments."""


@dataclass(frozen=True, slots=True)
class Guard:
    """A rule in the form that `decide` uses.

    Attributes:
        rule: the rule.
        kinds: kinds of operation it may have an opinion about.
        asks_for: what it wants to know besides the operation.
        permits: finds what it allows.
        bars: finds what it refuses.
        uses: finds what uses up its limit.
        programs: finds the programs it holds for, None for all.
        condition: of a contextual rule.
        argv: patterns of arguments, None for any.
        environment: patterns of names and values.
    """

    rule: Rule
    kinds: frozenset[Kind]
    asks_for: frozenset[str]
    permits: Finders
    bars: Finders
    uses: Finders
    programs: PathIndex | None
    condition: Condition | None
    argv: "_Arguments | None"
    environment: tuple[tuple[re.Pattern[str], re.Pattern[str]], ...]

    @classmethod
    def of(cls, rule: Rule) -> "Guard":
        """Return a rule in the form that `decide` uses.

        Raises:
            ValueError: a pattern or a condition that the loader would have refused.
        """
        as_allow, as_block = replace(rule, effect=Effect.ALLOW), replace(rule, effect=Effect.BLOCK)
        permitting = [] if rule.effect is Effect.BLOCK else [as_allow]
        barring = [] if rule.effect is Effect.ALLOW else [as_block]
        condition = compile_condition(rule.when) if rule.when else None
        permits, bars = finders(permitting), finders(barring)
        exec_match = rule.match if isinstance(rule.match, ExecMatch) else ExecMatch(())
        return cls(
            rule=rule,
            kinds=frozenset(permits) | frozenset(bars),
            asks_for=_asked_for(rule, exec_match, condition),
            permits=permits,
            bars=bars,
            uses=finders([as_allow] if rule.limit else [], implied=False),
            programs=_programs(rule.programs) if rule.programs else None,
            condition=condition,
            argv=_Arguments.of(exec_match.argv) if exec_match.argv is not None else None,
            environment=tuple(
                (pattern.compile_text(name), pattern.compile_text(value))
                for name, value in exec_match.environment.items()
            ),
        )

    def opinion(self, operation: Operation, context: Context) -> Decision | None:
        """Return what the rule says about an operation, None when it says nothing."""
        permitted = _finds(self.permits, operation)
        if not (permitted or _finds(self.bars, operation)) or not self._concerns(operation, context):
            return None
        if self.condition is not None and (refusal := self._refusal(self.condition, operation, context)):
            return refusal if _finds(self.bars, operation) else None
        if self.rule.limit and self.rule.id in context.spent and _finds(self.uses, operation):
            return self._says(Verdict.DENY, Reason.BUDGET)
        if self.rule.effect is Effect.BLOCK:
            return None if self.rule.limit else self._says(Verdict.DENY, Reason.BLOCK)
        return self._says(Verdict.ALLOW, Reason.RULE) if permitted else None

    def _refusal(self, condition: Condition, operation: Operation, context: Context) -> Decision | None:
        """Return what a condition that does not hold comes to, None when it holds."""
        try:
            return None if condition.holds(operation, context) else self._says(self.rule.otherwise, Reason.CONDITION)
        except ConditionError as error:
            return self._says(Verdict.DENY, Reason.CONDITION_ERROR, str(error))

    def charged(self, operation: Operation, context: Context) -> bool:
        """Whether an operation that is allowed uses up the rule's limit."""
        return self.rule.limit is not None and _finds(self.uses, operation) and self._concerns(operation, context)

    def _concerns(self, operation: Operation, context: Context) -> bool:
        """Whether the rule holds for the process, and for what an exec is given."""
        if self.programs is not None and not any(_named(self.programs, path) for path in context.process.ancestry):
            return False
        if operation.kind is not Kind.EXEC:
            return True
        if self.argv is not None and not self.argv.match(operation.argv):
            return False
        return all(self._has(operation, *wanted) for wanted in self.environment)

    def _has(self, operation: Operation, name: re.Pattern[str], value: re.Pattern[str]) -> bool:
        """Whether an exec is given a variable; of several of one name each counts for a program that takes it."""
        found = [each.partition("=") for each in operation.environment]
        fits = [value.fullmatch(given) is not None for known, _, given in found if name.fullmatch(known)]
        return any(fits) if self.rule.effect is Effect.BLOCK else bool(fits) and all(fits)

    def _says(self, verdict: Verdict, reason: Reason, detail: str = "") -> Decision:
        return Decision(verdict, reason, self.rule.id, detail)


@dataclass(frozen=True, slots=True)
class _Arguments:
    patterns: tuple[re.Pattern[str], ...]
    more: bool  # further arguments are welcome

    @classmethod
    def of(cls, argv: tuple[str, ...]) -> "_Arguments":
        more = argv[-1:] == (REST,)
        return cls(tuple(map(pattern.compile_text, argv[:-1] if more else argv)), more)

    def match(self, argv: tuple[str, ...]) -> bool:
        wanted = self.patterns
        fits = len(argv) >= len(wanted) if self.more else len(argv) == len(wanted)
        return fits and all(one.fullmatch(given) for one, given in zip(wanted, argv, strict=False))


def is_block(decision: Decision) -> bool:
    """Whether a block rule has decided."""
    return decision.reason is Reason.BLOCK


def _programs(paths: tuple[str, ...]) -> PathIndex:
    index = PathIndex()
    for path in paths:
        index.add(pattern.parse(path), Effect.ALLOW, "program")
    return index


def _named(programs: PathIndex, path: str) -> bool:
    return programs.find_path(path) != NOTHING


def _finds(by_kind: Finders, operation: Operation) -> bool:
    find = by_kind.get(operation.kind)
    return find is not None and find(operation) != NOTHING


def _asked_for(rule: Rule, exec_match: ExecMatch, condition: Condition | None) -> frozenset[str]:
    names = set(condition.names) if condition else set()
    wanted: Mapping[str, object] = {
        PROGRAMS: rule.programs,
        LIMITS: rule.limit,
        ARGV: exec_match.argv is not None or "op.argv" in names,
        ENVIRONMENT: exec_match.environment,
    }
    return frozenset(names) | {name for name, value in wanted.items() if value}
