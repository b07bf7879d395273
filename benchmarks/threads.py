"""How many opens a second are decided for 1, 2, 4 and 8 threads of an agent; here more is better."""

from harness import Figures, Lab, Row, Side, main


def measure(lab: Lab) -> list[Row]:
    sides = [Side("bare C supervisor", (str(lab.compile("bare_supervisor")),)), *lab.supervised()]
    rows = []
    for threads in (1, 2, 4, 8):

        def rate(side: Side, threads: int = threads) -> Figures:
            count = max(100, int(20_000 * lab.scale / threads))
            each = float(lab.run(side, [lab.loop, "threads", str(count), str(lab.data), str(threads)]))
            return each, each, each

        rows += lab.alternate(f"{threads} thread{'s' * (threads > 1)}", "opens/s", rate, sides, rounds=5)
    return rows


if __name__ == "__main__":
    main(measure, __doc__)
