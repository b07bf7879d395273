"""Nodes with an expected shape: tables with known keys, lists, texts. What has another shape is an error."""

from collections.abc import Callable, Iterable
from typing import TypeVar

from helm_sentry.policy import values
from helm_sentry.policy.document import Items, Node, Scalar, Table

Value = TypeVar("Value")


class Fields:
    """A table whose keys are known in advance."""

    def __init__(self, node: Node, what: str, known: Iterable[str]) -> None:
        self._entries = {key.text: (key, value) for key, value in pairs(node, what)}
        self.place = node.place
        known = tuple(known)
        for key, _ in self._entries.values():
            if key.text not in known:
                raise key.place.error(values.unknown("key", key.text, known))

    def get(self, key: str) -> Node | None:
        """Return the value of a key, or None."""
        return self._entries[key][1] if key in self._entries else None

    def key(self, key: str) -> Scalar | None:
        """Return the key as written, or None."""
        return self._entries[key][0] if key in self._entries else None

    def require(self, key: str, example: str) -> Node:
        """Return the value of a key that must be there."""
        if key not in self._entries:
            raise self.place.error(f"`{key}` is missing; write {example}")
        return self._entries[key][1]

    def values(self, key: str, reader: Callable[[Scalar], Value]) -> tuple[Value, ...] | None:
        """Return what `reader` makes of each member of a list, or None when the key is absent."""
        node = self.get(key)
        return None if node is None else tuple(map(reader, scalars(node, f"`{key}`")))


def pairs(node: Node, what: str) -> tuple[tuple[Scalar, Node], ...]:
    """Return the entries of a table."""
    if not isinstance(node, Table):
        raise node.place.error(f"{what} must be a table of `key: value`")
    return node.entries


def scalar(node: Node, what: str) -> Scalar:
    """Return a node that must be text."""
    if not isinstance(node, Scalar) or not node.text:
        raise node.place.error(f"{what} must be text")
    return node


def scalars(node: Node, what: str) -> tuple[Scalar, ...]:
    """Return the members of a list of texts that is not empty; a single text counts as a list of one."""
    items = items_of(node, what) if isinstance(node, Items) else (node,)
    if not items:
        raise node.place.error(f"{what} is empty; write at least one value, or leave it out")
    return tuple(scalar(item, f"each value of {what}") for item in items)


def items_of(node: Node, what: str) -> tuple[Node, ...]:
    """Return the members of a list."""
    if not isinstance(node, Items):
        raise node.place.error(f"{what} must be a list")
    return node.items
