"""Offsets out of type information: a hand-made one, and the running kernel's."""

import os
import struct

import pytest

from helm_sentry.errors import FeatureError
from helm_sentry.sensor import btf

NAMES = b"\0task\0pid\0flag\0other\0"
STRUCT, UNION, INT = 4, 5, 1


def place(name: str) -> int:
    return NAMES.index(f"\0{name}\0".encode()) + 1


def types(*entries: bytes) -> btf.Types:
    body = b"".join(entries)
    return btf.Types(struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(body), len(body), len(NAMES)) + body + NAMES)


def structure(name: str, members: list[tuple[str, int]], bit_fields: bool = False) -> bytes:
    info = STRUCT << 24 | len(members) | bit_fields << 31
    body = b"".join(struct.pack("<III", place(member), 1, bits) for member, bits in members)
    return struct.pack("<III", place(name), info, 64) + body


def integer(name: str) -> bytes:
    return struct.pack("<IIII", place(name), INT << 24, 4, 0)


def test_a_member_is_found_in_bytes() -> None:
    assert types(integer("pid"), structure("task", [("flag", 0), ("pid", 96)])).offset("task", "pid") == 12


def test_another_kind_of_the_same_name_is_passed_over() -> None:
    assert types(integer("task"), structure("task", [("pid", 32)])).offset("task", "pid") == 4


def test_in_a_structure_with_bit_fields_the_high_byte_is_a_width() -> None:
    assert types(structure("task", [("pid", 4 << 24 | 64)], bit_fields=True)).offset("task", "pid") == 8


def test_a_member_of_a_nameless_part_is_a_member() -> None:
    members = struct.pack("<III", place("flag"), 1, 0) + struct.pack("<III", 0, 3, 64)
    outer = struct.pack("<III", place("task"), STRUCT << 24 | 2, 16) + members
    inner = struct.pack("<III", 0, UNION << 24 | 1, 8) + struct.pack("<III", place("pid"), 1, 32)
    assert types(integer("other"), outer, inner).offset("task", "pid") == 12


@pytest.mark.parametrize(
    ("entries", "structure_name", "member"),
    [
        pytest.param([structure("task", [("flag", 0)])], "task", "pid", id="no such member"),
        pytest.param([structure("task", [("flag", 3)])], "task", "flag", id="a bit field"),
        pytest.param([integer("other")], "task", "pid", id="no such structure"),
        pytest.param([integer("other")], "unheard-of", "pid", id="no such name"),
    ],
)
def test_what_is_not_there_is_an_error(entries: list[bytes], structure_name: str, member: str) -> None:
    with pytest.raises(FeatureError, match="this kernel has no"):
        types(*entries).offset(structure_name, member)


@pytest.mark.parametrize("data", [b"", b"\x9f\xeb", b"\0" * 64])
def test_what_is_no_type_information_is_an_error(data: bytes) -> None:
    with pytest.raises(FeatureError):
        btf.Types(data)


def test_a_kernel_without_it_is_an_error(tmp_path) -> None:
    with pytest.raises(FeatureError, match="does not describe"):
        btf.read(str(tmp_path / "nothing"))


def test_cut_off_anywhere_it_is_an_error_or_the_truth() -> None:
    whole = structure("task", [("flag", 0), ("pid", 96)])
    for length in range(len(whole)):
        with pytest.raises(FeatureError):
            types(whole[:length]).offset("task", "pid")


def test_the_running_kernel_knows_its_tasks() -> None:
    if not os.path.exists(btf.KERNEL):
        pytest.skip("this kernel does not describe its types")
    kernel = btf.read()
    assert kernel.offset("task_struct", "tgid") == kernel.offset("task_struct", "pid") + 4
