"""Put the verifier together: `python -m helm_sentry.standalone.assemble FILE`.

What goes in is found by following imports from `command.py`, so what verification needs cannot be forgotten. Each
module is taken as it is, but for those in `REPLACED`, whose other form does without a third-party package.
"""

import ast
import os
import sys
from collections.abc import Iterator

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_NAME = os.path.basename(_PACKAGE)
_COMMAND = f"{_NAME}.standalone.command"
_FRAME = os.path.join(_PACKAGE, "standalone", "frame.py.txt")

REPLACED = {
    f"{_NAME}.audit.codec": f"{_NAME}.standalone.codec",
    f"{_NAME}.receipt.ed25519": f"{_NAME}.standalone.ed25519",
}
"""Modules that need a third-party package, and what stands in for them."""


def assemble() -> bytes:
    """Return the verifier: a Python program in one file."""
    with open(_FRAME, encoding="utf-8") as file:
        text = file.read()
    for name, source in sorted(modules().items()):
        text += f"MODULES[{name!r}] = '''\\\n{_quoted(source)}'''\n\n"
    text += f"sys.meta_path.insert(0, Modules())\n\nfrom {_COMMAND} import main\n\n"
    return (text + 'if __name__ == "__main__":\n    sys.exit(main())\n').encode()


def modules() -> dict[str, str]:
    """Return the source of each module that the verifier is made of, by the name it is imported under."""
    found: dict[str, str] = {}
    wanted = [_COMMAND]
    while wanted:
        name = wanted.pop()
        path = _path(REPLACED.get(name, name))
        if name in found or not path:
            continue
        with open(path, encoding="utf-8") as file:
            found[name] = file.read()
        wanted += _imported(found[name])
        wanted.append(name.rpartition(".")[0])
    return found


def _imported(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _path(name: str) -> str:
    """Return the file of a module of this package, empty for any other name."""
    package, *names = name.split(".")
    place = os.path.join(_PACKAGE, *names)
    candidates = [f"{place}.py", os.path.join(place, "__init__.py")] if package == _NAME else []
    return next((path for path in candidates if os.path.isfile(path)), "")


def _quoted(source: str) -> str:
    return source.replace("\\", "\\\\").replace("'''", "\\'''")


if __name__ == "__main__":
    with open(sys.argv[1], "wb") as output:
        output.write(assemble())
