"""Where members of kernel structures lie, by the kernel's own description of its types (BTF).

The kernel publishes it at /sys/kernel/btf/vmlinux: a header, a table of types and a table of names, as
Documentation/bpf/btf.rst describes them. The few structures needed are found by their names; only for what has no name
are all types counted.
"""

import struct
from bisect import bisect_left

from helm_sentry.errors import FeatureError

KERNEL = "/sys/kernel/btf/vmlinux"

_HEADER = struct.Struct("<HBBIIIII")  # <linux/btf.h> struct btf_header
_TYPE = struct.Struct("<III")  # struct btf_type: name_off, info, size
_MEMBER = struct.Struct("<III")  # struct btf_member: name_off, type, offset
_MAGIC, _STRUCT, _UNION, _FUNCTION = 0xEB9F, 4, 5, 12  # BTF_MAGIC, BTF_KIND_*
# Bytes that follow a type: for each kind, always, and for each of the things it consists of.
_ALWAYS = {1: 4, 3: 12, 14: 4, 17: 4}  # BTF_KIND_INT, ARRAY, VAR, DECL_TAG
_EACH = {_STRUCT: 12, _UNION: 12, 6: 8, 13: 8, 15: 12, 19: 12}  # ENUM, FUNC_PROTO, DATASEC, ENUM64


class Types:
    """The types of a kernel.

    Args:
        data: the contents of its BTF file.

    Raises:
        FeatureError: the data is not BTF.
    """

    def __init__(self, data: bytes) -> None:
        if len(data) < _HEADER.size or _HEADER.unpack_from(data)[0] != _MAGIC:
            raise FeatureError("the kernel's description of its types cannot be read")
        _, _, _, length, type_start, type_size, name_start, name_size = _HEADER.unpack_from(data)
        self._types = data[length + type_start : length + type_start + type_size]
        self._names = data[length + name_start : length + name_start + name_size]
        self._places: list[int] = []

    def offset(self, structure: str, member: str) -> int:
        """Return how many bytes into a structure a member begins, its own or one of a nameless part of it.

        Raises:
            FeatureError: this kernel has no such structure or member, or the member is a bit field.
        """
        name, wanted = self._name(structure), self._name(member)
        place = -1
        while (place := self._types.find(name, place + 1)) >= 0:
            _, info, _ = _TYPE.unpack_from(self._types, place) if place + _TYPE.size <= len(self._types) else (0, 0, 0)
            if place % 4 == 0 and info >> 24 & 0x1F == _STRUCT:
                bits = self._member(place, wanted)
                if bits is None or bits % 8:
                    raise FeatureError(f"this kernel has no `{structure}.{member}`")
                return bits // 8
        raise FeatureError(f"this kernel has no `struct {structure}`")

    def function(self, name: str) -> int:
        """Return the number of one of the kernel's functions; 0 when there is none of that name.

        Programs that are to run at a function are loaded for its number.
        """
        place = self._function(name)
        return bisect_left(self._all_places(), place) + 1 if place >= 0 else 0

    def parameters(self, name: str) -> int:
        """Return how many parameters a function of the kernel has.

        Raises:
            FeatureError: this kernel has no such function.
        """
        if (place := self._function(name)) < 0:
            raise FeatureError(f"this kernel has no `{name}()`")
        _, _, prototype = _TYPE.unpack_from(self._types, place)
        return int(_TYPE.unpack_from(self._types, self._place(prototype))[1] & 0xFFFF)

    def _function(self, name: str) -> int:
        """Return where a function is among the types, -1 when there is none."""
        try:
            wanted, place = self._name(name), -1
        except FeatureError:
            return -1
        while (place := self._types.find(wanted, place + 1)) >= 0:
            if place % 4 == 0 and self._types[place + 7] & 0x1F == _FUNCTION:
                return place
        return -1

    def _member(self, place: int, wanted: bytes) -> int | None:
        """Return where a member of the type at `place` begins, in bits."""
        _, info, _ = _TYPE.unpack_from(self._types, place)
        start = place + _TYPE.size
        end = min(start + (info & 0xFFFF) * _MEMBER.size, len(self._types) - _MEMBER.size + 1)
        nameless = []
        for entry in range(start, end, _MEMBER.size):
            name, kind, bits = _MEMBER.unpack_from(self._types, entry)
            bits = int(bits & 0xFFFFFF if info >> 31 else bits)  # the high byte is the width of a bit field
            if self._types[entry : entry + 4] == wanted:
                return bits
            nameless += [] if name else [(kind, bits)]
        for kind, bits in nameless:
            inner = self._place(kind)
            if (
                self._types[inner + 7] & 0x1F in (_STRUCT, _UNION)
                and (found := self._member(inner, wanted)) is not None
            ):
                return bits + found
        return None

    def _place(self, number: int) -> int:
        """Return where the type of that number is. They are not indexed: one follows the other."""
        return self._all_places()[number - 1]

    def _all_places(self) -> list[int]:
        if not self._places:
            place, types, places, always, each = 0, self._types, self._places, _ALWAYS, _EACH
            while place + _TYPE.size <= len(types):
                places.append(place)
                kind = types[place + 7] & 0x1F
                place += _TYPE.size + always.get(kind, 0)
                if kind in each:
                    place += each[kind] * (types[places[-1] + 4] | types[places[-1] + 5] << 8)
        return self._places

    def _name(self, text: str) -> bytes:
        place = self._names.find(b"\0" + text.encode() + b"\0")
        if place < 0:
            raise FeatureError(f"this kernel has no `{text}`")
        return (place + 1).to_bytes(4, "little")


def read(path: str = KERNEL) -> Types:
    """Return the types of the running kernel.

    Raises:
        FeatureError: the kernel does not describe its types.
    """
    try:
        with open(path, "rb") as file:
            return Types(file.read())
    except OSError:
        raise FeatureError(f"the kernel does not describe its types at {path}") from None
