"""`helm-sentry policy`: what a policy says, before and after a run."""

import getpass
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

import click

from helm_sentry.audit.canonical import loads
from helm_sentry.cli.live import freeze, grant, push, revoke
from helm_sentry.cli.probe import probe as try_for_real
from helm_sentry.decision import Decision
from helm_sentry.errors import PolicyError, UsageError
from helm_sentry.operation import Operation
from helm_sentry.policy import pattern
from helm_sentry.policy.builtin import with_builtin_rules
from helm_sentry.policy.cases import run_cases
from helm_sentry.policy.check import errors, warnings
from helm_sentry.policy.compare import Change, differences, replay, rule_changes
from helm_sentry.policy.compiler import kinds
from helm_sentry.policy.context import Context
from helm_sentry.policy.document import Place
from helm_sentry.policy.engine import compile_policy, decide
from helm_sentry.policy.explain import sentence
from helm_sentry.policy.loader import load, load_file, read_text, shipped_packs
from helm_sentry.policy.model import Policy
from helm_sentry.policy.observation import Observation, ObservedRun, read_log
from helm_sentry.policy.plan import table as plan_table
from helm_sentry.policy.question import considered, context, operation_of, remedies
from helm_sentry.policy.schema import json_schema
from helm_sentry.receipt.store import read_run
from helm_sentry.state import LATEST, run_directory, state_directory

_MOST_CHANGES = 20
_WORKSPACE = click.option("--workspace", default=".", metavar="DIR", help="Stands for ${workspace} (default: here).")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


@click.group()
def policy() -> None:
    """Check, explain, try and compare policies."""


policy.add_command(push)
policy.add_command(grant)
policy.add_command(revoke)
policy.add_command(freeze)


@policy.command()
@click.argument("file", metavar="FILE|NAME")
@click.option("--strict", is_flag=True, help="Exit with status 1 when there are warnings.")
@_WORKSPACE
@_JSON
def check(file: str, strict: bool, workspace: str, as_json: bool) -> None:
    """Find every error of a policy, and what may not be meant.

    Exit status: 0 without errors, 2 with errors.
    """
    variables = _variables(workspace)
    text, source = _text(file)
    wrong = errors(text, source, variables)
    found = [] if wrong else warnings(load_file(file, variables), text, variables, os.path.realpath)
    if as_json:
        _print_json({"errors": [str(each) for each in wrong], "warnings": [str(each) for each in found]})
    else:
        for line in (*wrong, *found):
            click.echo(pattern.printable(str(line)))
        if not (wrong or found):
            click.echo(f"{file}: ok")
    if wrong or (strict and found):
        raise SystemExit(PolicyError.exit_status if wrong else 1)


@policy.command()
@click.argument("operation", required=False, metavar="OP")
@click.argument("target", required=False, metavar="TARGET")
@click.option("--policy", "file", default="default", metavar="FILE|NAME", help="The policy to ask.")
@click.option("--as", "role", default="", metavar="ROLE", help="Ask as an agent with this role.")
@click.option("--by", "program", default="", metavar="PROGRAM", help="Ask as this program.")
@click.option("--record", type=int, metavar="SEQ", help="Explain a record of a run instead.")
@click.option("--run", "run_id", default=LATEST, metavar="RUN", help="Which run (default: latest).")
@click.option("--probe", is_flag=True, help="Also try it, in a throw-away confined child.")
@_WORKSPACE
@_JSON
def explain(
    operation: str | None,
    target: str | None,
    file: str,
    role: str,
    program: str,
    record: int | None,
    run_id: str,
    probe: bool,
    workspace: str,
    as_json: bool,
) -> None:
    """Say what is decided, by which rules, and what would change it.

    OP is a kind of operation such as file.read, read, exec, connect or unix.connect; TARGET a path or HOST:PORT.
    """
    if record is not None:
        asked, decided, rules = _recorded(run_directory(run_id), record)
    elif operation and target:
        asked, decided = operation_of(operation, target), None
        rules = _with_builtin(load_file(file, _variables(workspace)))
    else:
        raise UsageError("nothing to explain; write an operation and a target, or `--record SEQ`")
    circumstances = context(rules, role, program)
    decision = decided or decide(compile_policy(rules), asked, circumstances)
    answer = _explained(rules, asked, decision, circumstances)
    if probe:
        answer["probe"] = try_for_real(asked, file, workspace)
    _print_json(answer) if as_json else click.echo(_in_words(answer))


