"""The attacks there are: one small program each, which says about itself what it attacks and what holds against it.

The programs are in `tests/attacks/programs` of the checkout and in `attack/programs` of an installed package. A file
there that has a `PROMISE` is an attack; the others are what attacks share.
"""

import ast
import os
from dataclasses import dataclass

GROUPS = ("file", "race", "exec", "net", "kernel", "process", "supervisor", "flood", "log")
"""Families of attacks: the first word of a program's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One attack program.

    Attributes:
        name: the program's name; its first word is the group.
        path: where the program is.
        attacks: what it tries.
        promise: what holds against it.
        control: how it is seen that it succeeds without a supervisor.
        advice: what to do if it gets through.
        witness: who else knows whether it got through, empty when the program itself can tell.
    """

    name: str
    path: str
    attacks: str
    promise: str
    control: str
    advice: str
    witness: str = ""

    @property
    def group(self) -> str:
        """The family it belongs to."""
        return self.name.partition("_")[0]


def programs_directory() -> str:
    """Return where the programs are: inside an installed package, or in the checkout."""
    here = os.path.dirname(os.path.abspath(__file__))
    installed = os.path.join(here, "programs")
    checkout = os.path.join(os.path.dirname(os.path.dirname(here)), "tests", "attacks", "programs")
    return installed if os.path.isdir(installed) else checkout


def attacks() -> tuple[Attack, ...]:
    """Return every attack, group by group."""
    directory = programs_directory()
    paths = [os.path.join(directory, name) for name in sorted(os.listdir(directory)) if name.endswith(".py")]
    found = [attack for path in paths if (attack := _read(path)) is not None]
    return tuple(sorted(found, key=lambda attack: GROUPS.index(attack.group)))


def _read(path: str) -> Attack | None:
    """Return what a program says about itself; it is parsed, not run."""
    with open(path, encoding="utf-8") as file:
        tree = ast.parse(file.read(), path)
    stated = {
        target.id.lower(): node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    if "promise" not in stated:
        return None
    # Plain names of numbers, as in WITNESS = f"signal {NUMBER}", are filled in.
    numbers: dict[str, object] = {name: node.value for name, node in stated.items() if isinstance(node, ast.Constant)}
    texts = {
        name: _text(stated[name], numbers) for name in ("promise", "control", "advice", "witness") if name in stated
    }
    return Attack(
        name=os.path.basename(path).removesuffix(".py"), path=path, attacks=ast.get_docstring(tree) or "", **texts
    )


def _text(node: ast.expr, numbers: dict[str, object]) -> str:
    if not isinstance(node, ast.JoinedStr):
        return str(ast.literal_eval(node))
    parts = [part.value if isinstance(part, ast.FormattedValue) else part for part in node.values]
    return "".join(
        str(numbers[part.id.lower()]) if isinstance(part, ast.Name) else str(ast.literal_eval(part)) for part in parts
    )
