"""`helm-sentry doctor`: what this host offers, and which layer holds which promise."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from helm_sentry.operation import Kind

if TYPE_CHECKING:
    from helm_sentry.features import Features
    from helm_sentry.policy.plan import Plan

_PROMISES = (
    ("files: open, create, delete, rename, link", Kind.FILE_READ),
    ("files: stat, chmod, chown, times, attributes", Kind.FILE_STAT),
    ("programs", Kind.EXEC),
    ("network: connect, bind", Kind.NET_CONNECT),
    ("network: datagrams", Kind.NET_SEND),
    ("unix sockets", Kind.UNIX_CONNECT),
    ("signals to other processes", Kind.PROCESS_SIGNAL),
    ("tracing other processes", Kind.PROCESS_TRACE),
    ("kernel surface (mount, bpf, io_uring …)", Kind.KERNEL_MOUNT),
)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def doctor(as_json: bool) -> None:
    """Show what this host offers and which layer holds what.

    Everything is probed by asking the kernel. Exit status 1 means that a run would not start here as it is.
    """
    # Imported here: `verify` works on machines that are not Linux, and shares this command line.
    from helm_sentry.abi.arch import native
    from helm_sentry.features import probe
    from helm_sentry.policy.model import Policy
    from helm_sentry.policy.plan import make_plan
    from helm_sentry.sensor.loader import unavailable
    from helm_sentry.state import witness_directory

    host = probe(thorough=True)
    plan = make_plan(Policy(name="doctor"), host, native().loaders)
    no_witness = unavailable(witness_directory())
    usable = not plan.fatal and not plan.missing
    if as_json:
        report = {"features": asdict(host), "plan": plan.canonical(), "fatal": list(plan.fatal), "usable": usable}
        report |= {"no_witness": no_witness}
        click.echo(json.dumps(report, indent=2))
    else:
        click.echo("\n".join([*_mechanisms(host, no_witness), "", *_promises(plan), "", *_verdict(plan)]))
    if not usable:
        raise SystemExit(1)


def _mechanisms(host: "Features", no_witness: str) -> list[str]:
    from helm_sentry.native.library import load

    landlock = f"ABI {host.landlock}" if host.landlock else "missing"
    rows = [
        ("kernel", f"{host.kernel} on {host.machine}, as {'root' if host.root else 'an ordinary user'}"),
        ("seccomp listener", _yes(host.listener, "the kernel is too old or a container owns one")),
        ("wait killable", _yes(host.wait_killable, "other signals may restart a call the supervisor works on")),
        (
            "compiled receiver",
            _yes(load() is not None, "no C compiler at installation, or switched off; opens are slower"),
        ),
        ("landlock", landlock),
        ("signal scope", _yes(host.signal_scope, "landlock ABI 6; the supervisor checks signals alone")),
        ("ptrace tier", _yes(host.tracing, "made for x86_64 alone; needed where no listener can be had")),
        ("ptrace", _yes(host.ptrace, "needed to verify what was executed")),
        ("bpf witness", _yes(not no_witness, no_witness)),
    ]
    return ["this host", *(f"  {name:<18} {value}" for name, value in rows)]


def _promises(plan: "Plan") -> list[str]:
    return ["what holds", *(f"  {text:<46} {', '.join(plan.layers[kind])}" for text, kind in _PROMISES)]


def _verdict(plan: "Plan") -> list[str]:
    if plan.fatal:
        return [f"cannot run here: {reason}" for reason in plan.fatal]
    if plan.missing:
        return [f"runs only with --accept-degraded: {reason}" for reason in plan.missing]
    return [f"ready: `helm-sentry run -- COMMAND`, tier {plan.tier}"]


def _yes(there: bool, otherwise: str) -> str:
    return "yes" if there else f"no ({otherwise})"
