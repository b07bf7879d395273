#!/usr/bin/env python3
"""Verifies a run of Helm Sentry on a machine that has only Python 3.8 or newer: this file, nothing else.

    python3 verify_alone.py RUN_DIRECTORY [--public-key KEY] [--allow-unsealed] [--json]

KEY is 64 hex digits, or a file with them or with a line `ed25519 <base64> <id>`. Without it the run is checked against
the key that lies in it, which shows that nothing was changed, but not who signed. Exit status: 0 verified, 121 not,
2 a mistake in the command.

The formats are those of docs/receipt-format.md. Signatures are checked by PyNaCl or `cryptography` where one of them is
installed; otherwise by the Python code below, at some milliseconds each.

It is a second implementation on purpose and imports nothing of helm_sentry: the two must agree.
"""

import argparse
import base64
import gzip
import hashlib
import importlib
import json
import os
import re
import sys
import zlib
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

FAILED = 121
BLOCK = 256
VERDICTS = ("ALLOW", "DENY", "ESCALATE")
TYPES = (
    *("start", "decision", "outcome", "exec", "traffic", "notice", "process", "witness", "gap"),
    *("approval", "policy", "end"),
)
DIGESTED = {"run_digest": "run.json", "policy_digest": "policy.json", "plan_digest": "plan.json"}
PAYLOAD_TYPE = "application/vnd.helm-sentry.receipt+json"
SCHEMA = "helm-sentry/receipt/v1"
LONGEST = 1 << 25
SECTOR = 512
NOTE = re.compile(
    "(helm-sentry/run/([^\n +]*)\n([1-9][0-9]*)\n([A-Za-z0-9+/]{43}=)\n"  # origin, size, root
    "(?:witness (0|[1-9][0-9]*) (0|[1-9][0-9]*)\n)?)\n"  # calls as the kernel and as the supervisor counted them
    "\u2014 ([^\n +]*) ([A-Za-z0-9+/=]{92})\n"
)


class Fault(Exception):
    """Something is not what was signed; the text says where."""


