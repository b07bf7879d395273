"""Print the names of the files that tests in a guest open again and again: Python's, this package's, shared libraries."""

import ctypes
import os
import ssl
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
OURS = ("helm_sentry", "bpf", "policies", "tests/vm", "tests/attacks")
NEVER = {"test", "tests", "idlelib", "lib2to3", "tkinter", "pip", "mypy", "mypyc", "grpc_tools", "hypothesis"}
PLAIN = ("/etc/ld.so.cache", "/etc/passwd", "/etc/group", "/etc/nsswitch.conf")
LARGEST = 1 << 20  # bytes; a larger one takes longer to copy than it takes to open
LINKED = (ctypes, ssl)  # whose libraries are mapped here, because these are imported


def beneath(directory: Path, never: set[str]) -> Iterator[Path]:
    """Yield the files below a directory that are worth a copy."""
    for place, directories, names in os.walk(directory):
        directories[:] = [name for name in directories if name not in never]
        for name in names:
            path = Path(place, name)
            if path.is_symlink() or path.stat().st_size < LARGEST:
                yield path


def mapped() -> Iterator[Path]:
    """Yield the program and the libraries of this process, however large."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = Path(line.split(maxsplit=5)[-1])
        if path.is_absolute() and path.is_file():
            yield path.resolve()


if __name__ == "__main__":
    found = {Path(name) for name in PLAIN if Path(name).exists()} | set(mapped())
    for root in (Path(sysconfig.get_path("stdlib")), Path(sys.prefix)):
        found.update(beneath(root, NEVER))
    for name in OURS:
        found.update(beneath(CHECKOUT / name, set()))
    print("\n".join(str(path) for path in sorted(found)))
