import os
import subprocess

import pytest
from click.testing import CliRunner
from receipt_runs import KEY, OTHER_KEY

from helm_sentry.cli.keys import keys
from helm_sentry.errors import SentryError, UsageError
from helm_sentry.receipt import keyring, pkcs8
from helm_sentry.receipt.keys import PublicKey, SigningKey, load_public_key

# RFC 8410 section 10.3: a private key, version 0 and with its public key, and section 10.1.
PRIVATE = b"""-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC
-----END PRIVATE KEY-----
"""
WITH_PUBLIC = b"""-----BEGIN PRIVATE KEY-----
MHICAQEwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC
oB8wHQYKKoZIhvcNAQkJFDEPDA1DdXJkbGUgQ2hhaXJzgSEAGb9ECWmEzf6FQbrB
Z9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PRIVATE KEY-----
"""
PUBLIC = b"""-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PUBLIC KEY-----
"""
RSA = b"-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VuBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n"
PRIVATE_KEY = SigningKey(pkcs8.private_seed(PRIVATE))


class TestPkcs8:
    def test_the_standard_s_example(self):
        assert PRIVATE_KEY.public.data == pkcs8.public_bytes(PUBLIC)
        assert pkcs8.private_seed(WITH_PUBLIC) == pkcs8.private_seed(PRIVATE)
        assert pkcs8.public_pem(PRIVATE_KEY.public.data) == PUBLIC

    @pytest.mark.parametrize("text", [PRIVATE, WITH_PUBLIC])
    def test_no_byte_more_or_less_of_der(self, text):
        der = __import__("base64").b64decode(b"".join(text.split(b"\n")[1:-2]))
        assert pkcs8.private_seed(der) == pkcs8.private_seed(PRIVATE)
        for end in range(len(PRIVATE) and 48):
            with pytest.raises(SentryError):
                pkcs8.private_seed(der[:end])
        with pytest.raises(SentryError, match="unexpected|not one key"):
            pkcs8.private_seed(der + b"x" if text is PRIVATE else b"x" + der)

    @pytest.mark.parametrize(
        ("text", "match"),
        [
            (RSA, "not of Ed25519"),
            (PRIVATE.replace(b"PRIVATE", b"ENCRYPTED PRIVATE"), "is encrypted"),
            (PUBLIC, "not a PKCS#8 private key but `PUBLIC KEY`"),
            (PRIVATE.replace(b"END", b"AND"), "broken PEM"),
            (b"", "unexpected element"),
        ],
    )
    def test_other_files(self, text, match):
        with pytest.raises(SentryError, match=match):
            pkcs8.private_seed(text)

    @pytest.mark.parametrize("text", [PRIVATE, b"", PUBLIC[:-30]])
    def test_other_public_keys(self, text):
        with pytest.raises(SentryError, match="not an Ed25519 public key"):
            pkcs8.public_bytes(text)


class TestPublicKeyFiles:
    def test_every_form_gives_the_key(self, tmp_path):
        key = PRIVATE_KEY.public
        forms = {"line": key.export(), "pem": PUBLIC, "hex": key.data.hex().encode() + b"\n"}
        for name, text in forms.items():
            (tmp_path / name).write_bytes(text)
            assert load_public_key(str(tmp_path / name)) == key
        assert load_public_key(key.data.hex()) == key

    def test_other_text(self, tmp_path):
        (tmp_path / "x").write_bytes(b"\xff" * 64)
        with pytest.raises(SentryError, match="is not a key file"):
            load_public_key(str(tmp_path / "x"))


def private_file(path, text=PRIVATE, mode=0o600):
    path.write_bytes(text)
    path.chmod(mode)
    return str(path)


