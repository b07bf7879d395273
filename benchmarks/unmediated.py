"""What never reaches the supervisor must cost nothing: open descriptors, futexes, getpid."""

from harness import Lab, Row, main

OPERATIONS = ("getpid", "futex", "pread", "pwrite")


def measure(lab: Lab) -> list[Row]:
    rows = []
    for operation in OPERATIONS:
        rows += lab.alternate(
            operation,
            "us",
            lambda s, o=operation: lab.looped(s, o, 200_000, lab.data),
            lab.supervised(),
        )
    return rows


if __name__ == "__main__":
    main(measure, __doc__)
