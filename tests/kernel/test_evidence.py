"""A real run as an EvidencePack, checked, changed, and held against what HELM decided."""

import json
import os
import shutil
import socket
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from helm_sentry.audit.canonical import dumps
from helm_sentry.evidence import host_chain, receipt_v5
from helm_sentry.receipt.keys import PublicKey, SigningKey
from tests.kernel.conftest import PYTHON, Result, Sandbox
from tests.kernel.test_traffic import server

pytestmark = pytest.mark.kernel

HELM_KEY = SigningKey(bytes([0x22] * 32))
POLICY = "extends: [default]\nallow:\n  - {id: connect, connect: {addresses: [loopback], ports: [%d]}}\n"


def sentry(sandbox: Sandbox, *arguments: str) -> subprocess.CompletedProcess[str]:
    process = sandbox.popen([*sandbox.command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def public_key(sandbox: Sandbox) -> PublicKey:
    (path,) = (sandbox.root / "state/helm-sentry/keys").glob("*.pub")
    return PublicKey.parse(path.read_bytes())


def a_run(sandbox: Sandbox) -> tuple[Result, int]:
    """A run that writes, is refused a file and a port, and sends 4096 bytes to another."""
    with server() as (port, arrived), socket.create_server(("127.0.0.1", 0)) as closed:
        code = f"""
import socket
open('written', 'w').write('x')
for act in (lambda: open('/etc/shadow'), lambda: socket.create_connection(('127.0.0.1', {closed.getsockname()[1]}))):
    try: act()
    except PermissionError: print('refused')
c = socket.create_connection(('127.0.0.1', {port})); c.sendall(bytes(4096)); c.close()
"""
        result = sandbox.run([PYTHON, "-c", code], sandbox.policy(POLICY % port))
        assert result.stdout == "refused\nrefused\n", result.stderr
        assert len(arrived()) == 4096
    return result, port


def export(sandbox: Sandbox, result: Result, name: str, *options: str) -> Path:
    target = sandbox.workspace / name
    done = sentry(sandbox, "evidence", "export", str(result.directory), "-o", str(target), *options)
    assert done.returncode == 0, done.stderr
    return target


@pytest.mark.parametrize("layout", ["numbered", "spec"])
def test_a_pack_verifies_and_no_file_can_be_changed(sandbox: Sandbox, layout: str) -> None:
    result, _ = a_run(sandbox)
    pack = export(sandbox, result, "pack", "--layout", layout)
    key = public_key(sandbox).data.hex()
    checked = sentry(sandbox, "evidence", "verify", str(pack), "--public-key", key, "--json")
    assert checked.returncode == 0, checked.stderr
    assert json.loads(checked.stdout)["trusted"] is True
    other = sentry(sandbox, "evidence", "verify", str(pack), "--public-key", "00" * 32)
    assert other.returncode == 121
    files = sorted(path for path in pack.rglob("*") if path.is_file())
    assert len(files) > 15
    # One of each folder, and what holds all of them together.
    chosen = {path.parent: path for path in files} | {path: path for path in files if path.suffix == ".sig"}
    for path in [*chosen.values(), *pack.glob("*.json")]:
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]) if whole else b"x")
        done = sentry(sandbox, "evidence", "verify", str(pack))
        assert done.returncode == 121, (path, done.stdout)
        path.write_bytes(whole)
    (pack / "extra").write_text("x")
    assert "extra" in sentry(sandbox, "evidence", "verify", str(pack)).stderr
    (pack / "extra").unlink()
    files[-1].unlink()
    assert sentry(sandbox, "evidence", "verify", str(pack)).returncode == 121


def test_a_run_signed_by_another_key_than_the_pack(sandbox: Sandbox) -> None:
    """As after `keys rotate`: both keys count, and both must be named where one is."""
    result, _ = a_run(sandbox)
    old = public_key(sandbox)
    assert sentry(sandbox, "keys", "rotate").returncode == 0
    new = PublicKey.parse(sentry(sandbox, "keys", "export").stdout.encode())
    assert new != old
    for layout in ("numbered", "spec"):
        pack = export(sandbox, result, layout, "--layout", layout)

        def verify(*keys: PublicKey, pack: str = str(pack)) -> subprocess.CompletedProcess[str]:
            named = [word for key in keys for word in ("--public-key", key.data.hex())]
            return sentry(sandbox, "evidence", "verify", pack, "--json", *named)

        for keys in ((), (old, new)):
            found = json.loads(verify(*keys).stdout)
            assert (found["key"], found["trusted"]) == (new.id, True)
            assert (found["run"]["key"], found["run"]["trusted"]) == (old.id, True)
        assert f"the pack was signed by key `{new.id}`" in verify(old).stderr
        assert f"the run was signed by key `{old.id}`" in verify(new).stderr
    chain = str(next(pack.rglob("chain.json")))
    sentry(sandbox, "keys", "rotate")
    helm = sandbox.workspace / "helm.json"
    helm.write_bytes(dumps(list(receipt_v5.build([], "s", "sha256:0", HELM_KEY))))
    correlated = (
        "evidence",
        "correlate",
        "--host",
        chain,
        "--helm",
        str(helm),
        "--helm-key",
        HELM_KEY.public.data.hex(),
    )
    assert "UNCORRELATED_HOST_EGRESS" in sentry(sandbox, *correlated).stdout