@policy.command()
@click.argument("file", metavar="FILE|NAME")
@_WORKSPACE
@click.option("--tier", default="auto", type=click.Choice(["auto", "seccomp", "kernel"]), help="As of `run`.")
@click.option("--without", multiple=True, metavar="FEATURE", help="As if the host lacked it, such as landlock or root.")
@click.option("--markdown", is_flag=True, help="Print one table, by rule and kind of operation.")
@_JSON
def plan(file: str, workspace: str, tier: str, without: tuple[str, ...], markdown: bool, as_json: bool) -> None:
    """Show which layer of this host holds which rule and operation."""
    # Imported here: the other verbs work on machines that are not Linux.
    from helm_sentry.abi.arch import native
    from helm_sentry.features import probe
    from helm_sentry.prepare import plan_for

    rules = _with_builtin(load_file(file, _variables(workspace)))
    made = plan_for(rules, probe().without(without), native().loaders, tier)
    if markdown:
        click.echo(plan_table(rules, made))
        return
    held: dict[str, dict[str, Any]] = {}
    for rule in rules.rules:
        named = kinds(rule)
        layers = dict.fromkeys(layer for kind in sorted(named) for layer in made.layers[kind])
        held[rule.id] = {"effect": str(rule.effect), "kinds": sorted(map(str, named)), "layers": list(layers)}
    if as_json:
        _print_json({"rules": held, **made.canonical(), "fatal": list(made.fatal)})
        return
    for identifier, row in held.items():
        click.echo(f"{row['effect']:<10} {identifier:<32} {', '.join(row['layers'])}")
    click.echo()
    for name, holding in made.layers.items():
        click.echo(f"{name:<20} {', '.join(holding)}")
        for why in made.why_not(name):
            click.echo(f"{'':<20} not by the kernel: {why}")
    for each in (*made.missing, *made.fatal):
        click.echo(f"missing: {each}")


@policy.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE…")
@_JSON
def test(files: tuple[str, ...], as_json: bool) -> None:
    """Try the cases of each FILE.

    Exit status 1 when a decision is not the wanted one.
    """
    outcomes = [outcome for file in files for outcome in run_cases(read_text(file, Place("")), file)]
    failed = [outcome for outcome in outcomes if not outcome.passed]
    if as_json:
        _print_json({"cases": len(outcomes), "failed": [str(each) for each in failed]})
    else:
        for each in failed:
            click.echo(pattern.printable(str(each)))
        click.echo(f"{len(outcomes) - len(failed)} of {len(outcomes)} cases as wanted")
    if failed or not outcomes:
        raise SystemExit(1)


@policy.command()
@click.argument("old", metavar="FILE|NAME")
@click.argument("new", metavar="FILE|NAME")
@click.option("--log", "logs", multiple=True, metavar="RUN", help="Take examples from a run; may be repeated.")
@_WORKSPACE
@_JSON
def diff(old: str, new: str, logs: tuple[str, ...], workspace: str, as_json: bool) -> None:
    """Show what becomes allowed or denied from one policy to another.

    Exit status 1 when they differ.
    """
    runs = [_observed(run) for run in logs]
    variables = {**_variables(workspace), **(runs[0].variables if runs else {})}
    before, after = load_file(old, variables), load_file(new, variables)
    seen: list[Observation] = [observation for run in runs for observation in run.observations]
    changes, (added, removed) = differences(before, after, seen), rule_changes(before, after)
    if as_json:
        names = {"added": [rule.id for rule in added], "removed": [rule.id for rule in removed]}
        _print_json({**names, "changes": _changes(changes)})
    else:
        for mark, some in (("-", removed), ("+", added)):
            for rule in some:
                click.echo(f"{mark} {rule.effect} {rule.id}: {json.dumps(rule.match.canonical())}")
        _print_changes(changes)
    if changes or added or removed:
        raise SystemExit(1)


@policy.command(name="replay")
@click.argument("file", metavar="FILE|NAME")
@click.argument("log", metavar="RUN")
@_JSON
def replay_(file: str, log: str, as_json: bool) -> None:
    """Decide a run's operations again under another policy.

    What changes is shown. Exit status 1 if something does.
    """
    run = _observed(log)
    variables = {**_variables("."), **run.variables}
    changes = replay(load_file(file, variables), run.observations)
    if as_json:
        _print_json({"decisions": len(run.observations), "changes": _changes(changes)})
    else:
        _print_changes(changes)
        click.echo(f"{len(run.observations)} decisions, {len(changes)} different")
    if changes:
        raise SystemExit(1)


