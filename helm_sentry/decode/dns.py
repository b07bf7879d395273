"""Questions to a name server and their answers: RFC 1035, as much of it as a stub resolver needs. Pure.

Only names that a rule could state are understood (letters, digits, `-` and `_`), and only addresses are answered.
Nothing here follows a compression pointer: a question has nothing to point at.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import ip_address

A, AAAA = 1, 28
"""Question types, RFC 1035 and RFC 3596."""

MOST_ADDRESSES = 8
"""Addresses in one answer: with the longest name they fill less than the 512 bytes that need no extension."""

_HEADER = 12
_IN = 1
_RESPONSE, _RECURSION_DESIRED, _RECURSION_AVAILABLE = 0x8000, 0x0100, 0x0080
_OPCODE_AND_RESPONSE = 0xF800
_TO_QUESTION = b"\xc0\x0c"  # the name that stands after the header
_LABEL = re.compile(rb"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_LONGEST_NAME = 253


class Code(IntEnum):
    """How a question is answered."""

    FOUND = 0
    FAILED = 2
    NO_SUCH_NAME = 3
    REFUSED = 5


@dataclass(frozen=True, slots=True)
class Question:
    """One question.

    Attributes:
        name: what is asked about, in lower case, without a dot at its end.
        kind: type of the record that is wanted, such as `A`.
        identity: number that the answer must carry.
        raw: the question's own bytes, which the answer repeats; they hold the name in the asker's letters.
        recursive: whether the asker wants more than one server asked.
    """

    name: str
    kind: int
    identity: int
    raw: bytes
    recursive: bool


def read_question(message: bytes) -> Question:
    """Return the question in a message.

    Raises:
        ValueError: it is not one question about a host name.
    """
    if len(message) < _HEADER:
        raise ValueError("short header")
    identity, bits, questions = (int.from_bytes(message[at : at + 2], "big") for at in (0, 2, 4))
    if bits & _OPCODE_AND_RESPONSE or questions != 1:
        raise ValueError("not one question")
    labels, at = [], _HEADER
    while length := message[at] if at < len(message) else 0:
        label = message[at + 1 : at + 1 + length].lower()
        if len(label) != length or not _LABEL.fullmatch(label):
            raise ValueError("not a host name")
        labels.append(label.decode())
        at += 1 + length
    end = at + 5
    name = ".".join(labels)
    if len(message) < end or not name or len(name) > _LONGEST_NAME:
        raise ValueError("not a host name")
    kind, group = (int.from_bytes(message[start : start + 2], "big") for start in (at + 1, at + 3))
    if group != _IN:
        raise ValueError("not a question about the internet")
    return Question(name, kind, identity, message[_HEADER:end], bool(bits & _RECURSION_DESIRED))


def answer(question: Question, code: Code, addresses: Sequence[str] = (), lifetime: int = 0) -> bytes:
    """Return the answer to a question.

    Args:
        question: what was asked.
        code: how it is answered.
        addresses: what the name stands for; those of another type than was asked for are left out.
        lifetime: seconds for which the asker may keep it.
    """
    size = {A: 4, AAAA: 16}.get(question.kind, 0)
    packed = [data for address in addresses if len(data := ip_address(address).packed) == size][:MOST_ADDRESSES]
    bits = _RESPONSE | _RECURSION_AVAILABLE | code | (_RECURSION_DESIRED if question.recursive else 0)
    header = b"".join(number.to_bytes(2, "big") for number in (question.identity, bits, 1, len(packed), 0, 0))
    record = _TO_QUESTION + question.kind.to_bytes(2, "big") + _IN.to_bytes(2, "big") + lifetime.to_bytes(4, "big")
    return header + question.raw + b"".join(record + size.to_bytes(2, "big") + data for data in packed)
