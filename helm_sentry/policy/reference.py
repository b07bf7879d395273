"""The tables of docs/policy-reference.md, made from the schema and from what conditions may speak of.

`python -m helm_sentry.policy.reference docs/policy-reference.md` brings the page up to date: each table stands between
`<!-- from the schema: NAME -->` and `<!-- end -->`.
"""

import re
import sys
from collections.abc import Container, Sequence
from pathlib import Path

from helm_sentry.policy.condition import VARIABLES
from helm_sentry.policy.schema import FILE_VERBS, Schema, json_schema

_TABLE = re.compile(r"(<!-- from the schema: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
_COUNTS = "run.counts."


def fill(page: str) -> str:
    """Return the page with every table made anew.

    Raises:
        KeyError: a table that the schema has not.
    """
    return _TABLE.sub(lambda found: f"{found[1]}{_table(found[2])}{found[3]}", page)


def _table(name: str) -> str:
    if name == "verbs":
        return _rows(("verb", "what it covers"), [(f"`{verb}`", meaning) for verb, meaning in FILE_VERBS.items()])
    if name == "names":
        known = [(f"`{word}`", kind, meaning) for word, (kind, meaning, _) in VARIABLES.items() if _COUNTS not in word]
        counts = (f"`{_COUNTS}KIND`", "int", "operations of a kind allowed so far, such as `run.counts.net.connect`")
        return _rows(("name", "type", "meaning"), [*known, counts])
    schema = json_schema()
    shown: Container[str] = schema["$defs"]["rule"]["properties"] if name == "contextual" else ()
    return _keys(schema if name == "file-keys" else schema["$defs"][name], shown)


def _keys(table: Schema, shown: Container[str]) -> str:
    required = table.get("required", ())
    rows = [
        (f"`{key}`", _value(value) + (", required" if key in required else ""), str(value["description"]))
        for key, value in table["properties"].items()
        if key not in shown
    ]
    return _rows(("key", "value", "meaning"), rows)


def _value(value: Schema) -> str:
    if "$ref" in value:
        return "table"
    if "const" in value:
        return f"`{value['const']}`"
    if value.get("enum") == [True, False, "true", "false"]:
        return "`true` or `false`"
    if "enum" in value:
        return " or ".join(f"`{word}`" for word in value["enum"]) if len(value["enum"]) < 4 else "word"
    if "anyOf" in value:
        return "list" if any(each.get("type") == "array" for each in value["anyOf"]) else "text"
    return {"object": "table", "array": "list"}.get(str(value["type"]), _scalar(value))


def _scalar(value: Schema) -> str:
    if "smhd" in value.get("pattern", ""):
        return "duration: s, m, h, d"
    if "KiB" in value.get("pattern", ""):
        return "size: B, KiB, MiB, GiB, TiB"
    return "number" if "minimum" in value else "text"


def _rows(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [heads, ("---",) * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" if line[0] != "---" else f"|{'---|' * len(line)}\n" for line in lines)


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(fill(path.read_text()))
