"""Limits: what counts, for how long, and what is about to be used."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from helm_sentry.broker.budgets import Budgets
from helm_sentry.policy.model import Budget


def test_a_limit_for_the_whole_run_never_comes_back():
    budgets = Budgets({"r": Budget(2)})
    assert not budgets.spent(0, Counter())
    budgets.use(0, Counter(r=2))
    assert budgets.spent(0, Counter()) == budgets.spent(1e9, Counter()) == {"r"}


def test_what_is_about_to_be_used_counts():
    budgets = Budgets({"r": Budget(2), "s": Budget(1)})
    assert budgets.spent(0, Counter(r=1)) == frozenset()
    assert budgets.spent(0, Counter(r=2)) == {"r"}
    budgets.use(0, Counter(r=1))
    assert budgets.spent(0, Counter(r=1)) == {"r"}


@given(st.integers(1, 5), st.integers(1, 10), st.lists(st.floats(0, 100, allow_nan=False), max_size=40).map(sorted))
def test_never_more_than_the_count_in_any_window(count, per, asked):
    budgets, granted = Budgets({"r": Budget(count, per)}), []
    for now in asked:
        spent = budgets.spent(now, Counter())
        recent = [at for at in granted if now - at < per]
        assert ("r" in spent) == (len(recent) >= count)
        if not spent:
            budgets.use(now, Counter(r=1))
            granted.append(now)
