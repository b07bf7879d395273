"""Two questions: what does an open cost more, beside the least a C supervisor can do, and how long does a start take?"""

from harness import Lab, Row, Side, main


def measure(lab: Lab) -> list[Row]:
    floor = Side("bare C supervisor", (str(lab.compile("bare_supervisor")),))
    sentry = lab.supervised()
    return [
        *lab.alternate(
            "open+read+close of 1 KiB", "us", lambda side: lab.looped(side, "read", 5000, lab.data), [*sentry, floor]
        ),
        *lab.alternate("open alone", "us", lambda side: lab.looped(side, "open", 5000, lab.data), lab.in_the_kernel()),
        *lab.alternate("start of `true`", "ms", lambda side: lab.timed(side, ["/bin/true"]), sentry),
    ]


if __name__ == "__main__":
    main(measure, __doc__, rounds=9)
