"""Small runs, really written by the log and the signer, as a dictionary from file name to contents."""

import io
import json
import os

from helm_sentry.audit import record
from helm_sentry.audit.log import AuditLog
from helm_sentry.decision import Decision, Reason, Verdict
from helm_sentry.operation import Kind, Operation
from helm_sentry.receipt.keys import SigningKey
from helm_sentry.receipt.report import CHECKPOINTS, DENIALS, DIGESTED, LOG, PUBLIC, SEAL, TREE, RunFiles, Segment
from helm_sentry.receipt.signer import Signer
from helm_sentry.receipt.store import create_run

KEY = SigningKey(bytes(range(32)))
OTHER_KEY = SigningKey(bytes(32))
RUN = "20261121-071503-ab12cd"
VERDICTS = (Verdict.ALLOW, Verdict.DENY, Verdict.ALLOW, Verdict.ESCALATE)


def decision(verdict):
    operation = Operation(Kind.FILE_READ, path="/etc/passwd")
    return record.decision(41, "openat", [operation], Decision(verdict, Reason.RULE, "r"), "fd")


def start(digests, run=RUN, **members):
    return record.start(
        run=run,
        version="0.1.0",
        argv=["python", "agent.py"],
        user="agent",
        host="h",
        features=["landlock"],
        digests=digests,
        **({"degraded": []} | members),
    )


def begin(directory, run=RUN, key=KEY, policy="p", **members):
    """Create the files of a run and its log, with the start record in it."""
    digests = create_run(directory, {"run": run}, {"name": policy}, {"tier": "seccomp"}, key.public)
    log = AuditLog(directory, run, clock=lambda: 1_700_000_000_000_000_000)
    log.append(start(digests, run, **members))
    return log


def sealed_run(directory, run=RUN, key=KEY, verdicts=VERDICTS, **members):
    """Write a whole run and return its files."""
    directory.mkdir()
    log = begin(str(directory), run, key, **members)
    signer = Signer(str(directory), key)
    for verdict in verdicts:
        log.append(decision(verdict))
        if verdict is not Verdict.ALLOW:
            signer.notify()
    log.append(record.end(log.counts, exit_status=0))
    signer.seal(log.totals)
    log.close()
    return contents(directory)


def contents(directory):
    found = {}
    for parent, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(parent, name)
            with open(path, "rb") as file:
                found[os.path.relpath(path, directory)] = file.read()
    return found


def split(data):
    """Lines as a file gives them."""
    return io.BytesIO(data).readlines()


def run_files(files):
    return RunFiles(
        documents={name: files[name] for name in DIGESTED.values()},
        public_key=files[PUBLIC],
        segments=(Segment(name=LOG, lines=split(files[LOG])),),
        tree=split(files[TREE]),
        checkpoints=split(files[CHECKPOINTS]),
        denials=split(files[DENIALS]),
        archive=(),
        seal=files.get(SEAL),
    )


def rechain(data):
    """Link records anew, as somebody without the signing key can."""
    prev, linked = record.FIRST_PREV, []
    for seq, line in enumerate(split(data)):
        fields = json.loads(line) | {"seq": seq, "prev": prev}
        linked.append(record.link(fields))
        prev = fields["hash"]
    return b"".join(linked)
