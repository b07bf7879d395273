"""`helm-sentry audit`: read the log of a run, also while it goes on. Whether it is genuine, `verify` says."""

import contextlib
import csv
import fnmatch
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import click

from helm_sentry.audit.canonical import Fields, loads
from helm_sentry.audit.query import COLUMNS, Query, line, moment, row
from helm_sentry.audit.record import TYPES
from helm_sentry.audit.segments import Follower
from helm_sentry.audit.summary import Summary
from helm_sentry.control.client import presence
from helm_sentry.errors import UsageError, VerificationError
from helm_sentry.operation import Kind
from helm_sentry.state import LATEST, control_directory, run_directory

_LOOK_EVERY = 0.2  # seconds between looks at a log that grows
_BEGINS_WITHIN = 10.0  # seconds from a run's first record until it can be asked, at most
_VERDICTS = ("ALLOW", "DENY", "ESCALATE")
_FILTERS = (
    click.option(
        "--type", "types", multiple=True, metavar="TYPE", type=click.Choice(sorted(TYPES)), help="Type of record."
    ),
    click.option(
        "--verdict", "verdicts", multiple=True, type=click.Choice(_VERDICTS, case_sensitive=False), help="Verdict."
    ),
    click.option("--rule", "rules", multiple=True, metavar="PATTERN", help="Id of the deciding rule."),
    click.option("--operation", "operations", multiple=True, metavar="PATTERN", help="Kind, as file.write or net.*"),
    click.option("--path", "paths", multiple=True, metavar="PATTERN", help="Path, or a directory above it."),
    click.option("--host", "hosts", multiple=True, metavar="PATTERN", help="Address, network as 10.0.0.0/8, or name."),
    click.option("--pid", "pids", multiple=True, type=int, help="Process or thread."),
    click.option("--since", default="", metavar="TIME", help="Not before: 2026-11-21T10:00 (UTC), or 10m ago."),
    click.option("--until", default="", metavar="TIME", help="Before then."),
    click.option("--json", "form", flag_value="json", help="Print records as they stand in the log."),
    click.option("--csv", "form", flag_value="csv", help="Print a table."),
)


def _filtered(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_FILTERS):
        command = option(command)
    return command


@click.group()
def audit() -> None:
    """Read the log of a run.

    RUN is its id, its directory, or `latest`, which is meant where none is named. These commands show what stands in
    the log. Whether it is genuine, `helm-sentry verify` says.
    """


@audit.command()
@click.argument("run", metavar="[RUN]", default="")
@_filtered
def show(run: str, **options: Any) -> None:
    """Print the records of a run."""
    _print(_lines(_directory(run), follow=False), **options)


@audit.command()
@click.argument("run", metavar="[RUN]", default="")
@click.option("-f", "--follow", is_flag=True, help="Go on while the run does.")
@click.option("-n", "--lines", "count", type=click.IntRange(0), default=10, help="Records to begin with (default: 10).")
@_filtered
def tail(run: str, follow: bool, count: int, **options: Any) -> None:
    """Print the last records of a run, and with -f those to come until it ends."""
    lines = _lines(_directory(run), follow=follow)
    _print(lines, last=count, **options)


@audit.command()
@click.argument("run", metavar="[RUN]", default="")
@_filtered
def stats(run: str, form: str | None, **options: Any) -> None:
    """Count the decisions of a run by kind of operation and by rule."""
    summary = Summary()
    query = _query(**options)
    for _, record in _records(_lines(_directory(run), follow=False)):
        if query.matches(record):
            summary.add(record)
    rows = [("operation", *key, count) for key, count in sorted(summary.kinds.items())]
    rows += [("rule", *key, count) for key, count in sorted(summary.rules.items())]
    _print_stats(rows, summary, form)


@audit.command()
@click.argument("run", metavar="[RUN]", default="")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON, with everything in it.")
def summary(run: str, as_json: bool) -> None:
    """Say in a minute what a run came to.

    What was not allowed and why, files written, programs run, addresses reached, the tree of processes.
    """
    found = Summary()
    for _, record in _records(_lines(_directory(run), follow=False)):
        found.add(record)
    click.echo(json.dumps(found.fields(), indent=2) if as_json else _printable(found.text()))


