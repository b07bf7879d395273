import base64
import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helm_sentry.errors import VerificationError
from helm_sentry.receipt.envelope import PAYLOAD_TYPE, Envelope, Signature, pae, seal
from helm_sentry.receipt.keys import SigningKey
from tests.vectors import published

KEY, OTHER = SigningKey(bytes(range(32))), SigningKey(bytes(32))
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
parts = st.tuples(text, st.binary(max_size=9))
KEYS = {KEY.public.id: KEY.public}


def members(**changes):
    return json.loads(seal(b'{"a":1}', KEY)) | changes


def signature(key=KEY, **changes):
    signed = base64.b64encode(key.sign(pae(PAYLOAD_TYPE, b'{"a":1}'))).decode()
    return {"keyid": key.public.id, "sig": signed} | changes


def opened(envelope, keys=KEYS):
    return Envelope.parse(json.dumps(envelope).encode()).open(keys)


class P256:
    """The key of the protocol's example, which is of another kind than ours; by the book of FIPS 186-5."""

    P = 2**256 - 2**224 + 2**192 + 2**96 - 1
    N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    G = (
        0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
        0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
    )

    def __init__(self, x, y):
        self.point = (x, y)

    def verify_signature(self, message, signature):
        r, s = (int.from_bytes(half) for half in (signature[:32], signature[32:]))
        inverse, hashed = pow(s, -1, self.N), int.from_bytes(hashlib.sha256(message).digest())
        found = self.add(self.times(self.G, hashed * inverse % self.N), self.times(self.point, r * inverse % self.N))
        return found is not None and found[0] % self.N == r

    def sign(self, secret, message):
        nonce = 2  # nothing is secret here
        r, hashed = self.times(self.G, nonce)[0] % self.N, int.from_bytes(hashlib.sha256(message).digest())
        s = pow(nonce, -1, self.N) * (hashed + r * secret) % self.N
        return r.to_bytes(32) + s.to_bytes(32)

    def add(self, one, other):
        if one is None or other is None:
            return one or other
        (x, y), (u, v) = one, other
        if x == u and (y + v) % self.P == 0:
            return None
        slope = (3 * x * x - 3) * pow(2 * y, -1, self.P) if one == other else (v - y) * pow(u - x, -1, self.P)
        third = (slope * slope - x - u) % self.P
        return third, (slope * (x - third) - y) % self.P

    def times(self, point, factor):
        found = None
        for bit in bin(factor)[2:]:
            found = self.add(found, found) if found else None
            found = self.add(found, point) if bit == "1" else found
        return found


class TestExample:
    """The protocol's own example, and what it says must and must not be accepted."""

    @pytest.fixture
    def example(self):
        return published("dsse")["p256"]

    @pytest.fixture
    def opened(self, example):
        key, kind = P256(example["x"], example["y"]), example["envelope"]["payloadType"]

        def opened(**changes):
            envelope = json.dumps(example["envelope"] | changes).encode()
            return Envelope.parse(envelope).open({"example": key}, changes.get("payloadType", kind))

        return opened

    def test_is_accepted(self, example, opened):
        (signed,) = example["envelope"]["signatures"]
        url = signed["sig"].translate(str.maketrans("+/", "-_"))
        assert opened() == b"hello world"
        assert opened(signatures=[{"sig": url}]) == b"hello world"
        assert opened(extra=1, signatures=[signed | {"keyid": "unknown", "more": 2}]) == b"hello world"

    def test_is_refused(self, example, opened):
        key, whole = P256(example["x"], example["y"]), pae(example["envelope"]["payloadType"], b"hello world")
        signed = {
            text: {"sig": base64.b64encode(key.sign(example["d"], text)).decode()} for text in (b"hello world", whole)
        }
        assert opened(signatures=[signed[whole]]) == b"hello world"
        changes = (
            {"signatures": [signed[b"hello world"]]},
            {"payloadType": "http://example.com/HelloWorlds"}, {"payload": "aGVsbG8gd29ybGU="}, {"signatures": []},
            {"signatures": [{"sig": base64.b64encode(bytes(63) + b"\1").decode()}]},
        )  # fmt: skip
        for change in changes:
            with pytest.raises((VerificationError, ValueError)):
                opened(**change)