@policy.command()
@click.argument("file", metavar="FILE|NAME")
@_WORKSPACE
def show(file: str, workspace: str) -> None:
    """Print a policy with its packs and variables filled in."""
    click.echo(json.dumps(load_file(file, _variables(workspace)).canonical(), indent=2))


@policy.command()
def schema() -> None:
    """Print the JSON Schema of policy files, for editors."""
    _print_json(json_schema())


def _print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2))


def _variables(workspace: str) -> dict[str, str]:
    return {
        "workspace": os.path.realpath(workspace),
        "home": os.path.realpath(os.path.expanduser("~")),
        "tmp": os.path.join(os.path.realpath(tempfile.gettempdir()), "helm-sentry-run"),
        "user": getpass.getuser(),
        "program": os.path.realpath("/bin/true"),
    }


def _with_builtin(rules: Policy) -> Policy:
    return with_builtin_rules(rules, (os.path.realpath(state_directory()),), rules.files)


def _text(file: str) -> tuple[str, str]:
    """Return a policy's text and what errors call it."""
    packs = shipped_packs()
    if file in packs:
        return packs[file], file
    return read_text(file, Place("")), file


def _observed(run: str) -> ObservedRun:
    return read_log(read_run(run_directory(run)).log)


def _recorded(directory: str, seq: int) -> tuple[Operation, Decision, Policy]:
    """Return what a record of a run asked, what was decided, and the policy that decided."""
    files = read_run(directory)
    run = read_log(files.log)
    found = next((observation for observation in run.observations if observation.seq == seq), None)
    if found is None:
        raise UsageError(f"record {seq} of run `{run.id}` is no decision")
    rules = load(json.dumps(loads(files.documents["policy.json"].strip())), "policy.json")
    compiled, circumstances = compile_policy(rules), context(rules)
    asked = (each for each in found.operations if decide(compiled, each, circumstances) == found.decision)
    return next(asked, found.operations[0]), found.decision, rules


def _explained(rules: Policy, asked: Operation, decision: Decision, circumstances: Context) -> dict[str, Any]:
    return {
        "operation": str(asked.kind),
        "target": asked.target,
        "verdict": str(decision.verdict),
        "reason": str(decision.reason),
        "rule": decision.rule,
        "sentence": sentence(asked, decision),
        "considered": [
            {"rule": each.rule.id, "effect": str(each.rule.effect), "matches": each.says is not None}
            for each in considered(rules, asked, circumstances)
        ],
        "to_change_it": list(remedies(asked, decision)),
    }


def _in_words(answer: Mapping[str, Any]) -> str:
    lines = [f"{answer['verdict']}  {answer['sentence']}"]
    matching = [each for each in answer["considered"] if each["matches"]]
    for each in matching:
        mark = "decides" if each["rule"] == answer["rule"] else "matches"
        lines.append(f"  {mark}  {each['effect']} {each['rule']}")
    others = len(answer["considered"]) - len(matching)
    words = "other rule is" if others == 1 else "other rules are"
    lines.append(f"  {others} {words} about {answer['operation']} and do not match")
    lines += answer["to_change_it"]
    if tried := answer.get("probe"):
        lines.append(f"tried: {tried['result']}; {'as decided' if tried['agrees'] else 'not as decided'}")
    return "\n".join(lines)


def _changes(changes: Iterable[Change]) -> list[dict[str, Any]]:
    return [
        {
            "operation": str(change.operation.kind),
            "target": change.operation.target,
            "before": str(change.before.verdict),
            "before_rule": change.before.rule,
            "after": str(change.after.verdict),
            "after_rule": change.after.rule,
            "times": change.times,
            "seq": change.seq,
        }
        for change in changes
    ]


def _print_changes(changes: list[Change]) -> None:
    for word, some in (
        ("becomes allowed", [change for change in changes if change.after.allowed]),
        ("becomes denied", [change for change in changes if not change.after.allowed]),
    ):
        for change in islice(some, _MOST_CHANGES):
            seen = f"{change.times} {'time' if change.times == 1 else 'times'} in the log, first in record {change.seq}"
            origin = seen if change.times else "by its rules"
            click.echo(
                pattern.printable(
                    f"{word}: {change.operation.kind} {change.operation.target} "
                    f"(was `{change.before.rule}`, now `{change.after.rule}`; {origin})"
                )
            )
        if len(some) > _MOST_CHANGES:
            click.echo(f"{word}: {len(some) - _MOST_CHANGES} more")
