"""Whether signing delays an agent: on one core, 54,000 opens a minute are timed while as many are denied.

Each denial is signed at once in a receipt of its own. In the other runs the same file may be read, so that nothing but
checkpoints is signed. What the run had to sign was signed when it ended: it is sealed and verified, receipts counted.
"""

import json
import subprocess

from harness import POLICY, Figures, Lab, Row, Side, main

RATE = 900  # a second, of each kind
SECONDS = 10
ONE_CORE = ("taskset", "--cpu-list", "0")


def measure(lab: Lab) -> list[Row]:
    other = lab.workspace / "other"
    other.write_text("x")
    denying = lab.policy_file("denying", f"{POLICY}block:\n  - {{id: other, file: {{do: [read], paths: [{other}]}}}}\n")
    lab.forget_runs = lambda: None  # type: ignore[method-assign]  # they are verified below
    count = max(100, int(RATE * SECONDS * lab.scale))

    def ask(side: Side) -> Figures:
        words = lab.run(side, [lab.loop, "paced", str(count), lab.data, other, str(1_000_000_000 // RATE)]).split()
        if side.name != "native":
            warming_up = count // 10
            _verify(lab, side, count + warming_up if "a minute" in side.name else 0)
        return tuple(int(word) / 1000 for word in words)

    allowed, denied = (lab.supervised(policy)[0] for policy in (None, denying))
    sides = [
        Side("nothing denied", (*ONE_CORE, *allowed.prefix)),
        Side(f"{RATE * 60:,} a minute denied", (*ONE_CORE, *denied.prefix)),
    ]
    return lab.alternate("open, read, close on one core", "us", ask, sides)


def _verify(lab: Lab, side: Side, denials: int) -> None:
    (run,) = (lab.state / "helm-sentry" / "runs").iterdir()
    command = [side.prefix[len(ONE_CORE)], "verify", "--json", str(run)]
    report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    if (report["state"], report["receipts"]) != ("sealed", denials):
        raise SystemExit(f"{run}: {report}")
    Lab.forget_runs(lab)


if __name__ == "__main__":
    main(measure, __doc__, rounds=3)
