"""A throw-away directory with decoys: everything the attacks go for, and nothing of the user's.

workspace/   what the agent may use, with a few things in it that a block rule keeps from it
outside/     what no rule of ours names
home/        the agent's HOME
state/       where the supervisor keeps key and log
"""

import json
import os
import shutil
import stat
import struct
import sys
import sysconfig
import tempfile
from dataclasses import dataclass

from helm_sentry.abi import syscalls
from helm_sentry.abi.arch import Arch, native

DECOY = b"decoy: a secret that nobody needs\n"
FORBIDDEN, ALLOWED = 42, 7
"""Exit statuses of the two kinds of program that attacks run."""
ODD_NAMES = (
    b"new\nline",
    b'"},{"verdict":"ALLOW","seq":0}',
    b"\x1b]0;title\x07\x1b[2J\x1b[1A",
    b"\xff\xfe\x80",
    "\u202egnp.exe".encode(),
    b"\r\t\x0b\x0c\x7f",
    b"%s%n\\u0000",
    b"\xc2\x9b31m",
)
_SECRETS = ("outside/secret", "workspacefoo/secret", "workspace/hide0/secret", "workspace/hide0/token")
_PLAIN = ("outside/victim", "workspace/readable", "workspace/hide1/secret", "workspace/hide1/token")
_PLACES = ("workspace/hide0", "workspace/hide1", "workspace/bin", "workspacefoo", "outside/dir", "outside/empty")
_STATE = (
    *("state/helm-sentry/keys", "state/helm-sentry/runs/stand-in", "state/helm-sentry/control"),
    *("state/helm-sentry/daemon", "state/helm-sentry/approvals", "state/helm-sentry/output"),
    "state/helm-sentry/standby",
)
_KEPT = ("outside", "workspacefoo", "workspace/hide0", "workspace/readable", "workspace/bin/tool0", "policy.json")

Snapshot = dict[str, tuple[int, bytes]]


@dataclass(frozen=True, slots=True)
class Arena:
    """One arena on disk."""

    root: str

    def path(self, name: str) -> str:
        """Return the absolute path of something in the arena."""
        return os.path.join(self.root, name)

    def remove(self) -> None:
        """Remove it, however deep an attack has dug."""
        for place in (self.path("workspace"), self.path("outside")):
            os.chmod(place, 0o700)
        shutil.rmtree(self.root, ignore_errors=True)

    def snapshot(self) -> Snapshot:
        """Return mode and contents of everything that no attack may change."""
        found: Snapshot = {}
        for name in _KEPT:
            _look(self.path(name), found)
        return found


def build() -> Arena:
    """Make a new arena in the directory for temporary files."""
    arena = Arena(os.path.realpath(tempfile.mkdtemp(prefix="helm-sentry-attack-")))
    for place in (*_PLACES, *_STATE, "home"):
        os.makedirs(arena.path(place))
    for place in _STATE:
        os.chmod(arena.path(place), 0o700)
    for name in (*_SECRETS, "state/helm-sentry/keys/stand-in.key", "state/helm-sentry/output/stand-in"):
        _write(arena.path(name), DECOY, 0o600)
    for name in (*_PLAIN, "state/helm-sentry/runs/stand-in/audit.jsonl", "state/helm-sentry/runs/stand-in/policy.json"):
        _write(arena.path(name), b"harmless\n")
    for name, status in (("outside/tool", 42), ("workspace/bin/tool0", FORBIDDEN), ("workspace/bin/tool1", ALLOWED)):
        _write(arena.path(name), program(native(), status), 0o755)
    for odd in ODD_NAMES:
        _write(os.path.join(os.fsencode(arena.path("outside")), odd), DECOY)
    return arena


def write_policy(arena: Arena, policy: str, programs: str, ports: dict[str, int]) -> str:
    """Write the policy the attacks run under: the user's, and what the programs need to run at all.

    Args:
        arena: where to.
        policy: the user's policy, a file or the name of a shipped one.
        programs: directory of the attack programs.
        ports: the two ports that may be connected to.
    """
    bare = policy.replace("-", "").replace("_", "").isalnum()
    extended = policy if bare else os.path.join(".", os.path.relpath(os.path.realpath(policy), arena.root))
    work = arena.path("workspace")
    library = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib")]
    every = {"do": ["all"]}
    document = {
        "schema": "helm-sentry/policy/v1",
        "name": "attack-arena",
        "extends": ["base", extended],
        "allow": [
            {"id": "interpreter", "exec": {"paths": [_literal(interpreter())]}},
            {"id": "programs", "file": {"do": ["read", "list"], "paths": [_beneath(p) for p in (programs, *library)]}},
            {"id": "workspace", "file": every | {"paths": [_beneath(work)]}},
            {"id": "tools", "exec": {"paths": [_beneath(f"{work}/bin")]}},
            {"id": "sockets", "unix": {"do": ["connect", "bind"], "paths": [_beneath(work)]}},
            {
                "id": "servers",
                "connect": {"addresses": ["127.0.0.1"], "ports": [str(port) for port in ports.values()]},
            },
        ],
        "block": [
            {"id": "hidden", "file": every | {"paths": [_beneath(f"{work}/{n}") for n in ("hide0", "protected")]}},
            {"id": "hidden-sockets", "unix": {"do": ["connect", "bind"], "paths": [_beneath(f"{work}/hide0")]}},
            {"id": "hidden-program", "exec": {"paths": [_literal(f"{work}/bin/tool0")]}},
            {
                "id": "read-only",
                "file": {
                    "do": ["write", "truncate", "chmod", "chown", "xattr", "utime", "delete", "rename", "link"],
                    "paths": [_literal(f"{work}/readable")],
                },
            },
        ],
    }
    path = arena.path("policy.json")
    _write(path, json.dumps(document).encode())
    return path


def interpreter() -> str:
    """Return the Python that runs the programs: the one that runs this, without its virtual environment."""
    return os.path.realpath(sys.executable)


def program(arch: Arch, status: int) -> bytes:
    """Return a static ELF program that exits with a status; see elf(5)."""
    number = syscalls.number("exit_group", arch)
    if arch.name == "x86_64":
        code = b"\xbf" + struct.pack("<I", status) + b"\xb8" + struct.pack("<I", number) + b"\x0f\x05"
    else:
        code = struct.pack("<3I", 0xD2800000 | status << 5, 0xD2800008 | number << 5, 0xD4000001)
    base, start = 0x400000, 64 + 56
    machine = {"x86_64": 62, "aarch64": 183}[arch.name]
    head = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    head += struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, base + start, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    size = start + len(code)
    return head + struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 4096) + code


def _write(path: str | bytes, content: bytes, mode: int = 0o644) -> None:
    with open(path, "wb") as file:
        file.write(content)
    os.chmod(path, mode)


def _look(path: str, found: Snapshot) -> None:
    status = os.lstat(path)
    content = b""
    if stat.S_ISDIR(status.st_mode):
        for name in os.listdir(path):
            _look(os.path.join(path, name), found)
    elif stat.S_ISREG(status.st_mode):
        with open(path, "rb") as file:
            content = file.read(4096)
    found[path] = status.st_mode, content


def _literal(path: str) -> str:
    return "".join(f"\\{mark}" if mark in "*?[]\\" else mark for mark in path).replace("${", "$${")


def _beneath(path: str) -> str:
    return f"{_literal(path)}/**"
