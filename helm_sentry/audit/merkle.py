"""The RFC 6962 Merkle tree over a log's lines: roots, inclusion proofs, consistency proofs. Pure.

    leaf hash  SHA-256(0x00 || line)             the line without its newline
    node hash  SHA-256(0x01 || left || right)

A tree over n leaves splits at the largest power of two below n (RFC 6962 section 2.1). Checking follows RFC 9162
sections 2.1.3.2 and 2.1.4.2, which take the proof apart without building a tree.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

Subtree: TypeAlias = Callable[[int, int], bytes]
"""The root over the leaves from the first number up to, not including, the second."""

HASH_SIZE = 32
BLOCK = 256
"""Leaves in a block: the subtrees whose roots are kept beside a log, so that a proof need not read all of it."""
EMPTY = hashlib.sha256().digest()
"""Root of the tree without leaves."""

# Copying a fresh hash object costs less than making one.
_LEAF = hashlib.sha256(b"\x00")
_NODE = hashlib.sha256(b"\x01")


def leaf_hash(line: bytes) -> bytes:
    """Return the hash of one leaf."""
    state = _LEAF.copy()
    state.update(line)
    return state.digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node."""
    state = _NODE.copy()
    state.update(left + right)
    return state.digest()


class Tree:
    """A tree that grows leaf by leaf and keeps one hash for each bit that is set in its size."""

    __slots__ = ("_peaks", "size")

    def __init__(self) -> None:
        self.size = 0
        self._peaks: list[bytes] = []

    def append(self, leaf: bytes) -> None:
        """Add a leaf by its hash."""
        size = self.size
        while size & 1:  # each carry joins two subtrees of one size
            leaf = node_hash(self._peaks.pop(), leaf)
            size >>= 1
        self._peaks.append(leaf)
        self.size += 1

    @property
    def peaks(self) -> tuple[bytes, ...]:
        """Roots of the largest complete subtrees, from the left."""
        return tuple(self._peaks)

    def root(self) -> bytes:
        """Return the root over all leaves so far."""
        return _fold(self._peaks)


class BlockTree:
    """The same tree, which also gives the root of each complete block of leaves."""

    __slots__ = ("_blocks", "_leaves")

    def __init__(self) -> None:
        self._blocks = Tree()
        self._leaves: list[bytes] = []  # of the block that is not complete: joined all at once they take half the time

    @property
    def size(self) -> int:
        """Number of leaves."""
        return self._blocks.size * BLOCK + len(self._leaves)

    def append(self, leaf: bytes) -> bytes | None:
        """Add a leaf by its hash; return the root of the block that it completed, if any."""
        return self.extend((leaf,))

    def extend(self, leaves: Iterable[bytes]) -> bytes | None:
        """Add leaves that may complete a block, but do not begin another; return its root if they do."""
        self._leaves.extend(leaves)
        if len(self._leaves) < BLOCK:
            return None
        (root,) = _peaks(self._leaves)
        self._blocks.append(root)
        self._leaves = []
        return root

    def root(self) -> bytes:
        """Return the root over all leaves so far."""
        return _fold([*self._blocks.peaks, *_peaks(self._leaves)])


def root_of(leaves: Sequence[bytes]) -> bytes:
    """Return the root over these leaf hashes."""
    return _fold(_peaks(leaves))


def inclusion_proof(subtree: Subtree, index: int, size: int) -> list[bytes]:
    """Return the hashes that lead from a leaf to the root of the tree over the first `size` leaves.

    Raises:
        ValueError: the tree has no such leaf.
    """
    if not 0 <= index < size:
        raise ValueError(f"a tree of {size} leaves has no leaf {index}")
    proof: list[bytes] = []
    first, end = 0, size
    while end - first > 1:
        middle = first + split(end - first)
        if index < middle:
            proof.append(subtree(middle, end))
            end = middle
        else:
            proof.append(subtree(first, middle))
            first = middle
    proof.reverse()
    return proof


def consistency_proof(subtree: Subtree, old: int, new: int) -> list[bytes]:
    """Return the hashes that show that the tree over `new` leaves begins with the one over `old` leaves.

    Raises:
        ValueError: the old tree is empty, for which nothing can be shown, or larger than the new one.
    """
    if not 0 < old <= new:
        raise ValueError(f"no proof leads from a tree of {old} leaves to one of {new}")
    proof: list[bytes] = []
    first, end, whole = 0, new, True
    while old != end:
        middle = first + split(end - first)
        if old <= middle:
            proof.append(subtree(middle, end))
            end = middle
        else:
            proof.append(subtree(first, middle))
            first, whole = middle, False
    if not whole:
        proof.append(subtree(first, end))
    proof.reverse()
    return proof


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Return whether a proof leads from this leaf hash at this place to this root (RFC 9162 section 2.1.3.2)."""
    if not 0 <= index < size or not _hashes(leaf, root, *proof):
        return False
    at, last, found = index, size - 1, leaf
    for node in proof:
        if last == 0:
            return False
        if at & 1 or at == last:
            found = node_hash(node, found)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            found = node_hash(found, node)
        at, last = at >> 1, last >> 1
    return last == 0 and found == root


def verify_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Return whether a proof shows that one tree begins with the other (RFC 9162 section 2.1.4.2).

    A tree without leaves is not accepted: every tree begins with it, so it proves nothing.
    """
    if old == new > 0:
        return not proof and old_root == new_root
    if not 0 < old < new or not _hashes(old_root, new_root, *proof):
        return False
    nodes = [old_root, *proof] if old & (old - 1) == 0 else list(proof)
    if not nodes:
        return False
    at, last = old - 1, new - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    old_found = new_found = nodes[0]
    for node in nodes[1:]:
        if last == 0:
            return False
        if at & 1 or at == last:
            old_found, new_found = node_hash(node, old_found), node_hash(node, new_found)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            new_found = node_hash(new_found, node)
        at, last = at >> 1, last >> 1
    return last == 0 and old_found == old_root and new_found == new_root


def _peaks(leaves: Sequence[bytes]) -> list[bytes]:
    """Return the roots of the largest complete subtrees, from the left, level by level."""
    peaks, level = [], leaves
    while level:
        if len(level) & 1:
            peaks.append(level[-1])
        level = [node_hash(left, right) for left, right in zip(level[::2], level[1::2], strict=False)]
    return peaks[::-1]


def _fold(peaks: Sequence[bytes]) -> bytes:
    if not peaks:
        return EMPTY
    *left, root = peaks
    for peak in reversed(left):
        root = node_hash(peak, root)
    return root


def split(count: int) -> int:
    """Return the largest power of two below a number above one."""
    return 1 << (count - 1).bit_length() - 1


def _hashes(*values: bytes) -> bool:
    return all(len(value) == HASH_SIZE for value in values)
