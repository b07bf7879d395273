"""Run one of CPython's test modules and write each test's verdict to a file, a line of JSON each.

python one_module.py MODULE FILE [PATTERN...]
"""

import json
import os
import sys
import unittest
from typing import Any

from test import support
from test.support import os_helper

RANK = {"skipped": 0, "passed": 1, "failed": 2, "error": 3}


class Verdicts(unittest.TestResult):
    """Writes the verdict of a test when it ends, so that a run that is cut short leaves what it found."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor, self._process = descriptor, os.getpid()
        self._now: dict[str, tuple[str, str]] = {}

    def stopTest(self, test: unittest.TestCase) -> None:
        super().stopTest(test)
        self._write(test.id())

    def _write(self, name: str) -> None:
        verdict, detail = self._now.pop(name, ("skipped", "no verdict"))
        if os.getpid() == self._process:
            line = json.dumps([name, verdict, detail[-1500:]]) + "\n"
            os.write(self._descriptor, line.encode("utf-8", "backslashreplace"))

    def _note(self, test: Any, verdict: str, detail: str = "") -> None:
        name = getattr(test, "test_case", test).id()
        before = self._now.get(name)
        if before is None or RANK[verdict] > RANK[before[0]]:
            self._now[name] = (verdict, detail)
        if not isinstance(getattr(test, "test_case", test), unittest.TestCase):
            self._write(name)  # setUpClass or setUpModule: no test is stopped

    def addSuccess(self, test: unittest.TestCase) -> None:
        self._note(test, "passed")

    def addExpectedFailure(self, test: unittest.TestCase, err: Any) -> None:
        self._note(test, "passed")

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
        self._note(test, "failed", "unexpected success")

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        self._note(test, "skipped", reason)

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:
        self._note(test, "failed", self._exc_info_to_string(err, test))

    def addError(self, test: unittest.TestCase, err: Any) -> None:
        self._note(test, "error", self._exc_info_to_string(err, test))

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:
        if err is not None:
            self._note(test, "failed", f"{subtest}\n{self._exc_info_to_string(err, test)}")


def main(module: str, place: str, patterns: list[str]) -> None:
    descriptor = os.open(place, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC)
    # Neither other hosts nor minutes of processor time. What test_socketserver calls the network is this host.
    support.use_resources = ["network"] if module == "test_socketserver" else []
    if patterns:
        support.set_match_tests([f"*{pattern}*" for pattern in patterns])
    with os_helper.temp_cwd("cpython-tests"):
        try:
            suite = unittest.defaultTestLoader.loadTestsFromName(f"test.{module}")
        except unittest.SkipTest as skipped:
            os.write(descriptor, (json.dumps([module, "skipped", str(skipped)]) + "\n").encode())
            return
        if patterns:
            support._filter_suite(suite, support.match_test)
        suite.run(Verdicts(descriptor))
        support.reap_children()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
