"""What a decision costs: p50 and p99 for a small policy, with a condition, and as path rules grow in number.

    python benchmarks/decide.py

Each line: microseconds. Nothing but `decide` is timed; the cost of reading a clock is taken off. Every case is measured
in several rounds, one case after the other, and its quietest round is shown: what else the machine does is not ours.
"""

import gc
import sys
from time import perf_counter_ns

from helm_sentry.operation import Kind, Operation
from helm_sentry.policy.context import Context, Process, Run
from helm_sentry.policy.engine import CompiledPolicy, compile_policy, decide
from helm_sentry.policy.loader import load

ROUNDS, SAMPLES = 9, 8_000
GROWTH = (10, 100, 1000, 10_000)
HEAD = "schema: helm-sentry/policy/v1\nname: bench\nagent: {role: payment_processor}\n"
FIVE = (
    "allow:\n"
    "  - {id: data, file: {do: [read, list], paths: ['/data/approved/**']}}\n"
    "  - {id: work, file: {do: [read, list, write, create, delete], paths: ['/w/**']}}\n"
    "  - {id: git, exec: {paths: [/usr/bin/git]}}\n"
    "  - {id: model, connect: {addresses: [192.0.2.0/24], ports: [443]}}\n"
    "block:\n"
    "  - {id: keys, file: {do: [read, write], paths: ['/w/**/*.key']}}\n"
)
CONDITION = (
    "contextual:\n"
    "  - {id: stripe, connect: {addresses: [198.51.100.0/24], ports: [443]}, when: 'agent.role == \"payment_processor\"'}\n"
    "  - {id: plans, file: {do: [read], paths: ['/w/plans/**']}, when: 'op.path.endsWith(\".md\") && run.counts.exec < 9'}\n"
)
CONTEXT = Context({"role": "payment_processor"}, Process("/usr/bin/git", ("/bin/sh", "/usr/bin/git"), 1000), Run())
READ = Operation(Kind.FILE_READ, path="/w/src/package/module/file.py")


def compiled(text: str) -> CompiledPolicy:
    return compile_policy(load(HEAD + text, packs={}))


def grown(rules: int) -> CompiledPolicy:
    """A policy with this many path rules, of every shape."""
    shapes = ("/opt/app{n}/**", "/srv/data{n}/*.csv", "/etc/app{n}.conf", "/var/lib/app{n}/**/cache")
    lines = [
        f"  - {{id: r{n}, file: {{do: [read], paths: ['{shapes[n % 4].format(n=n)}']}}}}\n" for n in range(rules - 1)
    ]
    return compiled("allow:\n  - {id: work, file: {do: [read], paths: ['/w/**']}}\n" + "".join(lines))


def measure(policy: CompiledPolicy, operation: Operation, verdict: str) -> tuple[float, float]:
    assert str(decide(policy, operation, CONTEXT).verdict) == verdict, operation
    took, empty = [], []
    gc.disable()
    for _ in range(SAMPLES):
        began = perf_counter_ns()
        decide(policy, operation, CONTEXT)
        took.append(perf_counter_ns() - began)
        began = perf_counter_ns()
        empty.append(perf_counter_ns() - began)
    gc.enable()
    clock = sorted(empty)[SAMPLES // 2]
    took.sort()
    return (took[SAMPLES // 2] - clock) / 1000, (took[SAMPLES * 99 // 100] - clock) / 1000


def main() -> int:
    small, conditional = compiled(FIVE), compiled(FIVE + CONDITION)
    rows = [
        ("five rules, file allowed", small, READ, "ALLOW"),
        ("five rules, file denied", small, Operation(Kind.FILE_READ, path="/etc/shadow"), "DENY"),
        (
            "five rules, connect",
            small,
            Operation(Kind.NET_CONNECT, address="192.0.2.1", port=443, protocol="tcp"),
            "ALLOW",
        ),
        (
            "condition, role",
            conditional,
            Operation(Kind.NET_CONNECT, address="198.51.100.1", port=443, protocol="tcp"),
            "ALLOW",
        ),
        ("condition, path and count", conditional, Operation(Kind.FILE_READ, path="/w/plans/a.md"), "ALLOW"),
        ("condition of another path", conditional, READ, "ALLOW"),
    ]
    rows += [(f"{count} path rules", grown(count), READ, "ALLOW") for count in GROWTH]
    best: dict[str, tuple[float, float]] = {}
    for _ in range(ROUNDS):
        for name, policy, operation, verdict in rows:
            p50, p99 = measure(policy, operation, verdict)
            known = best.get(name, (p50, p99))
            best[name] = min(known[0], p50), min(known[1], p99)
    for name, (p50, p99) in best.items():
        print(f"{name:28} p50 {p50:6.2f}  p99 {p99:6.2f}")
    few, many = (best[f"{count} path rules"][0] for count in (GROWTH[0], GROWTH[-1]))
    print(f"from {GROWTH[0]} to {GROWTH[-1]} path rules: {many / few - 1:+.0%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
