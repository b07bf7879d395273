"""Other terminals of the same user are out of reach; those that a run makes itself are not."""

import os
import select
from collections.abc import Iterator

import pytest

from tests.kernel.conftest import PYTHON, Sandbox

pytestmark = pytest.mark.kernel

TYPE = "import os, sys; os.write(os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY), b'typed\\n')"
# Opened by name, as programs without TIOCGPTPEER do; then by a child that does not hold the master.
OWN = """
import os, subprocess, sys
master, slave = os.openpty()
os.set_inheritable(master, False)
name = os.ttyname(slave)
os.close(slave)
os.write(os.open(name, os.O_RDWR | os.O_NOCTTY), b"one")
print(os.read(master, 99))
subprocess.run([sys.executable, "-c", f"import os; os.write(os.open({name!r}, os.O_WRONLY | os.O_NOCTTY), b'two')"])
print(os.read(master, 99))
"""
# A number that was the run's and is the user's by now.
STALE = """
import os, sys
master, slave = os.openpty()
name = os.ttyname(slave)
os.close(slave)
os.close(master)
print(name, flush=True)
sys.stdin.readline()
try:
    os.open(name, os.O_RDWR | os.O_NOCTTY)
except OSError as error:
    print(error.errno)
"""


@pytest.fixture
def terminal(sandbox: Sandbox) -> Iterator[tuple[int, str]]:
    master, slave = os.openpty()
    os.fchown(slave, sandbox.uid, -1)
    yield master, os.ttyname(slave)
    os.close(master)
    os.close(slave)


def test_another_terminal_of_the_user(sandbox: Sandbox, terminal: tuple[int, str]) -> None:
    master, name = terminal
    assert sandbox.native([PYTHON, "-c", TYPE, name]).status == 0
    assert os.read(master, 99) == b"typed\r\n"
    text = "extends: [default]\nallow:\n  - {id: all, file: {do: [all], paths: ['/dev/**']}}\n"
    for policy in ("default", sandbox.policy(text)):
        result = sandbox.run([PYTHON, "-c", TYPE, name], policy)
        assert "Permission denied" in result.stderr
        assert [(r["target"], r["rule"], r["errno"]) for r in result.denials("file.read")] == [
            (name, "sentry/own-terminals", "EACCES")
        ]
    assert not select.select([master], [], [], 0)[0]


def test_own_terminals(sandbox: Sandbox) -> None:
    natively, supervised = sandbox.native([PYTHON, "-c", OWN]), sandbox.run([PYTHON, "-c", OWN])
    assert natively.stdout == supervised.stdout == "b'one'\nb'two'\n", supervised.stderr
    assert supervised.denials() == []


def test_a_number_that_is_the_users_again(sandbox: Sandbox) -> None:
    policy = sandbox.policy("extends: [default]\n")
    process = sandbox.popen(sandbox.argv([PYTHON, "-c", STALE], policy), stdin=-1, stdout=-1, stderr=-1)
    assert process.stdout
    name = process.stdout.readline().strip()
    held = [os.openpty()]
    while os.ttyname(held[-1][1]) != name and len(held) < 100:
        held.append(os.openpty())
    assert os.ttyname(held[-1][1]) == name
    os.fchown(held[-1][1], sandbox.uid, -1)
    out, err = process.communicate("\n", timeout=60)
    assert out == "13\n", err
    for pair in held:
        os.close(pair[0])
        os.close(pair[1])
