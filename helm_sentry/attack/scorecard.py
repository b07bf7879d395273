"""What came of the attacks, and what to do about it. Pure."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from helm_sentry.attack.catalogue import Attack

_THROUGH, _STOPPED, _NOT_POSSIBLE, _TIMED_OUT = 0, 1, 2, -1
_KILLED = 128


class Result(StrEnum):
    """What came of one attack."""

    STOPPED = "stopped"
    THROUGH = "got through"
    NOT_APPLICABLE = "not applicable"
    UNPROVEN = "unproven"
    """The control did not succeed, so nothing is shown."""


@dataclass(frozen=True, slots=True)
class Performance:
    """One attack as it was played.

    Attributes:
        attack: which.
        status: the program's exit status, 128 and the number of a signal, -1 out of time, None without an end.
        said: what it wrote.
        witnessed: something arrived where it should not.
        rules: rules of the user's policy that allowed something in the arena which no rule of ours names.
    """

    attack: Attack
    status: int | None
    said: str
    witnessed: bool
    rules: tuple[str, ...]

    def witness(self, seen: bool) -> "Performance":
        """Return the same with what a witness saw later."""
        return replace(self, witnessed=seen)

    @property
    def through(self) -> bool:
        """Whether it got through: by its own word, and a witness's where there is one."""
        claimed = self.status == _THROUGH
        return self.witnessed if self.attack.witness else claimed


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One line of the scorecard.

    Attributes:
        name: the attack's name.
        group: its family.
        attacks: what it tries.
        promise: what holds against it.
        control: how it is seen that it succeeds without a supervisor.
        natively: what came of it there.
        result: what came of it under the supervisor.
        detail: what else is known, empty when it was simply stopped.
        advice: what to do, empty when nothing is to be done.
    """

    name: str
    group: str
    attacks: str
    promise: str
    control: str
    natively: str
    result: Result
    detail: str = ""
    advice: str = ""

    @classmethod
    def left_behind(cls, group: str, text: str) -> "Outcome":
        """Return the outcome of a run that left something behind which it should not have."""
        return cls(
            name=f"{group}_run",
            group=group,
            attacks="what the attacks of this group leave behind",
            promise="the run ends well, its log verifies, and nothing outside has changed",
            control="",
            natively="",
            result=Result.THROUGH,
            detail=text,
            advice="report it, with the policy",
        )


def judge(control: Performance, performance: Performance) -> Outcome:
    """Return what came of an attack, given its control."""
    attack = performance.attack
    result, detail = _result(control, performance)
    rules = ", ".join(f"`{rule}`" for rule in sorted(performance.rules))
    advice = f"your rule {rules} allows it; {attack.advice}" if rules else attack.advice
    return Outcome(
        name=attack.name,
        group=attack.group,
        attacks=attack.attacks,
        promise=attack.promise,
        control=attack.control,
        natively=_natively(control),
        result=result,
        detail=detail,
        advice=advice if result is Result.THROUGH else "",
    )


def _result(control: Performance, performance: Performance) -> tuple[Result, str]:
    said = " ".join(performance.said.split())
    if performance.through:
        return Result.THROUGH, said
    if performance.status == _TIMED_OUT:
        return Result.THROUGH, "it did not end: the supervisor does not answer"
    if performance.status is None:
        return Result.THROUGH, "the run ended before its time"
    if control.status == _NOT_POSSIBLE:
        return Result.NOT_APPLICABLE, " ".join(control.said.split())
    if not control.through:
        return Result.UNPROVEN, f"natively: status {control.status}, {' '.join(control.said.split())}"
    if performance.status in (_THROUGH, _STOPPED, _NOT_POSSIBLE, _KILLED + 9):
        return Result.STOPPED, ""
    return Result.UNPROVEN, f"the program failed: status {performance.status}, {said}"


def _natively(control: Performance) -> str:
    if control.through:
        return "succeeds"
    return "not possible" if control.status == _NOT_POSSIBLE else "fails"


def counts(outcomes: Iterable[Outcome]) -> Counter[Result]:
    """Return how many attacks had which result."""
    return Counter(outcome.result for outcome in outcomes)


def lines(outcome: Outcome) -> Iterator[str]:
    """Yield the lines of one outcome."""
    yield f"  {outcome.name:<28} {outcome.natively:<13} {outcome.result}"
    if outcome.result is not Result.STOPPED and outcome.detail:
        yield f"      {outcome.detail}"
    if outcome.advice:
        yield f"      what to do: {outcome.advice}"


def closing(outcomes: list[Outcome]) -> str:
    """Return the last line."""
    count = counts(outcomes)
    controls = sum(outcome.natively == "succeeds" for outcome in outcomes)
    return (
        f"{len(outcomes)} attacks, {controls} of which succeed without a supervisor: "
        f"{count[Result.STOPPED]} stopped, {count[Result.THROUGH]} got through, "
        f"{count[Result.NOT_APPLICABLE]} not applicable here"
        + (f", {count[Result.UNPROVEN]} unproven" if count[Result.UNPROVEN] else "")
    )
