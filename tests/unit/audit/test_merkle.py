import base64
import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helm_sentry.audit.merkle import (
    BLOCK,
    EMPTY,
    BlockTree,
    Tree,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from tests.vectors import published

# RFC 6962's own test data: leaves and the roots over the first one, two … eight of them.
LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def decode(text):
    return base64.b64decode(text or "")


def leaves(count):
    return [leaf_hash(b"%d" % number) for number in range(count)]


def subtree_of(hashes):
    return lambda first, end: root_of(hashes[first:end])


def naive_root(hashes):
    """RFC 6962 section 2.1 as it is written."""
    if len(hashes) < 2:
        return hashes[0] if hashes else hashlib.sha256().digest()
    split = 1
    while split * 2 < len(hashes):
        split *= 2
    return hashlib.sha256(b"\x01" + naive_root(hashes[:split]) + naive_root(hashes[split:])).digest()


class TestRoot:
    def test_of_nothing(self):
        assert Tree().root() == BlockTree().root() == EMPTY == hashlib.sha256().digest()

    @pytest.mark.parametrize("count", range(1, 9))
    def test_of_the_standard_leaves(self, count):
        assert root_of([leaf_hash(bytes.fromhex(leaf)) for leaf in LEAVES[:count]]).hex() == ROOTS[count - 1]

    @pytest.mark.parametrize("count", [1, 2, 3, 7, 255, 256, 257, 511, 512, 513, 700, 1024])
    def test_grown_leaf_by_leaf(self, count):
        hashes, blocks, tree = leaves(count), [], BlockTree()
        for leaf in hashes:
            if (root := tree.append(leaf)) is not None:
                blocks.append(root)
        assert tree.root() == root_of(hashes) == naive_root(hashes)
        assert tree.size == count
        assert blocks == [naive_root(hashes[at : at + BLOCK]) for at in range(0, count - BLOCK + 1, BLOCK)]


class TestProofs:
    @settings(max_examples=200, deadline=None)
    @given(st.data())
    def test_of_inclusion(self, data):
        size = data.draw(st.integers(1, 300))
        index = data.draw(st.integers(0, size - 1))
        hashes = leaves(size)
        proof, root = inclusion_proof(subtree_of(hashes), index, size), root_of(hashes)
        assert verify_inclusion(hashes[index], index, size, proof, root)
        self.wrong(data, proof, lambda changed: verify_inclusion(hashes[index], index, size, changed, root))
        for other in (index - 1, index + 1, size, -1):
            assert not verify_inclusion(hashes[index], other, size, proof, root)
        assert not verify_inclusion(leaf_hash(b"x"), index, size, proof, root)
        assert not verify_inclusion(hashes[index], index, size, proof, leaf_hash(b"x"))

    @settings(max_examples=200, deadline=None)
    @given(st.data())
    def test_of_consistency(self, data):
        new = data.draw(st.integers(1, 300))
        old = data.draw(st.integers(1, new))
        hashes = leaves(new)
        roots = root_of(hashes[:old]), root_of(hashes)
        proof = consistency_proof(subtree_of(hashes), old, new)
        assert verify_consistency(old, new, *roots, proof)
        self.wrong(data, proof, lambda changed: verify_consistency(old, new, *roots, changed))
        if old < new:
            assert not verify_consistency(old, new, roots[1], roots[0], proof)
            assert not verify_consistency(new, old, *roots, proof)
        assert not verify_consistency(old, new, leaf_hash(b"x"), roots[1], proof)

    def wrong(self, data, proof, verify):
        """No proof can be lengthened, cut, or changed in a bit."""
        assert not verify([*proof, leaf_hash(b"x")])
        if proof:
            assert not verify(proof[:-1])
            at, bit = data.draw(st.integers(0, len(proof) - 1)), data.draw(st.integers(0, 255))
            changed = (int.from_bytes(proof[at]) ^ 1 << bit).to_bytes(32)
            assert not verify([*proof[:at], changed, *proof[at + 1 :]])
            assert not verify([*proof[:at], proof[at][:-1], *proof[at + 1 :]])

    @pytest.mark.parametrize(("index", "size"), [(0, 0), (-1, 3), (3, 3)])
    def test_of_a_leaf_that_is_not_there(self, index, size):
        with pytest.raises(ValueError, match="has no leaf"):
            inclusion_proof(subtree_of(leaves(3)), index, size)

    @pytest.mark.parametrize(("old", "new"), [(0, 1), (2, 1), (-1, 1)])
    def test_of_trees_that_do_not_follow(self, old, new):
        with pytest.raises(ValueError, match="no proof leads"):
            consistency_proof(subtree_of(leaves(3)), old, new)


class TestVectors:
    def test_inclusion(self):
        for case in published("merkle")["inclusion"]:
            proof = [decode(node) for node in case["proof"] or []]
            found = verify_inclusion(
                decode(case["leafHash"]), case["leafIdx"], case["treeSize"], proof, decode(case["root"])
            )
            assert found is not case["wantErr"], case["file"]

    def test_consistency(self):
        for case in published("merkle")["consistency"]:
            proof = [decode(node) for node in case["proof"] or []]
            found = verify_consistency(
                case["size1"], case["size2"], decode(case["root1"]), decode(case["root2"]), proof
            )
            assert found is not case["wantErr"], case["file"]

    def test_our_proofs_are_theirs(self):
        hashes = [leaf_hash(bytes.fromhex(leaf)) for leaf in LEAVES]
        checked = 0
        for case in published("merkle")["inclusion"]:
            if not case["wantErr"] and decode(case["root"]).hex() in ROOTS:
                proof = inclusion_proof(subtree_of(hashes), case["leafIdx"], case["treeSize"])
                assert proof == [decode(node) for node in case["proof"] or []]
                checked += 1
        for case in published("merkle")["consistency"]:
            if not case["wantErr"] and decode(case["root2"]).hex() in ROOTS:
                proof = consistency_proof(subtree_of(hashes), case["size1"], case["size2"])
                assert proof == [decode(node) for node in case["proof"] or []]
                checked += 1
        assert checked > 5
