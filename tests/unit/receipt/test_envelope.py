import base64
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helm_sentry.errors import VerificationError
from helm_sentry.receipt.envelope import PAYLOAD_TYPE, Envelope, Signature, pae, seal
from helm_sentry.receipt.keys import SigningKey

VECTORS = os.path.join(os.path.dirname(__file__), *[os.pardir] * 4, "shared", "vectors", "dsse.json")
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


class TestPae:
    @pytest.mark.skipif(not os.path.exists(VECTORS), reason="no vectors beside the checkout")
    def test_vectors(self):
        with open(VECTORS, encoding="utf-8") as file:
            for case in json.load(file)["pae"]:
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