def _print(lines: Iterator[bytes], form: str | None, last: int | None = None, **options: Any) -> None:
    query, table = _query(**options), csv.writer(sys.stdout)
    if form == "csv":
        table.writerow(COLUMNS)
    held: list[tuple[bytes, Fields]] | None = None if last is None else []
    for text, record in _records(lines):
        if text == b"":  # the log has no more for now
            for item in held or ():
                _print_one(*item, form, table)
            held = None
        elif query.matches(record):
            if held is None:
                _print_one(text, record, form, table)
            else:
                held = [*held, (text, record)][-last:] if last else []
    for item in held or ():
        _print_one(*item, form, table)


def _print_one(text: bytes, record: Fields, form: str | None, table: Any) -> None:
    if form == "csv":
        table.writerow([_printable(cell) for cell in row(record)])
        sys.stdout.flush()
    else:
        click.echo(text if form == "json" else _printable(line(record)))


def _print_stats(rows: list[tuple[str, str, str, int]], summary: Summary, form: str | None) -> None:
    if form == "json":
        names = ("by", "name", "verdict", "count")
        click.echo(json.dumps([dict(zip(names, row, strict=True)) for row in rows], indent=2))
    elif form == "csv":
        csv.writer(sys.stdout).writerows([("by", "name", "verdict", "count"), *rows])
    else:
        for by, name, verdict, count in rows:
            click.echo(_printable(f"{count:>9,}  {verdict:<8} {by} {name}"))
        rate = f", {summary.counts.total() / summary.seconds:,.0f} a second" if summary.seconds > 0 else ""
        click.echo(f"{summary.records:,} records, {summary.counts.total():,} decisions{rate}")


def _query(since: str, until: str, operations: tuple[str, ...], paths: tuple[str, ...], **members: Any) -> Query:
    now = time.time_ns() // 1000
    for pattern in operations:
        if not fnmatch.filter(Kind, pattern):
            raise UsageError(f"no kind of operation is `{pattern}`; there are {', '.join(Kind)}")
    members |= {"operations": operations, "paths": tuple(map(os.path.abspath, paths))}
    try:
        return Query(since=moment(since, now) if since else 0, until=moment(until, now) if until else 0, **members)
    except ValueError as error:
        raise UsageError(f"not a time: {error}; write 2026-11-21T10:00, in UTC, or 10m for so long ago") from error


def _directory(run: str) -> str:
    return run_directory(run or LATEST)


def _lines(directory: str, *, follow: bool) -> Iterator[bytes]:
    """Return the lines of a log without their newlines; when following, an empty one wherever there is no more yet."""
    log, rest = Follower(directory), b""
    with contextlib.closing(log), _presence(directory) as goes_on:
        while True:
            last = not (follow and goes_on())
            chunk = log.read()
            *whole, rest = (rest + chunk).split(b"\n")
            yield from whole
            if not chunk:
                if last:
                    return
                yield b""
                time.sleep(_LOOK_EVERY)


def _presence(directory: str) -> AbstractContextManager[Callable[[], bool]]:
    """Return what tells if a run goes on: one that nobody serves has just begun, or was killed and is cleared away."""
    run = os.path.basename(directory)
    socket, deadline = os.path.join(control_directory(), run), time.monotonic() + _BEGINS_WITHIN
    if os.path.exists(socket):
        return presence(control_directory(), run)
    return contextlib.nullcontext(lambda: time.monotonic() < deadline or os.path.exists(socket))


def _records(lines: Iterator[bytes]) -> Iterator[tuple[bytes, Fields]]:
    """Return lines with what they say, up to the end record."""
    for number, text in enumerate(lines, 1):
        try:
            record = loads(text, canonical=True) if text else {}
        except ValueError as error:
            raise VerificationError(f"line {number} of the log is damaged: {error}; see `verify`") from error
        if isinstance(record, dict):
            yield text, record
            if record.get("type") == "end":
                return


def _printable(text: str) -> str:
    """Return a text from a log that cannot steer the terminal."""
    return "".join(mark if mark.isprintable() or mark == "\n" else f"\\x{ord(mark):02x}" for mark in text)
