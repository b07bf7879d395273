"""The two forms of HELM AI Kernel's EvidencePack, as tables from path to bytes. Pure.

`spec` is the published form: `manifest.json` over all files. `numbered` is the one its command line seals:
`00_INDEX.json` over all files, and a signed seal over the index.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence

from helm_sentry.audit.canonical import Fields, Json, dumps, loads
from helm_sentry.errors import VerificationError
from helm_sentry.evidence.serial import data_digest, digest
from helm_sentry.receipt.keys import PublicKey, SigningKey

MANIFEST, MANIFEST_SIGNATURE = "manifest.json", "signatures/manifest.json"
INDEX, SEAL = "00_INDEX.json", "07_ATTESTATIONS/evidence_pack.sig"
_SEAL_VERSION = "evidence-pack-seal/v1"
_KEY_SIZE = 32
_TYPES = {".json": "application/json", ".jsonl": "application/x-ndjson", ".md": "text/markdown", ".py": "text/x-python"}

Files = Mapping[str, bytes]


def spec_pack(files: Files, pack_id: str, created_at: str, policy_hash: str, key: SigningKey) -> dict[str, bytes]:
    """Return the files of a pack in the published form, manifest and signature included."""
    entries = [_entry(path, files[path]) for path in sorted(files)]
    fields: Fields = {
        "version": "1.0.0",
        "pack_id": pack_id,
        "created_at": created_at,
        "actor_did": f"did:helm:{key.public.id}",
        "intent_id": pack_id,
        "policy_hash": policy_hash,
        "entries": list(entries),
    }
    fields["manifest_hash"] = manifest_hash(fields)
    fields["entries_merkle_root"] = "sha256:" + entries_root(entries)
    signature = _signature(key.public, key.sign(str(fields["manifest_hash"]).encode()))
    return {**files, MANIFEST: dumps(fields), MANIFEST_SIGNATURE: signature}


def _signature(key: PublicKey, signature: bytes) -> bytes:
    return dumps(
        {
            "key_id": key.id,
            "algorithm": "ed25519",
            "public_key": key.data.hex(),
            "signature": signature.hex(),
        }
    )


def manifest_hash(fields: Fields) -> str:
    """Return the hash of a manifest: of everything but the hash and the root, entries in order of their paths."""
    body = {name: value for name, value in fields.items() if name not in ("manifest_hash", "entries_merkle_root")}
    body["entries"] = sorted(_list(fields["entries"]), key=_path)
    return digest(body)


def entries_root(entries: Sequence[Json]) -> str:
    """Return the root of the tree over a manifest's entries, in bare hex."""
    return tree_root(dumps(entry) for entry in sorted(entries, key=_path))


def tree_root(leaves: Iterable[bytes]) -> str:
    """Return the root of HELM's tree: leaves behind a 0, nodes behind a 1, an odd node paired with itself."""
    level = [hashlib.sha256(b"\0" + leaf).digest() for leaf in leaves]
    while len(level) > 1:
        level += level[-1:] if len(level) % 2 else []
        level = [
            hashlib.sha256(b"\1" + left + right).digest() for left, right in zip(level[::2], level[1::2], strict=True)
        ]
    return level[0].hex() if level else hashlib.sha256(b"").hexdigest()


def numbered_pack(files: Files, pack_id: str, created_at: str, extensions: Sequence[str], key: SigningKey) -> Files:
    """Return the files of a pack in the numbered form, index and seal included."""
    index = dumps(
        {
            "version": "1.0.0",
            "entries": [{"path": path, "sha256": hashlib.sha256(files[path]).hexdigest()} for path in sorted(files)],
            "gates": [],
            "extensions": list(extensions),
        }
    )
    fields: Fields = {
        "version": _SEAL_VERSION,
        "pack_id": pack_id,
        "index_hash": hashlib.sha256(index).hexdigest(),
        "merkle_root": _files_root(files),
        "entry_count": len(files),
        "profile": "dev-local",
        "signer": {"type": "local", "key_id": key.public.id, "algorithm": "ed25519"},
        "anchor": {"type": "none", "status": "none"},
        "anchor_receipts": [],
        "storage": {"type": "local"},
        "signed_at": created_at,
    }
    signature = key.sign(dumps(fields)).hex()
    signer: Fields = {"type": "local", "key_id": key.public.id, "algorithm": "ed25519"}
    sealed = fields | {"signer": signer | {"public_key": key.public.data.hex()}, "signature": signature}
    return {**files, INDEX: index, SEAL: dumps(sealed)}