# Ed25519 (RFC 8032 section 5.1), for verifying alone: nothing here is secret, so nothing takes constant time.

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT_OF_MINUS_ONE = pow(2, (P - 1) // 4, P)
Point = Tuple[int, int, int, int]
Verifier = Callable[[bytes, bytes, bytes], bool]


def point_add(a: Point, b: Point) -> Point:
    """Add two points in extended coordinates."""
    m, n = (a[1] - a[0]) * (b[1] - b[0]) % P, (a[1] + a[0]) * (b[1] + b[0]) % P
    c, d = 2 * a[3] * b[3] * D % P, 2 * a[2] * b[2] % P
    e, f, g, h = n - m, d - c, d + c, n + m
    return e * f % P, g * h % P, f * g % P, e * h % P


def point_multiply(scalar: int, point: Point) -> Point:
    """Multiply a point by a number."""
    result: Point = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            result = point_add(result, point)
        point = point_add(point, point)
        scalar >>= 1
    return result


def point_equal(a: Point, b: Point) -> bool:
    """Return whether two points are one."""
    return (a[0] * b[2] - b[0] * a[2]) % P == 0 and (a[1] * b[2] - b[1] * a[2]) % P == 0


def point_decode(data: bytes) -> Optional[Point]:
    """Return the point in 32 bytes, or None."""
    number = int.from_bytes(data, "little")
    sign, y = number >> 255, number & (1 << 255) - 1
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * ROOT_OF_MINUS_ONE % P
    if (x * x - square) % P or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = P - x
    return x, y, 1, x * y % P


BASE = point_decode((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def small_order(point: Point) -> bool:
    """Return whether a point is one of the eight for which signatures mean nothing; libsodium refuses them too."""
    return point_equal(point_multiply(8, point), (0, 1, 1, 0))


def python_verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Return whether the holder of a key signed this message."""
    if len(public) != 32 or len(signature) != 64 or BASE is None:
        return False
    key, commitment = point_decode(public), point_decode(signature[:32])
    scalar = int.from_bytes(signature[32:], "little")
    if key is None or commitment is None or scalar >= ORDER or small_order(key) or small_order(commitment):
        return False
    challenge = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little") % ORDER
    return point_equal(point_multiply(scalar, BASE), point_add(commitment, point_multiply(challenge, key)))


def best_verifier() -> Verifier:
    """Return the quickest way of checking signatures that this machine has."""
    try:
        nacl = importlib.import_module("nacl.signing")
        errors = (importlib.import_module("nacl.exceptions").CryptoError, ValueError)
        return attempt(lambda key, message, signature: nacl.VerifyKey(key).verify(message, signature), errors)
    except ImportError:
        pass
    try:
        ed25519 = importlib.import_module("cryptography.hazmat.primitives.asymmetric.ed25519")
        errors = (importlib.import_module("cryptography.exceptions").InvalidSignature, ValueError)
        load = ed25519.Ed25519PublicKey.from_public_bytes
        return attempt(lambda key, message, signature: load(key).verify(signature, message), errors)
    except ImportError:
        return python_verify


def attempt(check: Callable[[bytes, bytes, bytes], Any], errors: Any) -> Verifier:
    """Return a verifier that answers instead of raising."""

    def verify(public: bytes, message: bytes, signature: bytes) -> bool:
        try:
            check(public, message, signature)
        except errors:
            return False
        return True

    return verify


# Canonical JSON (docs/receipt-format.md): members in order, no white space, no floats, integers below 2**53.


def canonical(value: Any) -> bytes:
    """Return the one spelling of a value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def read_json(data: bytes) -> Any:
    """Return the value of canonical text; whatever can be spelled otherwise is refused."""
    value = json.loads(
        data.decode(), parse_float=refuse, parse_constant=refuse, parse_int=integer, object_pairs_hook=members
    )
    if canonical(value) != data:
        raise ValueError("not canonical JSON")
    return value


def members(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    """Return an object whose members have ASCII names, one each."""
    found = dict(pairs)
    if len(found) != len(pairs) or not all(name.isascii() for name in found):
        raise ValueError("a member twice, or with a name outside ASCII")
    return found


def refuse(text: str) -> Any:
    """Refuse a number that is not an integer."""
    raise ValueError(text + " is not an integer")


def integer(text: str) -> int:
    """Return an integer that every reader of JSON understands alike."""
    if len(text) > 17 or abs(int(text)) >= 2**53:
        raise ValueError(text + " is too large")
    return int(text)


# The tree of RFC 6962.


def sha256(data: bytes) -> bytes:
    """Return a digest."""
    return hashlib.sha256(data).digest()


def grow(peaks: List[bytes], size: int, leaf: bytes) -> None:
    """Add a leaf to the roots of the complete subtrees of a tree of this size."""
    while size & 1:
        leaf = sha256(b"\x01" + peaks.pop() + leaf)
        size >>= 1
    peaks.append(leaf)


def fold(peaks: List[bytes]) -> bytes:
    """Return the root over complete subtrees."""
    root = peaks[-1]
    for peak in reversed(peaks[:-1]):
        root = sha256(b"\x01" + peak + root)
    return root


# Files.


def lines_of(path: str) -> Iterator[bytes]:
    """Return the lines of a file, decompressed."""
    name = os.path.basename(path)
    if not os.path.isfile(path):
        raise Fault(name + ": missing, or not a regular file")
    try:
        with (gzip.open if path.endswith(".gz") else open)(path, "rb") as file:
            line = file.readline(LONGEST)
            while line:
                yield line
                line = file.readline(LONGEST)
    except (OSError, EOFError, zlib.error) as error:
        raise Fault("%s: cannot be read: %s" % (name, error)) from error


def lost(line: bytes, offset: int) -> bool:
    """Return whether a power failure may have left this: zeros that fill whole sectors."""
    first = line.find(b"\0")
    if first < 0 or (offset + first) % SECTOR:
        return False
    end = len(line) - len(line[first:].lstrip(b"\0"))
    return (offset + end) % SECTOR == 0 or end == len(line)


def mediated(record: Dict[str, Any]) -> Tuple[int, int]:
    """Return how many calls the kernel and the supervisor counted by a record of the witness."""
    try:
        counts = record["kernel"]["finished"], record["kernel"]["carried"], record["log"]["received"]
    except (KeyError, TypeError):
        raise ValueError("a witness record without its counts") from None
    if any(type(count) is not int or count < 0 for count in counts):
        raise ValueError("a witness record with counts that are none")
    return counts[0] + counts[1], counts[2]


class Pieces:
    """A file of pieces, each up to a line that begins with `last`; in an unsealed run it may end anywhere."""

    def __init__(self, directory: str, name: str, sealed: bool, last: bytes = b"", most: int = 1) -> None:
        self.name, self.sealed, self.last, self.most = name, sealed, last, most
        self.lines = lines_of(os.path.join(directory, name))
        self.count = self.offset = 0
        self.line = 1

    def where(self) -> str:
        """Return the place of the next piece."""
        return "%s line %d" % (self.name, self.line)

    def next(self) -> bytes:
        """Return the next piece, or nothing."""
        piece, whole = b"", True
        for _ in range(self.most):
            line = next(self.lines, b"")
            whole = whole and line.endswith(b"\n") and not lost(line, self.offset + len(piece))
            piece += line
            if not whole or line.startswith(self.last):
                break
        self.line += piece.count(b"\n")
        if not whole and not self.sealed:
            self.lines = iter(())
            return b""
        self.offset += len(piece)
        return piece


class Run:
    """One run directory, checked as it is read."""

    def __init__(self, directory: str, keys: List[bytes], verify: Verifier) -> None:
        self.directory, self.keys, self.verify = directory, keys, verify
        self.sealed = os.path.lexists(self.path("receipts/run.json"))
        self.start: Dict[str, Any] = {}
        self.last: Dict[str, Any] = {}
        self.counts = dict.fromkeys(VERDICTS, 0)
        self.records = self.size = self.torn = self.receipts = self.signed = self.checkpoints = 0
        self.head = "0" * 64
        self.counted: Optional[Tuple[int, int]] = None
        self.peaks: List[bytes] = []
        self.block: List[bytes] = []
        self.block_offset = 0

    def path(self, name: str) -> str:
        """Return the path of a file of the run."""
        return os.path.join(self.directory, name)

    def check(self) -> Dict[str, Any]:
        """Check everything and return what was found."""
        self.key = self.read_key()
        self.denials = Pieces(self.directory, "receipts/denials.jsonl", self.sealed)
        self.notes = Pieces(self.directory, "checkpoints", self.sealed, "\u2014 ".encode(), 6)
        self.blocks = Pieces(self.directory, "tree.jsonl", self.sealed)
        self.next_checkpoint()
        segments = self.segments()
        for name in segments:
            self.check_segment(name)
        if self.sealed and self.last.get("type") != "end":
            raise Fault("audit.jsonl: cut off before record %d: it has no end record" % self.records)
        self.check_rest()
        self.check_archive(segments)
        if self.sealed:
            self.check_seal()
        return self.report()

    def report(self) -> Dict[str, Any]:
        """Return what was found."""
        return {
            "state": "sealed" if self.sealed else "unsealed",
            "run": self.start.get("run", ""),
            "records": self.records,
            "counts": self.counts,
            "receipts": self.receipts,
            "checkpoints": self.checkpoints,
            "signed": self.records if self.sealed else self.signed,
            "torn": self.torn,
            "enforcing": self.start.get("enforcing") is True,
            "key": self.key_id,
            "trusted": self.key in self.keys,
        }

    def read_key(self) -> bytes:
        """Return the key in public.key, which must be one that was named."""
        text = b"".join(lines_of(self.path("public.key")))
        key = parse_key(text)
        if key is None or key_line(key) != text:
            raise Fault("public.key: not a public key file")
        self.key_id = hashlib.sha256(key).hexdigest()[:16]
        if self.keys and key not in self.keys:
            raise Fault("public.key: the run was signed by key %s, not by the one that was named" % self.key_id)
        return key

    def segments(self) -> List[str]:
        """Return the names of the log's files; while one is being compressed, the plain one counts."""
        found: List[str] = []
        while True:
            plain = "audit.%06d.jsonl" % len(found) if found else "audit.jsonl"
            names = [name for name in (plain, plain + ".gz") if os.path.lexists(self.path(name))]
            if not names:
                return found or [plain]
            if len(names) == 2 and self.sealed:
                raise Fault(plain + ": there are two copies of it, one of them compressed")
            found.append(names[0])

    def check_segment(self, name: str) -> None:
        """Check the records in one file."""
        number = offset = 0
        for line in lines_of(self.path(name)):
            number += 1
            where = "%s line %d (byte %d, record %d)" % (name, number, offset, self.records)
            if self.torn or not line.endswith(b"\n") or lost(line, offset):
                if self.sealed:
                    raise Fault(where + ": the line is cut short, but the run was sealed")
                self.torn += len(line)
                continue
            offset += len(line)
            try:
                self.check_record(line)
            except (ValueError, RecursionError) as error:
                raise Fault("%s: %s" % (where, error)) from error
        if self.sealed and not number and self.records:
            raise Fault(name + ": an empty file at the end of a sealed log")

    def check_record(self, line: bytes) -> None:
        """Check one record, and whatever speaks for it or for the log up to it."""
        record = read_json(line[:-1])
        if not isinstance(record, dict) or record.get("type") not in TYPES:
            raise ValueError("not a record")
        own = ('"hash":"%s"' % record.get("hash")).encode()
        if own not in line or hashlib.sha256(line[:-1].replace(own, b'"hash":""', 1)).hexdigest() != record["hash"]:
            raise ValueError("the record was changed: its hash is not that of its contents")
        if record.get("seq") != self.records or isinstance(record.get("seq"), bool):
            raise ValueError("record %s stands here, where %d is due" % (record.get("seq"), self.records))
        if record.get("prev") != self.head:
            raise ValueError("the chain is broken: this record does not follow the one before")
        if (record["type"] == "decision") != (record.get("verdict") in VERDICTS):
            raise ValueError("a verdict in a record that is no decision, or none in one that is")
        if (record["type"] == "start") == bool(self.start) or self.last.get("type") == "end":
            raise ValueError("a log has one start record, first, and nothing after its end record")
        if record["type"] == "end" and record.get("counts") != self.counts:
            raise ValueError("the end record's counts are not those of the log")
        self.add(record, line)

    def add(self, record: Dict[str, Any], line: bytes) -> None:
        """Count a record that stands where it should."""
        if not self.start:
            self.start = record
            self.check_start()
        self.last, self.head = record, record["hash"]
        if record["type"] == "witness" and "kernel" in record:
            self.counted = mediated(record)
        if record["type"] == "decision":
            self.counts[record["verdict"]] += 1
            if record["verdict"] != "ALLOW":
                self.check_denial(record)
        grow(self.block, self.records % BLOCK, sha256(b"\x00" + line[:-1]))
        self.records, self.size = self.records + 1, self.size + len(line)
        if self.records % BLOCK == 0:
            self.close_block()
        if self.checkpoint and self.checkpoint[1] == self.records:
            self.check_checkpoint()

    def root(self) -> bytes:
        """Return the root of the tree so far."""
        return fold(self.peaks + self.block)

    def close_block(self) -> None:
        """Take the complete block into the tree and compare it with its line in tree.jsonl."""
        where, line, root = self.blocks.where(), self.blocks.next(), fold(self.block)
        if line or self.sealed:
            if line != canonical({"offset": self.block_offset, "root": root.hex()}) + b"\n":
                raise ValueError(where + ": not the root of this block of records")
            self.blocks.count += 1
        grow(self.peaks, self.records // BLOCK - 1, root)
        self.block, self.block_offset = [], self.size

    def check_start(self) -> None:
        """Compare what the start record says with the files beside the log."""
        for member, name in DIGESTED.items():
            data = b"".join(lines_of(self.path(name)))
            if data[-1:] != b"\n" or hashlib.sha256(data[:-1]).hexdigest() != self.start.get(member):
                raise Fault(name + ": not the file whose digest the log's start record holds: changed or replaced")
        if self.start.get("key") != self.key_id:
            raise Fault("public.key: the start record names key %s, not this one" % self.start.get("key"))

    def check_denial(self, record: Dict[str, Any]) -> None:
        """Require the receipt of a decision that did not allow."""
        where, line = self.denials.where(), self.denials.next()
        if not line:
            if self.sealed:
                raise ValueError("%s without a receipt in receipts/denials.jsonl" % record["verdict"])
            return
        statement = {
            "schema": SCHEMA,
            "kind": "decision",
            "run": self.start.get("run"),
            "policy_digest": self.start.get("policy_digest"),
            "enforcing": self.start.get("enforcing"),
            "seq": record["seq"],
            "hash": record["hash"],
            "record": record,
        }
        if self.open(where, line) != canonical(statement):
            raise Fault("%s: not the receipt of record %d of this run" % (where, record["seq"]))
        self.denials.count += 1
        self.receipts, self.signed = self.receipts + 1, max(self.signed, record["seq"] + 1)

    def next_checkpoint(self) -> None:
        """Read the next checkpoint: where it stands, its size, its root."""
        where, note = self.notes.where(), self.notes.next()
        self.checkpoint: Optional[Tuple[str, int, bytes, str, Optional[Tuple[int, int]]]] = None
        if not note:
            return
        match = NOTE.fullmatch(note.decode("utf-8", "replace"))
        if not match:
            raise Fault(where + ": not a signed checkpoint")
        body, run, size, root = match[1].encode(), match[2], match[3], base64.b64decode(match[4])
        name, signature = match[7], base64.b64decode(match[8])
        counts = (int(match[5]), int(match[6])) if match[5] else None
        key_hash = sha256(name.encode() + b"\n\x01" + self.key)[:4]
        spelled = (base64.b64encode(root).decode(), base64.b64encode(signature).decode()) == (match[4], match[8])
        if not spelled or name != "helm-sentry/run/" + run or len(size) > 16:
            raise Fault(where + ": not a signed checkpoint in canonical form")
        if signature[:4] != key_hash or not self.verify(self.key, body, signature[4:]):
            raise Fault(where + ": the signature does not match the contents")
        if int(size) <= self.records:
            raise Fault("%s: a checkpoint of %s records after one of %d" % (where, size, self.records))
        self.checkpoint = (where, int(size), root, run, counts)

    def check_checkpoint(self) -> None:
        """Compare the tree with the checkpoint of its size."""
        assert self.checkpoint
        where, size, root, run, counts = self.checkpoint
        if run != self.start.get("run"):
            raise Fault("%s: a checkpoint of run %s, not of run %s" % (where, run, self.start.get("run")))
        if root != self.root():
            raise Fault("%s: the log was changed and chained anew before record %d" % (where, size))
        if counts != self.counted:
            raise Fault("%s: it states the counts %s, and the log %s" % (where, counts, self.counted))
        self.checkpoints, self.signed = self.checkpoints + 1, max(self.signed, size)
        self.notes.count += 1
        self.next_checkpoint()

    def check_rest(self) -> None:
        """Require that nothing is left over, and that the whole of a sealed log is signed."""
        if self.checkpoint:
            raise Fault(
                "%s: a checkpoint of %d records, but the log has %d: cut off" % (*self.checkpoint[:2], self.records)
            )
        if self.sealed and (not self.checkpoints or self.signed != self.records):
            raise Fault(self.notes.where() + ": the checkpoint of the whole log is missing")
        for pieces in (self.denials, self.blocks):
            if pieces.next():
                raise Fault(pieces.where() + ": something that the log does not have")

    def check_archive(self, segments: List[str]) -> None:
        """Require a signed statement for each compressed file."""
        name = "receipts/segments.jsonl"
        lines = list(lines_of(self.path(name))) if os.path.lexists(self.path(name)) else []
        if not self.sealed and lines and (not lines[-1].endswith(b"\n") or b"\0" in lines[-1]):
            lines.pop()
        copies = [segment.replace(".gz", "") + ".gz" for segment in segments]
        packed = [number for number, copy in enumerate(copies) if os.path.lexists(self.path(copy))]
        for at, number in enumerate(packed):
            where = "%s line %d" % (name, at + 1)
            if at >= len(lines):
                raise Fault(where + ": the statement about a compressed segment is missing")
            with open(self.path(copies[number]), "rb") as file:
                stored = hashlib.sha256(file.read()).hexdigest()
            statement = {
                "schema": SCHEMA,
                "kind": "segment",
                "run": self.start.get("run"),
                "segment": number,
                "stored": stored,
            }
            if self.open(where, lines[at]) != canonical(statement):
                raise Fault(where + ": not the statement about the compressed file " + copies[number])
        if self.sealed and len(lines) > len(packed):
            raise Fault("%s line %d: a statement about a segment that is not there" % (name, len(packed) + 1))

    def check_seal(self) -> None:
        """Compare the run receipt with the log."""
        statement = {
            "schema": SCHEMA,
            "kind": "run",
            "records": self.records,
            "counts": self.counts,
            "head": self.head,
            "size": self.size,
            "root": self.root().hex(),
            "started": self.start.get("time"),
            "ended": self.last.get("time"),
            "exit": self.last.get("exit"),
            "signal": self.last.get("signal"),
        }
        for name in ("run", "version", "degraded", "enforcing", *DIGESTED):
            statement[name] = self.start.get(name)
        where = "receipts/run.json"
        payload = self.open(where, b"".join(lines_of(self.path(where))))
        if payload == canonical(statement):
            return
        stated = read_json(payload)
        for name in sorted(set(statement) | set(stated)):
            if stated.get(name) != statement.get(name):
                raise Fault("%s: `%s` is not what the log gives" % (where, name))
        raise Fault(where + ": not a run receipt of this version")

    def open(self, where: str, line: bytes) -> bytes:
        """Return the payload of a DSSE envelope with one signature, in its one spelling."""
        try:
            envelope = read_json(line[:-1])
            payload, signature = (
                base64.b64decode(envelope["payload"]),
                base64.b64decode(envelope["signatures"][0]["sig"]),
            )
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise Fault("%s: not an envelope: %s" % (where, error)) from error
        only = {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"keyid": self.key_id, "sig": base64.b64encode(signature).decode()}],
        }
        if canonical(only) + b"\n" != line:
            raise Fault(where + ": not the canonical form of an envelope with one signature by this key")
        signed = b"DSSEv1 %d %b %d %b" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)
        if not self.verify(self.key, signed, signature):
            raise Fault(where + ": the signature does not match the contents")
        return payload


def key_line(key: bytes) -> bytes:
    """Return the public key file of a key."""
    return b"ed25519 %b %b\n" % (base64.b64encode(key), hashlib.sha256(key).hexdigest()[:16].encode())


def parse_key(text: bytes) -> Optional[bytes]:
    """Return the key in a public key file, or in 64 hex digits."""
    try:
        words = text.decode("ascii").split()
        if len(words) == 1 and len(words[0]) == 64:
            return bytes.fromhex(words[0])
        key = base64.b64decode(words[1]) if len(words) == 3 and words[0] == "ed25519" else b""
    except ValueError:
        return None
    return key if len(key) == 32 else None


def named_key(name: str) -> bytes:
    """Return a key given on the command line."""
    key = parse_key(name.encode())
    if key is None and os.path.isfile(name):
        with open(name, "rb") as file:
            key = parse_key(file.read(4096))
    if key is None:
        raise argparse.ArgumentTypeError("neither 64 hex digits nor a public key file: " + name)
    return key


def main(arguments: Optional[List[str]] = None) -> int:
    """Verify a run and print what was found."""
    parser = argparse.ArgumentParser(description="Verify a run of Helm Sentry.")
    parser.add_argument("run", help="the run directory")
    parser.add_argument("--public-key", action="append", type=named_key, default=[], help="key that must have signed")
    parser.add_argument("--allow-unsealed", action="store_true", help="accept a run that ended without its receipt")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--python", action="store_true", help="check signatures by this file's own code")
    options = parser.parse_args(arguments)
    verifier = python_verify if options.python else best_verifier()
    try:
        found = Run(options.run, options.public_key, verifier).check()
    except (Fault, ValueError) as fault:
        print(json.dumps({"state": "tampered", "error": str(fault)}) if options.json else "FAILED: %s" % fault)
        return FAILED
    if verifier is python_verify:
        print("note: signatures were checked by this file's own code", file=sys.stderr)
    if options.json:
        print(json.dumps(found, indent=2))
    elif found["state"] == "sealed" or options.allow_unsealed:
        trust = "the key that was named" if found["trusted"] else "not pinned: name the key with --public-key"
        what = "ok" if found["state"] == "sealed" else "ok, but unsealed; signed are the first %d" % found["signed"]
        print(
            "%s: %d records, %d receipts; key %s (%s)"
            % (what, found["records"], found["receipts"], found["key"], trust)
        )
    if found["state"] == "unsealed" and not options.allow_unsealed:
        print("FAILED: the run ended without a seal after record %d" % (found["records"] - 1), file=sys.stderr)
        return FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
