"""The badge of a supervisor, seen by other processes."""

import os
import subprocess
import sys

import pytest

from helm_sentry.control.badge import Badge, has_badge
from helm_sentry.errors import SentryError

WEARS = "import sys; from helm_sentry.control.badge import Badge; Badge(); print('on', flush=True); sys.stdin.read()"
POSES = (
    "import socket, sys; s = socket.socket(socket.AF_UNIX); s.bind('\\0helm-sentry/supervisor/' + sys.argv[1]);"
    "s.listen(); print('on', flush=True); sys.stdin.read()"
)


def begin(code: str, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", code, *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "on\n"
    return process


def test_a_supervisor_is_known_as_long_as_it_lives():
    process = begin(WEARS)
    assert [has_badge(process.pid) for _ in range(200)] == [True] * 200  # nobody fills its queue
    process.communicate()
    assert not has_badge(process.pid)


def test_nobody_can_make_a_supervisor_of_another():
    other = begin("print('on', flush=True); import sys; sys.stdin.read()")
    poser = begin(POSES, str(other.pid))
    assert not has_badge(other.pid)
    for process in (poser, other):
        process.communicate()


def test_a_badge_is_taken_off_and_put_on_again():
    for _ in range(2):
        badge = Badge()
        assert has_badge(os.getpid())
        with pytest.raises(SentryError, match="badge"):
            Badge()
        badge.close()
        assert not has_badge(os.getpid())
