import hashlib
import multiprocessing
import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helm_sentry.errors import SentryError
from helm_sentry.receipt.ed25519 import verify
from helm_sentry.receipt.keys import (
    KEY_NAME,
    PublicKey,
    SigningKey,
    load_or_create,
    load_public_key,
)
from tests.vectors import published

KEY = SigningKey(bytes(range(32)))


def vectors(name):
    return published("ed25519")[name]


class TestVectors:
    @pytest.mark.parametrize("name", ["rfc8032_7_1", "sign_input"])
    def test_sign_and_verify(self, name):
        for case in vectors(name):
            key, message = SigningKey(bytes.fromhex(case["seed"])), bytes.fromhex(case["msg"])
            assert (key.public.data.hex(), key.sign(message).hex()) == (case["pub"], case["sig"])
            assert key.public.verify_signature(message, key.sign(message))

    def test_wycheproof(self):
        for case in vectors("wycheproof"):
            parts = (bytes.fromhex(case[name]) for name in ("pub", "msg", "sig"))
            assert verify(*parts) == (case["result"] == "valid"), case["comment"]


class TestSignatures:
    @given(st.binary(max_size=40), st.data())
    def test_a_changed_byte_fails(self, message, data):
        signature = KEY.sign(message)
        whole = bytearray(signature + message)
        whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
        assert not KEY.public.verify_signature(bytes(whole[64:]), bytes(whole[:64]))

    @pytest.mark.parametrize("length", [0, 63, 65])
    def test_another_length_fails(self, length):
        assert not KEY.public.verify_signature(b"m", (KEY.sign(b"m") + b"m")[:length])

    def test_the_secret_is_not_printed(self):
        assert repr(KEY) == f"SigningKey({KEY.public.id})"


class TestFiles:
    def test_public_file(self):
        assert KEY.public.export() == b"ed25519 A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg= 56475aa75463474c\n"
        assert PublicKey.parse(KEY.public.export()) == KEY.public

    def test_the_id_is_the_digest_of_the_public_key(self):
        assert KEY.public.id == hashlib.sha256(KEY.public.data).hexdigest()[:16]

    @pytest.mark.parametrize(
        "parse_and_text", [(PublicKey.parse, KEY.public.export()), (SigningKey.parse, KEY.export())]
    )
    def test_a_changed_byte_fails(self, parse_and_text):
        parse, text = parse_and_text
        for place in range(len(text)):
            for bit in range(8):
                changed = bytearray(text)
                changed[place] ^= 1 << bit
                with pytest.raises(SentryError):
                    parse(bytes(changed))

    @pytest.mark.parametrize("text", [b"", b"\n", b"ed25519", b"ed25519  \n", KEY.public.export() * 2, KEY.export()])
    def test_other_contents_fail(self, text):
        with pytest.raises(SentryError):
            PublicKey.parse(text)

    def test_load_public_key_names_the_file(self, tmp_path):
        with pytest.raises(SentryError, match=r"`.*absent.pub` cannot be read"):
            load_public_key(str(tmp_path / "absent.pub"))
        (tmp_path / "bad.pub").write_bytes(b"bad")
        with pytest.raises(SentryError, match=r"`.*bad.pub` is not a key file"):
            load_public_key(str(tmp_path / "bad.pub"))


class TestLoadOrCreate:
    def mode(self, path):
        return stat.S_IMODE(os.stat(path).st_mode)

    def test_makes_a_key_on_first_use_and_keeps_it(self, tmp_path):
        directory = tmp_path / "state" / "keys"
        key = load_or_create(str(directory))
        assert load_or_create(str(directory)).public == key.public
        assert load_public_key(str(directory / f"{key.public.id}.pub")) == key.public

    def test_keeps_others_out_whatever_the_umask(self, tmp_path):
        directory = tmp_path / "keys"
        before = os.umask(0)
        try:
            load_or_create(str(directory))
        finally:
            os.umask(before)
        assert (self.mode(directory), self.mode(directory / KEY_NAME)) == (0o700, 0o600)

    def test_leaves_no_temporary_files(self, tmp_path):
        key = load_or_create(str(tmp_path / "keys"))
        assert sorted(os.listdir(tmp_path / "keys")) == sorted([KEY_NAME, f"{key.public.id}.pub"])

    def test_makes_the_public_file_again(self, tmp_path):
        key = load_or_create(str(tmp_path / "keys"))
        (tmp_path / "keys" / f"{key.public.id}.pub").unlink()
        load_or_create(str(tmp_path / "keys"))
        assert (tmp_path / "keys" / f"{key.public.id}.pub").exists()

    def test_processes_that_race_get_one_key(self, tmp_path):
        with multiprocessing.get_context("spawn").Pool(4) as pool:
            keys = pool.map(key_id, [str(tmp_path / "keys")] * 8)
        assert len(set(keys)) == 1

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o601, 0o620])
    def test_refuses_a_key_that_others_can_reach(self, tmp_path, mode):
        load_or_create(str(tmp_path / "keys"))
        os.chmod(tmp_path / "keys" / KEY_NAME, mode)
        with pytest.raises(SentryError, match="run `chmod 600 "):
            load_or_create(str(tmp_path / "keys"))

    def test_refuses_a_directory_that_others_can_reach(self, tmp_path):
        load_or_create(str(tmp_path / "keys"))
        os.chmod(tmp_path / "keys", 0o755)
        with pytest.raises(SentryError, match="run `chmod 700 "):
            load_or_create(str(tmp_path / "keys"))

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
    @pytest.mark.parametrize("name", ["", KEY_NAME])
    def test_refuses_what_belongs_to_somebody_else(self, tmp_path, name):
        load_or_create(str(tmp_path / "keys"))
        os.chown(tmp_path / "keys" / name, 12345, -1)
        with pytest.raises(SentryError, match="belongs to user 12345"):
            load_or_create(str(tmp_path / "keys"))

    @pytest.mark.parametrize(
        "place",
        [
            pytest.param(lambda path: path.write_bytes(b""), id="empty file"),
            pytest.param(lambda path: path.write_bytes(KEY.export()[:-1]), id="cut short"),
            pytest.param(lambda path: path.write_bytes(KEY.public.export()), id="public key"),
            pytest.param(lambda path: path.symlink_to("elsewhere"), id="symlink"),
            pytest.param(lambda path: os.mkfifo(path), id="fifo"),
            pytest.param(lambda path: path.mkdir(), id="directory"),
        ],
    )
    def test_refuses_a_bad_file_and_leaves_it(self, tmp_path, place):
        (tmp_path / "keys").mkdir(mode=0o700)
        path = tmp_path / "keys" / KEY_NAME
        place(path)
        if not path.is_symlink():
            os.chmod(path, 0o600)
        before = os.lstat(path)
        with pytest.raises(SentryError, match="signing key `.*`"):
            load_or_create(str(tmp_path / "keys"))
        assert os.lstat(path).st_ino == before.st_ino

    def test_refuses_a_linked_directory(self, tmp_path):
        load_or_create(str(tmp_path / "keys"))
        (tmp_path / "link").symlink_to("keys")
        with pytest.raises(SentryError, match="no signing key can be had"):
            load_or_create(str(tmp_path / "link"))


def key_id(directory):
    return load_or_create(directory).public.id
