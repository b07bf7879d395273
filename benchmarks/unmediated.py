"""What never reaches the supervisor: open descriptors, futexes, getpid, beside a filter that allows everything.

The kernel goes a longer way for a process that has any seccomp filter at all. More than that a call should not cost.
"""

from harness import Lab, Row, Side, main

OPERATIONS = ("getpid", "futex", "pread", "pwrite")


def measure(lab: Lab) -> list[Row]:
    sides = [Side("an empty filter", (str(lab.compile("empty_filter")),)), *lab.supervised()]
    rows = []
    for operation in OPERATIONS:
        rows += lab.alternate(
            operation,
            "us",
            lambda s, o=operation: lab.looped(s, o, 200_000, lab.data),
            sides,
        )
    return rows


if __name__ == "__main__":
    main(measure, __doc__)