def test_archives_are_the_same_bytes_each_time(sandbox: Sandbox) -> None:
    result, _ = a_run(sandbox)
    first, second = (export(sandbox, result, name) for name in ("a.tar", "b.tar"))
    assert first.read_bytes() == second.read_bytes()
    assert sentry(sandbox, "evidence", "verify", str(first)).returncode == 0
    with tarfile.open(first) as packed:
        members = packed.getmembers()
        assert [member.name for member in members] == sorted(member.name for member in members)
        assert {(member.mtime, member.uid, member.gid, member.mode) for member in members} == {(0, 0, 0, 0o644)}
    again = sentry(sandbox, "evidence", "export", str(result.directory), "-o", str(first))
    assert again.returncode == 2
    assert "there already" in again.stderr


def test_the_host_chain_has_what_left_and_nothing_else(sandbox: Sandbox) -> None:
    result, port = a_run(sandbox)
    pack = export(sandbox, result, "pack")
    chain = host_chain.verify((pack / "11_HOST_EVIDENCE/helm-sentry/chain.json").read_bytes(), public_key(sandbox))
    (receipt,) = chain.receipts
    event: Any = receipt["event"]
    assert (event["destination_port"], event["bytes_sent"], event["verdict"]) == (port, 4096, "ALLOWED")
    assert receipt["metadata"]["receipts"] == "1"  # type: ignore[index, call-overload]
    assert not chain.open_ended
    actions = host_chain.verify((pack / "99_EXT/helm-sentry/actions.json").read_bytes(), public_key(sandbox))
    acts: list[Any] = [receipt["action_event"] for receipt in actions.receipts]
    refused = {
        (act["target_ref"].partition(":")[0], act["side_effect_class"]) for act in acts if act["decision"] == "DENY"
    }
    assert refused >= {("file", "read"), ("net", "network")}
    written = f"file://{sandbox.workspace}/written"
    assert [act["decision"] for act in acts if act["target_ref"] == written] == ["ALLOW"]


def test_no_host_chain_when_nothing_left(sandbox: Sandbox) -> None:
    pack = export(sandbox, sandbox.run(["true"]), "pack")
    assert not (pack / "11_HOST_EVIDENCE").exists()
    assert sentry(sandbox, "evidence", "verify", str(pack)).returncode == 0


def test_a_tampered_run_is_not_exported(sandbox: Sandbox) -> None:
    result, _ = a_run(sandbox)
    assert result.directory
    copy = sandbox.root / "copy"
    shutil.copytree(result.directory, copy)
    for path in (copy, *copy.rglob("*")):
        os.chown(path, sandbox.uid, sandbox.uid)
    whole = Result(0, "", "", copy)
    export(sandbox, whole, "good")
    log = copy / "audit.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"verdict":"DENY"', b'"verdict":"ALLOW"', 1))
    done = sentry(sandbox, "evidence", "export", str(copy), "-o", str(sandbox.workspace / "pack"))
    assert done.returncode == 121
    assert "audit.jsonl" in done.stderr
    assert not (sandbox.workspace / "pack").exists()


def test_correlation_of_a_real_run(sandbox: Sandbox) -> None:
    result, port = a_run(sandbox)
    pack = export(sandbox, result, "pack")
    (left,) = [record for record in result.records if record["type"] == "traffic"]
    at = json.loads((pack / "11_HOST_EVIDENCE/helm-sentry/chain.json").read_text())["receipts"][0]["event"]["timestamp"]

    def decide(**members: str) -> Path:
        metadata = {"destination_ip": "127.0.0.1", "destination_port": str(port), "protocol": "tcp"} | members
        receipt = {"receipt_id": "i", "decision_id": "d", "effect_id": "network-egress", "verdict": "ALLOW"}
        receipts = receipt_v5.build([{**receipt, "timestamp": at, "metadata": metadata}], "s", "sha256:0", HELM_KEY)
        path = sandbox.workspace / "helm.json"
        path.write_bytes(dumps(receipts))  # type: ignore[arg-type]
        return path

    assert left["sent"] == 4096
    host = str(pack / "11_HOST_EVIDENCE/helm-sentry/chain.json")
    common = ("evidence", "correlate", "--host", host, "--helm-key", HELM_KEY.public.data.hex())
    good = sentry(sandbox, *common, "--helm", str(decide(max_egress_bytes="4200")))
    assert (good.returncode, good.stdout.split()[0]) == (0, "CORRELATED"), good.stderr
    bad = sentry(sandbox, *common, "--helm", str(decide(max_egress_bytes="4000")), "--json", "-o", "drift.jsonl")
    assert bad.returncode == 1
    assert json.loads(bad.stdout)["findings"][0]["reason_code"] == "ERR_HOST_VOLUME_EXCEEDED"
    assert len((sandbox.workspace / "drift.jsonl").read_text().splitlines()) == 1
    wrong = sentry(sandbox, *common, "--helm", str(decide()), "--host-key", "00" * 32)
    assert wrong.returncode == 121
    unsigned = sentry(sandbox, "evidence", "correlate", "--host", host, "--helm", str(decide()))
    assert unsigned.returncode == 2
    assert "--helm-key" in unsigned.stderr


@pytest.mark.parametrize(("layout", "folder"), [("numbered", "06_LOGS/run"), ("spec", "transcripts/run")])
def test_a_pack_brings_its_verifier(sandbox: Sandbox, layout: str, folder: str) -> None:
    result, _ = a_run(sandbox)
    pack = export(sandbox, result, "pack", "--layout", layout)
    (verifier,) = pack.rglob("verify_alone.py")
    command = [PYTHON, "-I", str(verifier), str(pack / folder), "--public-key", public_key(sandbox).data.hex()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    log = pack / folder / "audit.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"verdict":"DENY"', b'"verdict":"ALLW"', 1))
    assert subprocess.run(command, capture_output=True, check=False).returncode == 121