class TestPae:
    def test_vectors(self):
        for case in published("dsse")["pae"]:
            assert pae(case["type"], case["body"].encode()) == case["pae"].encode()

    def test_lengths_are_of_bytes(self):
        assert pae("ü", b"\x00 ") == b"DSSEv1 2 \xc3\xbc 2 \x00 "

    @given(parts, parts)
    def test_is_injective(self, one, other):
        assert (pae(*one) == pae(*other)) == (one == other)


class TestSeal:
    def test_form(self):
        assert members() == {
            "payload": "eyJhIjoxfQ==",
            "payloadType": "application/vnd.helm-sentry.receipt+json",
            "signatures": [signature()],
        }

    @given(st.binary())
    def test_open_gives_the_payload_back(self, payload):
        envelope = Envelope.parse(seal(payload, KEY))
        assert envelope.open(KEYS) == payload
        assert envelope.encode() == seal(payload, KEY)


class TestOpen:
    """Any one signature by a known key is enough; nothing else makes up for its absence."""

    @pytest.mark.parametrize(
        "signatures",
        [
            pytest.param([signature(OTHER), signature()], id="after an unknown signer"),
            pytest.param([signature(sig="AAAA"), signature()], id="after a wrong one"),
            pytest.param([signature(keyid="")], id="without a key id"),
            pytest.param([signature(keyid="unknown")], id="with a wrong hint"),
            pytest.param([signature() | {"extension": 1}], id="with an unknown member"),
        ],
    )
    def test_accepts_a_signature(self, signatures):
        assert opened(members(signatures=signatures, extension=1)) == b'{"a":1}'

    def test_accepts_the_url_alphabet(self):
        payload = b"\xfb\xff\xfe>>>???"
        sealed = json.loads(seal(payload, KEY))
        for text in [sealed, sealed["signatures"][0]]:
            for name in {"payload", "sig"} & set(text):
                text[name] = text[name].replace("+", "-").replace("/", "_")
        assert opened(sealed) == payload

    @pytest.mark.parametrize(
        ("changes", "match"),
        [
            pytest.param({"payloadType": "text/plain"}, "holds `text/plain`", id="another type"),
            pytest.param({"payload": "eyJhIjoyfQ=="}, "does not match", id="another payload"),
            pytest.param({"signatures": []}, "signed by nobody", id="no signature"),
            pytest.param({"signatures": [signature(OTHER)]}, f"signed by `{OTHER.public.id}`", id="unknown signer"),
            pytest.param({"signatures": [signature(OTHER, keyid=KEY.public.id)]}, "does not match", id="borrowed id"),
            pytest.param(
                {"signatures": [signature(sig=base64.b64encode(KEY.sign(b'{"a":1}')).decode())]},
                "does not match",
                id="signature over the payload itself",
            ),
        ],
    )
    def test_refuses(self, changes, match):
        with pytest.raises(VerificationError, match=match):
            opened(members(**changes))

    def test_refuses_everything_without_keys(self):
        with pytest.raises(VerificationError):
            opened(members(), {})


class TestParse:
    @pytest.mark.parametrize(
        "payload",
        [
            "eyJhIjoxfQ",
            "eyJhIjoxfQ=",
            "eyJhIjoxfR==",
            " eyJhIjoxfQ==",
            "eyJh\nIjoxfQ==",
            "eyJh*",
            "é",
            "+-==",
        ],
    )
    def test_refuses_lenient_base64(self, payload):
        with pytest.raises(VerificationError, match="not an envelope"):
            opened(members(payload=payload))

    @pytest.mark.parametrize(
        "changes",
        [
            {"payload": None},
            {"payload": 1},
            {"payloadType": []},
            {"signatures": {}},
            {"signatures": [1]},
            {"signatures": [{}]},
            {"signatures": [signature(keyid=1)]},
            {"signatures": [signature(sig=None)]},
        ],
    )
    def test_refuses_another_shape(self, changes):
        with pytest.raises(VerificationError, match="not an envelope"):
            opened(members(**changes))

    @pytest.mark.parametrize("data", [b"", b"[]", b"1", b'{"payload":"","payload":""}', b"\xff"])
    def test_refuses_other_text(self, data):
        with pytest.raises(VerificationError, match="not an envelope"):
            Envelope.parse(data)

    def test_signatures_keep_their_order(self):
        parsed = Envelope.parse(json.dumps(members(signatures=[signature(OTHER), signature()])).encode())
        assert [type(item) for item in parsed.signatures] == [Signature, Signature]
        assert [item.keyid for item in parsed.signatures] == [OTHER.public.id, KEY.public.id]
