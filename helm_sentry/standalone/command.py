"""The command of the verifier that is one file: `helm-sentry verify` and `receipt verify`, without click."""

import argparse
import json
import os
import sys
from collections.abc import Sequence

from helm_sentry.errors import SentryError, VerificationError, printable
from helm_sentry.receipt.alone import open_receipt, receipts_in
from helm_sentry.receipt.alone import sentence as found_in
from helm_sentry.receipt.check import check_run, failure, sentence
from helm_sentry.receipt.keys import PublicKey, load_public_key


def main(arguments: Sequence[str] | None = None) -> int:
    """Verify a run, print what was found and return the exit status."""
    parser = argparse.ArgumentParser(prog="verify_alone.py", description="Verify a run of Helm Sentry, offline.")
    parser.add_argument("run", help="the run directory, or a file with receipts")
    parser.add_argument("--public-key", action="append", default=[], metavar="KEY", help="key that must have signed")
    parser.add_argument("--allow-unsealed", action="store_true", help="accept a run that ended without its receipt")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args(arguments)
    try:
        keys: list[PublicKey] = [load_public_key(key) for key in options.public_key]
        if os.path.isfile(options.run):
            return _receipts(options.run, keys, as_json=options.json)
        report = check_run(options.run, keys, pinned=bool(keys), allow_unsealed=options.allow_unsealed)
    except VerificationError as error:
        found = json.dumps(failure(error), indent=2) if options.json else printable(f"error: {error}")
        print(found, file=sys.stdout if options.json else sys.stderr)
        return error.exit_status
    except (SentryError, OSError) as error:
        print(printable(f"error: {error}"), file=sys.stderr)
        return 2
    print(json.dumps(report.fields(), indent=2) if options.json else printable(sentence(report)))
    if report.others and not options.json:
        print(printable(f"note: nothing vouches for {', '.join(report.others)}"), file=sys.stderr)
    return 0


def _receipts(path: str, keys: list[PublicKey], *, as_json: bool) -> int:
    with open(path, "rb") as file:
        data = file.read()
    for text in receipts_in(data):
        found = open_receipt(text, keys, pinned=bool(keys))
        print(json.dumps(found, indent=2) if as_json else printable(found_in(found)))
    return 0
