"""How often the rules with a limit have been used: the state behind `Context.spent`."""

from collections import Counter, deque
from collections.abc import Mapping

from helm_sentry.policy.model import Budget


class Budgets:
    """The uses of each rule that has a limit, as far back as its limit looks.

    Args:
        budgets: by rule id.
    """

    def __init__(self, budgets: Mapping[str, Budget]) -> None:
        self._budgets = budgets
        # The uses that count are never more than the limit allows.
        self._uses = {rule: deque[float](maxlen=budget.count) for rule, budget in budgets.items()}

    def succeeded_by(self, later: "Budgets") -> "Budgets":
        """Return the limits of later rules with the uses that were made under these."""
        for rule in later._uses.keys() & self._uses.keys():
            later._uses[rule].extend(self._uses[rule])
        return later

    def spent(self, now: float, pending: Counter[str]) -> frozenset[str]:
        """Return the rules whose limit is used up.

        Args:
            now: seconds of a clock that does not go back.
            pending: uses that are about to be made.
        """
        return frozenset(
            rule for rule, budget in self._budgets.items() if self._left(rule, budget, now) <= pending[rule]
        )

    def use(self, now: float, uses: Counter[str]) -> None:
        """Write uses down."""
        for rule in uses.elements():
            self._uses[rule].append(now)

    def _left(self, rule: str, budget: Budget, now: float) -> int:
        uses = self._uses[rule]
        while budget.per and uses and now - uses[0] >= budget.per:
            uses.popleft()
        return budget.count - len(uses)
