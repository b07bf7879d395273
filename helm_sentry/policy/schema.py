"""The policy file as JSON Schema: for editors, which complete from it, and for the tables of docs/policy-reference.md.

The loader stays the judge: it gives places and advice, and knows what a schema cannot say. Scalars may be numbers or
booleans here, because editors read YAML's implicit types; the loader takes every scalar as text.
"""

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from helm_sentry.policy.model import FILE_KINDS, KERNEL_KINDS, PROTOCOLS, SCHEMA, UNIX_KINDS
from helm_sentry.policy.values import FAMILIES, MOST_USES

Schema: TypeAlias = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_TEXT: Schema = {"type": ["string", "number", "boolean"]}
_IDENTIFIER: Schema = {"type": ["string", "integer"], "pattern": "^[a-z0-9][a-z0-9-]*$"}
_PATH: Schema = {"type": "string", "pattern": r"^(/|\$\{)"}
_PORT: Schema = {
    "anyOf": [
        {"type": "integer", "minimum": 0, "maximum": 65535},
        {"type": "string", "pattern": r"^([0-9]{1,5}(-[0-9]{1,5})?|any|\$\{.*)$"},
    ]
}
_COUNT: Schema = {"type": ["integer", "string"], "minimum": 1, "pattern": "^[0-9]+$"}
_DURATION: Schema = {"type": "string", "pattern": "^[0-9]+[smhd]$"}
_SIZE: Schema = {"type": "string", "pattern": "^[0-9]+(B|KiB|MiB|GiB|TiB)$"}
_FLAG: Schema = {"enum": [True, False, "true", "false"]}

FILE_VERBS: Mapping[str, str] = {
    "read": "opening anything but a directory for reading",
    "list": "opening a directory",
    "write": "opening for writing; holds for `truncate` too",
    "create": "a new file, directory, FIFO, link; the new name of a rename or link; O_TMPFILE, judged on its directory",
    "delete": "unlink, rmdir; what a rename overwrites",
    "rename": "the old name of a rename; both names of an exchange",
    "link": "the file that gets a second name",
    "truncate": "truncate(2), O_TRUNC on a file that exists",
    "chmod": "mode; by path or by descriptor",
    "chown": "owner; by path or by descriptor",
    "xattr": "setting and removing extended attributes",
    "utime": "times; by path or by descriptor",
    "mknod": "a device node",
    "stat": "looking: stat, access, readlink, statfs, reading extended attributes, O_PATH, chdir; an inotify watch "
    "also needs `list` on a directory, `read` on anything else",
    "all": "in an allow rule and a contextual rule all of these but `mknod`; in a block rule all of them",
}
"""What each verb of a file rule covers."""


def json_schema() -> Schema:
    """Return the JSON Schema (draft 2020-12) of a policy file."""
    return {
        "$schema": DIALECT,
        "$id": "urn:helm-sentry:policy:v1",
        "title": "Helm Sentry policy",
        **_table(
            {
                "schema": _said({"const": SCHEMA}, "the version of the language"),
                "name": _said(_IDENTIFIER, "the policy's name; no two files of one policy share it"),
                "extends": _said(
                    _one_or_many({"type": "string"}),
                    "packs by bare name (`python`), files beside this one by a path that begins with `./` or `../`",
                ),
                "agent": _said(_map(_TEXT), "words about the agent, for conditions: `name`, `role`, and any label"),
                "variables": _said(_map(_TEXT), "name to text, for this file alone; each may use those before it"),
                "allow": _said(_list("rule"), "rules that permit"),
                "block": _said(_list("rule"), "rules that deny whatever another rule permits"),
                "contextual": _said(
                    _list("contextual"), "rules that permit while their condition is true, and deny while it is not"
                ),
                "limits": _said({"$ref": "#/$defs/limits"}, "resources of the run, see below"),
                "environment": _said({"$ref": "#/$defs/environment"}, "variables the agent gets, see below"),
                "on_witness_gap": _said(
                    {"enum": ["record", "deny"]},
                    "what to do when the kernel's count of the agent's calls and the log's differ; `deny` ends the "
                    "run, and does not start one where the kernel cannot count; by default `record`; what an extended "
                    "policy insists on stays",
                ),
            },
            required=("schema", "name"),
        ),
        "$defs": _definitions(),
    }


