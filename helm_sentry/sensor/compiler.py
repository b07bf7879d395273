"""Compile BPF sources with BCC, in a process of its own: `python3 -I compiler.py DEFINE... -- SOURCE...`.

The only `import bcc`. It runs under whichever interpreter has BCC, which need not be the supervisor's, so it uses
nothing else of this package. Prints JSON: maps, and programs as instructions in which a map is named by its place in
that list.

BCC wants a kernel source tree. The sources under `bpf/` need none of it, so it gets an empty one.
"""

import base64
import json
import os
import struct
import sys
import tempfile

import bcc  # type: ignore[import-untyped,import-not-found,unused-ignore]  # Debian's python3-bpfcc; PyPI's `bcc` is something else

_LOAD_WIDE, _MAP_BY_DESCRIPTOR = 0x18, 1  # <linux/bpf.h> BPF_LD | BPF_IMM | BPF_DW, BPF_PSEUDO_MAP_FD
_HEADERS = {
    "linux/kconfig.h": "#define CONFIG_BPF_SYSCALL 1\n",
    "linux/version.h": "#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))\n"
    "#define LINUX_VERSION_CODE KERNEL_VERSION(5, 14, 0)\n",
    "linux/types.h": "#pragma once\n"
    + "".join(
        f"typedef {kind} __{letter}{bits}; typedef __{letter}{bits} {letter}{bits};\n"
        for bits, name in ((8, "char"), (16, "short"), (32, "int"), (64, "long long"))
        for letter, kind in (("u", f"unsigned {name}"), ("s", f"signed {name}"))
    )
    + "".join(f"typedef __u{bits} __{end}{bits};\n" for bits in (16, 32, 64) for end in ("be", "le"))
    + "typedef __u16 __sum16; typedef __u32 __wsum; typedef _Bool bool;\n"
    "typedef unsigned long size_t; typedef unsigned long uintptr_t; typedef int pid_t;\n"
    "#define __aligned_u64 __u64 __attribute__((aligned(8)))\n",
    "asm/page.h": "#define PAGE_SIZE 4096UL\n",
    "linux/log2.h": "",
    "linux/compiler_types.h": "",
    "linux/bpf_common.h": "",
    "uapi/linux/if_packet.h": "",
    "uapi/linux/bpf.h": "",  # BCC brings its own
}


def main() -> None:
    """Compile and print."""
    defines, sources = sys.argv[1 : sys.argv.index("--")], sys.argv[sys.argv.index("--") + 1 :]
    include = os.path.join(os.path.dirname(sources[0]), "include")
    maps: list[dict[str, object]] = []
    programs: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="helm-sentry-") as tree:
        for name, text in _HEADERS.items():
            path = os.path.join(tree, "include", name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="ascii") as file:
                file.write(text)
        os.environ["BCC_KERNEL_SOURCE"] = tree
        for source in sources:
            text = _with_includes(source, include)
            compiled = bcc.BPF(text=text.encode(), cflags=[f"-D{define}" for define in defines])
            programs |= _programs(compiled, _places(_maps(compiled), maps))
    print(json.dumps({"maps": maps, "programs": programs}))


def _with_includes(path: str, include: str) -> str:
    """Return a source with what it includes from `include` in its place: BCC knows maps in the first file alone."""
    text = ""
    with open(path, encoding="utf-8") as file:
        for line in file:
            own = line.startswith('#include "')
            text += _with_includes(os.path.join(include, line.split('"')[1]), include) if own else line
    return text


def _places(found: list[dict[str, object]], maps: list[dict[str, object]]) -> list[int]:
    """Return where in `maps` the maps of one source are, after adding those that no other source has."""
    maps += [entry for entry in found if entry not in maps]
    return [maps.index(entry) for entry in found]


def _maps(compiled: bcc.BPF) -> list[dict[str, object]]:
    module, library = compiled.module, bcc.lib
    # BCC declares only the functions it uses itself.
    for function, like in (
        (library.bpf_table_name, library.bpf_function_name),
        (library.bpf_table_fd_id, library.bpf_table_type_id),
        (library.bpf_table_flags_id, library.bpf_table_type_id),
        (library.bpf_table_key_size_id, library.bpf_table_max_entries_id),
        (library.bpf_table_leaf_size_id, library.bpf_table_max_entries_id),
    ):
        function.restype, function.argtypes = like.restype, like.argtypes
    library.bpf_num_tables.restype = library.bpf_num_functions.restype
    library.bpf_num_tables.argtypes = library.bpf_num_functions.argtypes
    return [
        {
            "name": library.bpf_table_name(module, index).decode(),
            "type": library.bpf_table_type_id(module, index),
            "key": library.bpf_table_key_size_id(module, index),
            "value": library.bpf_table_leaf_size_id(module, index),
            "entries": library.bpf_table_max_entries_id(module, index),
            "flags": library.bpf_table_flags_id(module, index),
        }
        for index in range(library.bpf_num_tables(module))
    ]


def _programs(compiled: bcc.BPF, places: list[int]) -> dict[str, str]:
    module, library = compiled.module, bcc.lib
    by_descriptor = {library.bpf_table_fd_id(module, index): place for index, place in enumerate(places)}
    names = [library.bpf_function_name(module, index) for index in range(library.bpf_num_functions(module))]
    return {
        name.decode(): base64.b64encode(_relocatable(compiled.dump_func(name), by_descriptor)).decode()
        for name in names
    }


def _relocatable(code: bytes, places: dict[int, int]) -> bytes:
    """Return the instructions with each map's descriptor replaced by its place in the list of maps."""
    instructions = [bytearray(code[start : start + 8]) for start in range(0, len(code), 8)]
    for instruction in instructions:
        if instruction[0] == _LOAD_WIDE and instruction[1] >> 4 == _MAP_BY_DESCRIPTOR:
            struct.pack_into("<i", instruction, 4, places[struct.unpack_from("<i", instruction, 4)[0]])
    return b"".join(instructions)


if __name__ == "__main__":
    main()
