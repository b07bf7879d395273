import base64

import pytest

from helm_sentry.audit.checkpoint import Checkpoint, key_hash, signed_note, verifier_key
from helm_sentry.receipt.keys import SigningKey

KEY, OTHER = SigningKey(bytes(range(32))), SigningKey(bytes(32))
FOUND = Checkpoint("20261121-071503-ab12cd", 1024, bytes(range(32)))


def note(checkpoint=FOUND, key=KEY):
    return checkpoint.sign(key.public.data, key.sign)


def read(text, key=KEY):
    return Checkpoint.open(text, key.public.data, key.public.verify_signature)


class TestPublishedNote:
    """The example of the signed-note format and of its first implementation (golang.org/x/mod/sumdb/note)."""

    NAME = "PeterNeumann"
    SEED = base64.b64decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")[1:]
    TEXT = b"If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
    LINE = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="

    def test_is_what_we_sign(self):
        key = SigningKey(self.SEED)
        signature = key_hash(self.NAME, key.public.data) + key.sign(self.TEXT)
        expected = self.TEXT.decode() + f"\n\u2014 {self.NAME} {self.LINE}\n"
        assert signed_note(self.TEXT, self.NAME, signature).decode() == expected

    def test_verifier_key(self):
        public = SigningKey(self.SEED).public.data
        assert verifier_key(self.NAME, public) == "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"


class TestCheckpoint:
    def test_text(self):
        lines = note().decode().split("\n")
        assert lines[:4] == [
            "helm-sentry/run/20261121-071503-ab12cd",
            "1024",
            base64.b64encode(FOUND.root).decode(),
            "",
        ]
        assert lines[4].startswith("\u2014 helm-sentry/run/20261121-071503-ab12cd ")
        assert lines[5:] == [""]

    def test_is_read_back(self):
        assert read(note()) == FOUND

    def test_of_another_key(self):
        with pytest.raises(ValueError, match="another key"):
            read(note(key=OTHER))

    def test_signature_of_another_checkpoint(self):
        other = note(Checkpoint(FOUND.run, 1025, FOUND.root)).splitlines(keepends=True)
        with pytest.raises(ValueError, match="does not match"):
            read(b"".join([*note().splitlines(keepends=True)[:4], other[4]]))

    @pytest.mark.parametrize("mask", [0x01, 0x20, 0x80], ids=hex)
    def test_no_byte_can_be_changed(self, mask):
        whole = note()
        for place in range(len(whole)):
            changed = bytearray(whole)
            changed[place] ^= mask
            with pytest.raises(ValueError, match="checkpoint"):
                read(bytes(changed))

    @pytest.mark.parametrize(
        "change",
        [
            pytest.param(lambda text: text[:-1], id="no last newline"),
            pytest.param(lambda text: text + b"\n", id="a line more"),
            pytest.param(lambda text: text + text.splitlines(keepends=True)[4], id="a signature more"),
            pytest.param(lambda text: text.replace(b"1024", b"01024"), id="a zero before the size"),
            pytest.param(lambda text: text.replace(b"1024", b"1_024"), id="an underscore in the size"),
            pytest.param(lambda text: text.replace(b"\n1024", b"\n 1024"), id="a space before the size"),
            pytest.param(lambda text: text.replace(b"\n", b"\r\n"), id="other newlines"),
            pytest.param(lambda text: text.replace(b"helm-sentry/run/", b"", 1), id="no prefix"),
            pytest.param(lambda text: b"", id="nothing"),
        ],
    )
    def test_there_is_one_spelling(self, change):
        with pytest.raises(ValueError, match="checkpoint"):
            read(change(note()))

    @pytest.mark.parametrize("size", [0, -1])
    def test_of_nothing(self, size):
        with pytest.raises(ValueError, match="canonical form"):
            read(note(Checkpoint(FOUND.run, size, FOUND.root)))
