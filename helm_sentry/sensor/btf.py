"""Where members of kernel structures lie, by the kernel's own description of its types (BTF).

The kernel publishes it at /sys/kernel/btf/vmlinux: a header, a table of types and a table of names, as
Documentation/bpf/btf.rst describes them. The few structures needed are found by their names, so nothing else is read.
"""

import struct

from helm_sentry.errors import FeatureError

KERNEL = "/sys/kernel/btf/vmlinux"

_HEADER = struct.Struct("<HBBIIIII")  # <linux/btf.h> struct btf_header
_TYPE = struct.Struct("<III")  # struct btf_type: name_off, info, size
_MEMBER = struct.Struct("<III")  # struct btf_member: name_off, type, offset
_MAGIC, _STRUCT = 0xEB9F, 4  # BTF_MAGIC, BTF_KIND_STRUCT


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

    def offset(self, structure: str, member: str) -> int:
        """Return how many bytes into a structure one of its own members begins.

        Raises:
            FeatureError: this kernel has no such structure or member, or the member is a bit field.
        """
        name, wanted = self._name(structure), self._name(member)
        place = -1
        while (place := self._types.find(name, place + 1)) >= 0:
            _, info, _ = _TYPE.unpack_from(self._types, place) if place + _TYPE.size <= len(self._types) else (0, 0, 0)
            if place % 4 == 0 and info >> 24 & 0x1F == _STRUCT:
                return self._member(place + _TYPE.size, info, wanted, f"{structure}.{member}")
        raise FeatureError(f"this kernel has no `struct {structure}`")

    def _member(self, start: int, info: int, wanted: bytes, text: str) -> int:
        end = min(start + (info & 0xFFFF) * _MEMBER.size, len(self._types) - _MEMBER.size + 1)
        for place in range(start, end, _MEMBER.size):
            _, _, bits = _MEMBER.unpack_from(self._types, place)
            if self._types[place : place + 4] == wanted:
                bits = bits & 0xFFFFFF if info >> 31 else bits  # the high byte is the width of a bit field
                if bits % 8 == 0:
                    return int(bits // 8)
        raise FeatureError(f"this kernel has no `{text}`")

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