class TestSources:
    """A file goes before a descriptor, a descriptor before a credential, and all before the key made on first use."""

    @pytest.fixture
    def directory(self, tmp_path):
        return str(tmp_path / "keys")

    def test_a_file(self, directory, tmp_path):
        for name, text, expected in (("pem", PRIVATE, PRIVATE_KEY), ("ours", KEY.export(), KEY)):
            path = private_file(tmp_path / name, text)
            assert keyring.signing_key(directory, {}, path).public == expected.public
        assert not os.path.exists(directory)

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o602])
    def test_a_file_that_others_can_reach(self, directory, tmp_path, mode):
        with pytest.raises(SentryError, match="is open to others"):
            keyring.signing_key(directory, {}, private_file(tmp_path / "key", mode=mode))

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
    def test_a_file_of_somebody_else(self, directory, tmp_path):
        path = private_file(tmp_path / "key")
        os.chown(path, 12345, -1)
        with pytest.raises(SentryError, match="belongs to user 12345"):
            keyring.signing_key(directory, {}, path)

    def test_a_file_that_is_none(self, directory, tmp_path):
        os.mkfifo(tmp_path / "fifo", 0o600)
        for name, match in (("fifo", "not a regular file"), ("absent", "cannot be opened: No such file")):
            with pytest.raises(SentryError, match=match):
                keyring.signing_key(directory, {}, str(tmp_path / name))

    def test_a_descriptor(self, directory, tmp_path):
        read, write = os.pipe()
        os.write(write, PRIVATE)
        os.close(write)
        environment = {keyring.KEY_FD: str(read), "CREDENTIALS_DIRECTORY": str(tmp_path)}
        private_file(tmp_path / keyring.CREDENTIAL, KEY.export())
        assert keyring.key_file(environment) == ""
        assert keyring.signing_key(directory, environment).public == PRIVATE_KEY.public
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(read)

    def test_a_descriptor_without_a_key(self, directory):
        read, write = os.pipe()
        os.close(write)
        with pytest.raises(SentryError, match=f"no signing key in descriptor {read}"):
            keyring.signing_key(directory, {keyring.KEY_FD: str(read)})

    @pytest.mark.parametrize("text", ["x", "-1", "999999"])
    def test_a_descriptor_that_is_none(self, directory, text):
        with pytest.raises(UsageError, match="is not an open descriptor"):
            keyring.signing_key(directory, {keyring.KEY_FD: text})

    def test_a_credential(self, directory, tmp_path):
        environment = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
        made = keyring.signing_key(directory, environment)
        path = private_file(tmp_path / keyring.CREDENTIAL, KEY.export(), 0o400)
        assert made.public != KEY.public == keyring.signing_key(directory, environment).public
        assert keyring.key_file(environment) == path

    @pytest.mark.skipif(os.geteuid() != 0, reason="systemd gives credentials to root")
    def test_a_credential_that_the_world_can_read(self, directory, tmp_path):
        private_file(tmp_path / keyring.CREDENTIAL, KEY.export(), 0o440)
        environment = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
        assert keyring.signing_key(directory, environment).public == KEY.public
        os.chmod(tmp_path / keyring.CREDENTIAL, 0o444)
        with pytest.raises(SentryError, match="is open to others"):
            keyring.signing_key(directory, environment)


class TestCommands:
    @pytest.fixture
    def call(self, tmp_path, monkeypatch):
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
        return lambda *arguments: CliRunner().invoke(keys, arguments)

    def test_a_life(self, call, tmp_path):
        assert isinstance(call("export").exception, UsageError)
        first = call("generate").output.strip()
        assert isinstance(call("generate").exception, UsageError)
        exported = call("export").output
        assert PublicKey.parse(exported.encode()).id == first
        assert call("rotate").output.startswith(f"{first} retired; ")
        second = call("list").output.split()[0]
        assert call("list").output == f"{second}  signing\n{first}  retired\n"
        assert call("export", first).output == exported
        assert not any(KEY.export()[:12] in path.read_bytes() for path in tmp_path.rglob(f"{first}*"))

    def test_trust(self, call, tmp_path):
        (tmp_path / "other.pub").write_bytes(OTHER_KEY.public.export())
        assert call("trust", str(tmp_path / "other.pub")).output == f"{OTHER_KEY.public.id} is trusted\n"
        assert f"{OTHER_KEY.public.id}  trusted\n" in call("list").output
        assert call("trust", "--remove", OTHER_KEY.public.id).exit_code == 0
        assert OTHER_KEY.public.id not in call("list").output
        assert isinstance(call("trust", "--remove", "../signing").exception, UsageError)

    def test_others_must_not_write_what_is_trusted(self, call, tmp_path):
        call("generate")
        os.chmod(tmp_path / "helm-sentry" / "keys", 0o777)
        assert "is open to others" in str(call("list").exception)

    def test_openssl_reads_what_is_exported(self, call, tmp_path):
        call("generate")
        (tmp_path / "k.pem").write_text(call("export", "--format", "pem").output)
        command = ["openssl", "pkey", "-pubin", "-in", str(tmp_path / "k.pem"), "-noout", "-text"]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        digits = "".join(shown.split("pub:")[1].split()).replace(":", "")
        assert digits == call("export", "--format", "hex").output.strip()