def signer(files: Files) -> PublicKey:
    """Return the key that a pack names as its signer, which is no reason to trust it.

    Raises:
        VerificationError: it names none.
    """
    numbered = INDEX in files
    try:
        seal = _fields(loads(files[SEAL if numbered else MANIFEST_SIGNATURE]))
        named = _fields(seal["signer"]) if numbered else seal
        data = bytes.fromhex(str(named["public_key"]))
        if len(data) != _KEY_SIZE:
            raise ValueError(f"{len(data)} bytes")
        return PublicKey.of(data)
    except KeyError as error:
        raise VerificationError(f"not an evidence pack, or not a signed one: it has no {error}") from error
    except ValueError as error:
        raise VerificationError(f"{SEAL if numbered else MANIFEST_SIGNATURE}: no public key: {error}") from error


def check_pack(files: Files, key: PublicKey) -> dict[str, bytes]:
    """Return what a pack holds besides its manifest or index.

    Raises:
        VerificationError: a file was changed, added or removed, or `key` did not sign the pack.
    """
    try:
        if INDEX in files:
            return _check_numbered(files, key)
        if MANIFEST in files:
            return _check_spec(files, key)
    except (KeyError, ValueError, TypeError) as error:
        raise VerificationError(f"the pack's manifest cannot be read: {error}") from error
    raise VerificationError(f"not an evidence pack: it has neither `{MANIFEST}` nor `{INDEX}`")


def _check_numbered(files: Files, key: PublicKey) -> dict[str, bytes]:
    inner = {path: data for path, data in files.items() if path not in (INDEX, SEAL)}
    listed = {_path(entry): _fields(entry)["sha256"] for entry in _list(_fields(loads(files[INDEX]))["entries"])}
    _compare(inner, listed, lambda data: hashlib.sha256(data).hexdigest())
    seal = _fields(_plain(files, SEAL))
    _plain(files, INDEX)
    body = {name: value for name, value in seal.items() if name != "signature"}
    named = _fields(seal["signer"])
    body["signer"] = {name: value for name, value in named.items() if name != "public_key"}
    signature = bytes.fromhex(str(seal["signature"]))
    spelled = signature.hex(), key.data.hex()  # what is not signed has one spelling
    if not key.verify_signature(dumps(body), signature) or spelled != (seal["signature"], named["public_key"]):
        raise VerificationError(f"{SEAL}: not signed by key `{key.id}` like this")
    stated = seal["index_hash"], seal["merkle_root"], seal["entry_count"]
    if stated != (hashlib.sha256(files[INDEX]).hexdigest(), _files_root(inner), len(inner)):
        raise VerificationError(f"{SEAL}: it seals another index")
    return inner


def _check_spec(files: Files, key: PublicKey) -> dict[str, bytes]:
    inner = {path: data for path, data in files.items() if path not in (MANIFEST, MANIFEST_SIGNATURE)}
    manifest = _fields(_plain(files, MANIFEST))
    entries = _list(manifest["entries"])
    _compare(inner, {_path(entry): _fields(entry)["content_hash"] for entry in entries}, data_digest)
    stated = manifest["manifest_hash"], manifest["entries_merkle_root"]
    if stated != (manifest_hash(manifest), "sha256:" + entries_root(entries)):
        raise VerificationError(f"{MANIFEST}: its hashes are not those of its contents")
    signature = bytes.fromhex(str(_fields(loads(files[MANIFEST_SIGNATURE]))["signature"]))
    good = key.verify_signature(str(stated[0]).encode(), signature)
    if not good or files[MANIFEST_SIGNATURE] != _signature(key, signature):
        raise VerificationError(f"{MANIFEST_SIGNATURE}: not signed by key `{key.id}` like this")
    return inner


def _plain(files: Files, path: str) -> Json:
    """Return what a file holds that must be spelled in the one canonical way, since its spelling is not signed."""
    try:
        return loads(files[path], canonical=True)
    except ValueError as error:
        raise VerificationError(f"{path}: it was changed: {error}") from error


def _compare(found: Files, listed: Mapping[str, Json], hashed: Callable[[bytes], str]) -> None:
    for path in sorted({*found, *listed}):
        if path not in found:
            raise VerificationError(f"{path}: the pack's manifest names it, but it is not there")
        if path not in listed:
            raise VerificationError(f"{path}: the pack's manifest does not name it")
        if hashed(found[path]) != listed[path]:
            raise VerificationError(f"{path}: it was changed")


def _files_root(files: Files) -> str:
    return tree_root(hashlib.sha256(files[path]).digest() for path in sorted(files))


def _entry(path: str, data: bytes) -> Json:
    kind = next((kind for suffix, kind in _TYPES.items() if path.endswith(suffix)), "application/octet-stream")
    return {"path": path, "content_hash": data_digest(data), "size": len(data), "content_type": kind}


def _path(entry: Json) -> str:
    return str(_fields(entry)["path"])


def _fields(value: Json) -> Fields:
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def _list(value: Json) -> list[Json]:
    if not isinstance(value, list):
        raise ValueError("not a list")
    return value