def _definitions() -> Schema:
    matchers: dict[str, Schema] = {
        "file": _said({"$ref": "#/$defs/file"}, "files by path and verb"),
        "exec": _said({"$ref": "#/$defs/exec"}, "programs that may be run"),
        "connect": _said({"$ref": "#/$defs/connect"}, "connections and datagrams by destination"),
        "bind": _said({"$ref": "#/$defs/bind"}, "local addresses and ports"),
        "unix": _said({"$ref": "#/$defs/unix"}, "Unix sockets with a file name"),
        "socket": _said({"$ref": "#/$defs/socket"}, "socket families that take a rule"),
        "kernel": _said(_one_or_many({"enum": sorted(KERNEL_KINDS)}), "kernel operations, by name"),
    }
    rule = {
        "id": _said(_IDENTIFIER, "its name in decisions; unique in its file"),
        "note": _said(_TEXT, "a word to the reader"),
        "programs": _said(
            _one_or_many(_PATH), "the rule holds for these programs and all they start; without it for everything"
        ),
        **matchers,
        "limit": _said({"$ref": "#/$defs/limit"}, "how often the rule may be used"),
    }
    conditional = {
        "when": _said({"type": ["string", "boolean"], "maxLength": 4096}, "the condition, in CEL"),
        "otherwise": _said({"enum": ["deny", "escalate"]}, "what a false condition comes to; by default `deny`"),
    }
    one_matcher = {"oneOf": [{"required": [name]} for name in matchers]}
    return {
        "rule": _table(rule, required=("id",)) | one_matcher,
        "contextual": _table(rule | conditional, required=("id", "when")) | one_matcher,
        "limit": _table(
            {
                "count": _said(
                    _COUNT | {"maximum": MOST_USES}, "operations that the rule matches and that are allowed"
                ),
                "per": _said(
                    _DURATION, "in which they are counted, at any moment back from now; without it the whole run"
                ),
            },
            required=("count",),
        ),
        **_matchers(),
        **_settings(),
    }


def _matchers() -> Schema:
    paths = _said(_one_or_many(_PATH), "patterns of canonical paths, see Paths")
    addresses = _said(_one_or_many(_TEXT), "addresses, networks, `loopback`, `any`")
    ports = _said(_one_or_many(_PORT), "numbers, ranges such as `8000-9000`, or `any` (default)")
    protocols = _said(_one_or_many({"enum": list(PROTOCOLS)}), "`tcp`, `udp`; default both")
    environment = "names (`*` stands for any characters) to patterns of values, each of which must be there"
    return {
        "file": _table(
            {"do": _said(_one_or_many({"enum": [*FILE_KINDS, "all"]}), "verbs, see below"), "paths": paths},
            required=("do", "paths"),
        ),
        "exec": _table(
            {
                "paths": paths,
                "argv": _said(
                    _one_or_many(_TEXT),
                    "a pattern for each argument, the program's name as it is called first; a last `...` stands for "
                    "any number of further ones",
                ),
                "environment": _said(_map(_TEXT | {"type": ["string", "number", "boolean", "null"]}), environment),
            },
            required=("paths",),
        ),
        "connect": _table(
            {
                "hosts": _said(
                    _one_or_many({"type": "string"}), "exact names, or `*.example.com` for all names beneath it"
                ),
                "addresses": addresses,
                "own": _said(_FLAG, "loopback ports on which sockets of this very run wait, and nobody else's"),
                "ports": ports,
                "protocols": protocols,
            }
        )
        | {"anyOf": [{"required": ["hosts"]}, {"required": ["addresses"]}, {"required": ["own"]}]},
        "bind": _table({"addresses": addresses, "ports": ports, "protocols": protocols}, required=("addresses",)),
        "unix": _table(
            {"do": _said(_one_or_many({"enum": list(UNIX_KINDS)}), "`connect`, `bind`"), "paths": paths},
            required=("do", "paths"),
        ),
        "socket": _table(
            {"families": _said(_one_or_many({"enum": list(FAMILIES)}), "names of <linux/socket.h> without `AF_`")},
            required=("families",),
        ),
    }


def _settings() -> Schema:
    return {
        "limits": _table(
            {
                "wall_time": _said(
                    _DURATION, "the supervisor kills the main program; the rest of the tree ends with it"
                ),
                "cpu_time": _said(_DURATION, "RLIMIT_CPU, each process"),
                "memory": _said(
                    _SIZE,
                    "RLIMIT_AS, each process; and memory.max of the run (below)",
                ),
                "file_size": _said(_SIZE, "RLIMIT_FSIZE, each file"),
                "processes": _said(
                    _COUNT,
                    "RLIMIT_NPROC, all of the user's, not counted for uid 0; or pids.max of the run (below)",
                ),
                "open_files": _said(_COUNT, "RLIMIT_NOFILE, each process"),
            }
        ),
        "environment": _table(
            {
                "pass": _said(
                    {"type": "array", "items": {"type": "string"}},
                    "names (`*` stands for any characters) that keep the caller's values",
                ),
                "set": _said(
                    _map(_TEXT | {"type": ["string", "number", "boolean", "null"]}),
                    "names with their values, which win",
                ),
            }
        ),
    }


def _said(schema: Schema, description: str) -> Schema:
    return {**schema, "description": description}


def _table(properties: Mapping[str, Schema], required: Iterable[str] = ()) -> Schema:
    names = list(required)
    return {
        "type": "object",
        "properties": dict(properties),
        "additionalProperties": False,
    } | ({"required": names} if names else {})


def _one_or_many(item: Schema) -> Schema:
    return {"anyOf": [item, {"type": "array", "items": item, "minItems": 1}]}


def _map(value: Schema) -> Schema:
    return {"type": "object", "additionalProperties": value}


def _list(name: str) -> Schema:
    return {"type": "array", "items": {"$ref": f"#/$defs/{name}"}}
