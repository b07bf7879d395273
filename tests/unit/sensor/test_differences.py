"""Two accounts of one run: when they agree, and what is said when they do not."""

from dataclasses import replace

import pytest

from helm_sentry.sensor.records import Counts
from helm_sentry.sensor.witness import Books, differences

KERNEL = Counts(finished=90, carried=10, execs=8, forks=3, exits=4)
BOOKS = Books(received=100, continued=10, recorded=70, unjudged=30, execs=8)


def codes(kernel: Counts, books: Books, final: bool) -> set[str]:
    return {code for code, _ in differences(kernel, books, final=final)}


@pytest.mark.parametrize("final", [False, True])
def test_equal_accounts_agree(final: bool) -> None:
    assert codes(KERNEL, BOOKS, final) == set()


@pytest.mark.parametrize(
    ("kernel", "books", "code"),
    [
        pytest.param({"finished": 91}, {}, "answered", id="somebody else answered a call"),
        pytest.param({"carried": 11, "finished": 89}, {}, "carried", id="the kernel carried out what was not let"),
        pytest.param({"execs": 9}, {}, "execs", id="a program ran unverified"),
        pytest.param({"lost_events": 1}, {}, "lost-events", id="the ring buffer was full"),
        pytest.param({"lost_tasks": 1}, {}, "lost-threads", id="a thread was not watched"),
    ],
)
@pytest.mark.parametrize("final", [False, True])
def test_a_gap_is_found_at_once(kernel: dict[str, int], books: dict[str, int], code: str, final: bool) -> None:
    assert codes(replace(KERNEL, **kernel), replace(BOOKS, **books), final) == {code}


@pytest.mark.parametrize(
    ("kernel", "books", "code"),
    [
        pytest.param({"finished": 89}, {}, "unseen", id="a call the kernel did not see"),
        pytest.param({"carried": 9, "finished": 91}, {}, "unseen", id="a call that was let and not carried out"),
        pytest.param({"forks": 4}, {}, "processes", id="a process that never ended"),
        pytest.param({"exits": 5}, {}, "processes", id="a process that never began"),
        pytest.param({}, {"recorded": 69}, "unrecorded", id="a call without a record"),
    ],
)
def test_a_gap_that_only_the_end_shows(kernel: dict[str, int], books: dict[str, int], code: str) -> None:
    assert codes(replace(KERNEL, **kernel), replace(BOOKS, **books), True) == {code}
    assert codes(replace(KERNEL, **kernel), replace(BOOKS, **books), False) == set()


def test_calls_of_killed_threads_are_no_gap() -> None:
    """A thread killed while its call was in our hands: received, and never finished."""
    assert codes(replace(KERNEL, finished=88, interrupted=2), BOOKS, True) == set()


def test_a_call_in_our_hands_is_no_gap_before_the_end() -> None:
    assert codes(replace(KERNEL, finished=80), replace(BOOKS, recorded=60), False) == set()


def test_an_agent_that_filters_itself_is_held_to_what_the_kernel_carries_out() -> None:
    filtered = replace(KERNEL, finished=95, own_filters=1)
    assert codes(filtered, BOOKS, True) == set()
    assert codes(replace(filtered, carried=11), BOOKS, True) == {"carried"}
