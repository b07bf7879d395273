"""Random sequences of system calls, made by both sides of `live_twins` and shrunk by Hypothesis where they differ."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from tests.kernel.file_twins import Argument, Ref, Value, named
from tests.kernel.live_twins import Agent, LiveTwins

STEPS = 50  # in one example
SAMPLE = 1500  # calls, at most, of a run that is the same each time
NO_DESCRIPTOR = 9999
Given = Argument | Callable[[Agent], Argument]


class Descriptor(int):
    """The n-th descriptor that was opened, counted from the last one."""


class Place(tuple[str, int]):
    """A path: words, in which %d stands for the number of a descriptor."""


def flat(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Put what a strategy gives for several arguments at once in their places."""
    return tuple(part for each in arguments for part in (each if type(each) is tuple else (each,)))


class Sequences(RuleBasedStateMachine):
    """One example: both sides from a fresh tree, call by call. A subclass has the rules.

    Attributes:
        twins: both sides.
        openers: calls that give a descriptor.
    """

    twins: ClassVar[LiveTwins]
    openers: ClassVar[frozenset[str]]

    def __init__(self) -> None:
        super().__init__()
        self.descriptors: list[Ref] = []
        self.twins.begin(self.plant)

    def plant(self, root: Path) -> None:
        """Make the tree that the example begins with."""
        raise NotImplementedError

    def make(self, name: str, *arguments: Any, verb: Literal["call", "spawn"] = "call") -> Value:
        """Make a call on both sides; what it gives must be the same."""
        ref, value = self.twins.call(name, *(self.real(argument) for argument in arguments), verb=verb)
        if name in self.openers and isinstance(value[0], int):
            self.descriptors.append(ref)
        return value

    def real(self, argument: Any) -> Given:
        """Put the descriptors that there are in the place of those that were drawn."""
        if isinstance(argument, Place):
            return named(argument[0], self._opened(argument[1])) if self.descriptors else argument[0].replace("%d", "0")
        if isinstance(argument, Descriptor):
            return self._opened(argument) if self.descriptors else NO_DESCRIPTOR
        given: Given = argument
        return given

    def _opened(self, number: int) -> Ref:
        return self.descriptors[-1 - number % len(self.descriptors)]

    def teardown(self) -> None:
        self.twins.finish()


def run_sequences(machine: type[Sequences], twins: LiveTwins, calls: int, steps: int = STEPS) -> int:
    """Make at least `calls` calls in examples of `steps` rules, and return how many were made.

    A short sample is the same each time: what it finds, everybody finds. A long one looks for what is new.
    """
    machine.twins = twins
    same = calls <= SAMPLE
    while (left := calls - twins.calls) > 0:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=-(-left // steps), stateful_step_count=steps, deadline=None, database=None,
                derandomize=same,
                suppress_health_check=list(HealthCheck), phases=(Phase.generate, Phase.shrink),
            ),
        )  # fmt: skip
    return twins.calls
