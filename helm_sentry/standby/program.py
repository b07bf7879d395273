"""The program as it was loaded: whether a process that started now would be another one."""

import os
import sys
from collections.abc import Iterator

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_CODE = (".py", ".so")


class Loaded:
    """Remembers the files that this process was made of: what is mapped, what was imported, and our whole package."""

    def __init__(self) -> None:
        self._stamps = {path: _stamp(path) for path in sorted(_mapped() | _imported() | _package())}

    def change(self) -> str:
        """Return a file that is another one by now, empty if there is none."""
        return next((path for path, stamp in self._stamps.items() if _stamp(path) != stamp), "")


def _stamp(path: str) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size


def writable() -> Iterator[tuple[int, int]]:
    """Yield where this process's own writable memory begins and ends."""
    for where, rights, *_ in _maps():
        if rights.startswith("rw") and rights.endswith("p"):
            begin, _, end = where.partition("-")
            yield int(begin, 16), int(end, 16)


def _mapped() -> set[str]:
    return {each[5] for each in _maps() if len(each) > 5 and each[5].startswith("/")}


def _maps() -> list[list[str]]:
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as file:
        return [line.rstrip("\n").split(maxsplit=5) for line in file]


def _imported() -> set[str]:
    """Return the files of modules, and the directories whose `.pth` files an interpreter follows when it starts."""
    files = {str(path) for module in list(sys.modules.values()) if (path := getattr(module, "__file__", None))}
    return files | {path for path in sys.path if os.path.basename(path) in ("site-packages", "dist-packages")}


def _package() -> set[str]:
    """Return all code of our package: what is imported later must be of the same version, too."""
    found = os.walk(_PACKAGE)
    return {os.path.join(directory, name) for directory, _, names in found for name in names if name.endswith(_CODE)}
