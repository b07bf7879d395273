"""The tree of a run on the disk: any record and any proof without reading the whole log.

tree.jsonl says where each block begins and what its root is, so a proof reads the blocks that it cuts through. What
comes from here is a claim until the signed root confirms it.
"""

import os
from collections.abc import Iterator
from itertools import islice

from helm_sentry.audit.canonical import Fields, loads
from helm_sentry.audit.checkpoint import DASH, Checkpoint
from helm_sentry.audit.merkle import BLOCK, leaf_hash, node_hash, root_of, split
from helm_sentry.audit.segments import COMPRESSED, open_file, stored_names
from helm_sentry.errors import UsageError, VerificationError
from helm_sentry.receipt.keys import PublicKey
from helm_sentry.receipt.proof import (
    check_consistency,
    consistency_statement,
    record_statement,
    verify_record,
)
from helm_sentry.receipt.report import CHECKPOINTS, PUBLIC, TREE

_MOST_NAMED = 12


class StoredTree:
    """A run directory, read where it is needed.

    Args:
        directory: the run directory.

    Raises:
        VerificationError: a file is missing or damaged.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        with open_file(directory, PUBLIC) as file:
            self.key = PublicKey.parse(file.read())
        self.checkpoints = self._checkpoints()
        self._offsets, self._roots = self._blocks()
        self._kept: dict[int, list[bytes]] = {}

    def receipt(self, sequence: int) -> Fields:
        """Return the receipt of one record, checked.

        Raises:
            UsageError: no checkpoint covers such a record.
            VerificationError: the files do not lead to the signed root.
        """
        note, found = self._last()
        if not 0 <= sequence < found.size:
            raise UsageError(f"there is no signed record {sequence}: a checkpoint covers 0 to {found.size - 1}")
        start, record = self._record(0), self._record(sequence)
        statement = record_statement(self.subtree, start, record, note, found.size, self.key)
        verify_record(statement, self.key)
        return statement

    def consistency(self, old: int = 0, new: int = 0) -> Fields:
        """Return the proof that the checkpoint of `new` records continues that of `old`; 0 is the first and the last.

        Raises:
            UsageError: there are no such checkpoints.
            VerificationError: the files do not lead to the signed roots.
        """
        by_size = {found.size: note for note, found in self.checkpoints}
        sizes = old or min(by_size, default=0), new or max(by_size, default=0)
        if not set(sizes) <= set(by_size) or sizes[0] > sizes[1]:
            there = _some(sorted(by_size))
            raise UsageError(f"there are no checkpoints of {sizes[0]} and then {sizes[1]} records; there are: {there}")
        statement = consistency_statement(self.subtree, by_size[sizes[0]], by_size[sizes[1]], sizes)
        check_consistency(statement, self.key)
        return statement

    def subtree(self, first: int, end: int) -> bytes:
        """Return the root over the records from one up to another, which the tree has as a node."""
        if first % BLOCK == 0 and end % BLOCK == 0 and end // BLOCK <= len(self._roots):
            return root_of(self._roots[first // BLOCK : end // BLOCK])
        if end - first <= BLOCK:
            return root_of([leaf_hash(line) for line in self._lines(first, end)])
        middle = first + split(end - first)
        return node_hash(self.subtree(first, middle), self.subtree(middle, end))

    def _last(self) -> tuple[bytes, Checkpoint]:
        if not self.checkpoints:
            raise UsageError("the run has no checkpoint yet, so no record can be proved")
        return self.checkpoints[-1]

    def _record(self, sequence: int) -> Fields:
        for line in self._lines(sequence, sequence + 1):
            try:
                fields = loads(line, canonical=True)
            except ValueError as error:
                raise VerificationError(f"record {sequence} is damaged: {error}", sequence) from error
            if isinstance(fields, dict):
                return fields
        raise VerificationError(f"record {sequence} is missing", sequence)

    def _lines(self, first: int, end: int) -> Iterator[bytes]:
        for number in range(first // BLOCK, (end - 1) // BLOCK + 1):
            offset = number * BLOCK
            yield from self._block(number)[max(0, first - offset) : end - offset]

    def _block(self, number: int) -> list[bytes]:
        if number not in self._kept:
            known = min(number, len(self._offsets) - 1)
            start = self._offsets[known] if self._offsets else 0
            lines = islice(self._read(start), (number - max(known, 0)) * BLOCK, None)
            self._kept[number] = [line.removesuffix(b"\n") for line in islice(lines, BLOCK)]
        return self._kept[number]

    def _read(self, offset: int) -> Iterator[bytes]:
        """Return the lines of the log from an offset on."""
        for name in stored_names(self._directory):
            size = self._size(name)
            if offset < size:
                with open_file(self._directory, name) as file:
                    file.seek(offset)
                    yield from file
            offset = max(0, offset - size)

    def _size(self, name: str) -> int:
        path = os.path.join(self._directory, name)
        if not name.endswith(COMPRESSED):
            return os.path.getsize(path)
        with open(path, "rb") as file:  # RFC 1952: the last four bytes are the size of what is compressed
            file.seek(-4, os.SEEK_END)
            return int.from_bytes(file.read(4), "little")

    def _checkpoints(self) -> list[tuple[bytes, Checkpoint]]:
        with open_file(self._directory, CHECKPOINTS) as file:
            lines = file.readlines()
        notes, first = [b""], [1]
        for number, text in enumerate(lines, 1):
            notes[-1] += text
            if text.startswith(DASH.encode()):
                notes.append(b"")
                first.append(number + 1)
        notes.pop()  # a torn one, or nothing
        found = []
        for number, note in enumerate(notes):
            try:
                found.append((note, Checkpoint.open(note, self.key.data, self.key.verify_signature)))
            except ValueError as error:
                if number < len(notes) - 1:  # the last one may be torn
                    raise VerificationError(f"{CHECKPOINTS} line {first[number]}: {error}") from error
        return found

    def _blocks(self) -> tuple[list[int], list[bytes]]:
        offsets, roots = [], []
        with open_file(self._directory, TREE) as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):  # torn
                    break
                try:
                    fields = loads(line[:-1], canonical=True)
                    offsets.append(int(fields["offset"]))  # type: ignore[call-overload, index, arg-type]
                    roots.append(bytes.fromhex(fields["root"]))  # type: ignore[call-overload, index, arg-type]
                except (ValueError, TypeError, KeyError) as error:
                    raise VerificationError(f"{TREE} line {number}: not the root of a block") from error
        return offsets, roots


def _some(sizes: list[int]) -> str:
    shown = ", ".join(map(str, sizes[:_MOST_NAMED])) or "none"
    return shown + (f" … {sizes[-1]}, {len(sizes)} in all" if len(sizes) > _MOST_NAMED else "")
