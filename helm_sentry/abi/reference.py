"""The tables of docs/syscalls.md, made from the syscall table.

`python -m helm_sentry.abi.reference docs/syscalls.md` brings the page up to date: the table of each class stands
between `<!-- from the table: CLASS -->` and `<!-- end -->`.
"""

import errno
import re
import sys
from pathlib import Path

from helm_sentry.abi.arch import ARCHES
from helm_sentry.abi.syscalls import GROUPS, Row, Test, Treatment, rows

_TABLE = re.compile(r"(<!-- from the table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_HEADS = ("call", *ARCHES, "treatment", "judged as", "reason")


def fill(page: str) -> str:
    """Return the page with every table made anew.

    Raises:
        KeyError: a table of a class that no call belongs to.
    """
    return _TABLE.sub(lambda found: f"{found[1]}{_table(found[2])}{found[3]}", page)


def _table(group: str) -> str:
    if group not in GROUPS:
        raise KeyError(group)
    lines = [_HEADS, *(_line(row) for row in rows() if row.group == group)]
    return "".join(f"| {' | '.join(line)} |\n" + f"|{'---|' * len(line)}\n" * (line is _HEADS) for line in lines)


def _line(row: Row) -> tuple[str, ...]:
    numbers = (str(row.numbers.get(arch, "")) for arch in ARCHES)
    reason = row.reason + (f". Continued: {row.continue_reason}" if row.continue_reason else "")
    return (f"`{row.name}`", *numbers, _treatment(row), f"`{row.operation}`" if row.operation else "", reason)


def _treatment(row: Row) -> str:
    words = [str(row.treatment)]
    if row.errno:
        words.append(errno.errorcode[row.errno])
    if row.tests:
        words.append(f"if {_tests(row, row.tests)}, else {Treatment.ALLOW}")
    if row.held:
        words.append(f"or, where the kernel holds reading, if {_tests(row, row.held)}")
    return " ".join(words)


def _tests(row: Row, tests: tuple[Test, ...]) -> str:
    """Return tests in words, those of the same sort together."""
    values: dict[str, list[str]] = {}
    for test in tests:
        values.setdefault(f"{row.arguments[test.argument].name} {test.operator}", []).append(f"{test.value:#x}")
    return " or ".join(f"`{asked} {' '.join(given)}`" for asked, given in values.items())


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(fill(path.read_text()))
