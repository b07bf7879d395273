"""The wall clock against a steady one."""

import pytest

from helm_sentry.audit.record import clock_set
from helm_sentry.sensor.wall_clock import WallClock

SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("wall", "steady", "wanted"),
    [
        pytest.param(10 * SECOND, 10 * SECOND, 0, id="time passes"),
        pytest.param(3600 * SECOND, SECOND, 3_599_000_000, id="forwards"),
        pytest.param(-3600 * SECOND, SECOND, -3_601_000_000, id="backwards"),
        pytest.param(SECOND + SECOND // 10, SECOND, 0, id="slewed"),
        pytest.param(SECOND, 3 * SECOND, -2_000_000, id="a little back"),
    ],
)
def test_a_jump_is_seen_once(wall: int, steady: int, wanted: int) -> None:
    now = [1_800_000_000 * SECOND, 77 * SECOND]
    clock = WallClock(lambda: now[0], lambda: now[1])
    assert clock.jump() == 0
    now[0] += wall
    now[1] += steady
    assert clock.jump() == wanted
    assert clock.jump() == 0


def test_the_clocks_of_this_machine_go_together() -> None:
    assert WallClock().jump() == 0


def test_the_record_says_which_way() -> None:
    assert clock_set(86_400_250_000)["detail"] == "the wall clock was set forwards by 86400.250 s"
    assert clock_set(-1_500_000)["detail"] == "the wall clock was set backwards by 1.500 s"
