"""Interpreter lines of scripts, read as the kernel reads them (fs/binfmt_script.c). Pure."""

import re
from dataclasses import dataclass

HEADER = 256
"""<linux/binfmts.h> BINPRM_BUF_SIZE: how much of a file the kernel looks at."""

_BLANKS = b" \t"
_END = re.compile(rb"[ \t\0]")


class ScriptError(ValueError):
    """The file starts with `#!` but names no interpreter; the kernel answers ENOEXEC."""


@dataclass(frozen=True, slots=True)
class Shebang:
    """The first line of a script.

    Attributes:
        interpreter: the name as the kernel opens it, relative to the working directory. It is empty where the kernel,
            too, looks for an empty name.
        argument: what follows the name, as one argument; None when there is nothing.
    """

    interpreter: bytes
    argument: bytes | None

    def before(self, filename: bytes) -> tuple[bytes, ...]:
        """Return what the kernel puts in the place of the script's own name in its argument vector.

        Args:
            filename: the path the script was executed by.
        """
        return (self.interpreter, *([] if self.argument is None else [self.argument]), filename)


def shebang_of(header: bytes) -> Shebang | None:
    """Return what the first line of a file names, None when the file is not a script.

    Args:
        header: the first `HEADER` bytes, or the whole file when it is shorter.

    Raises:
        ScriptError: no interpreter, or its name is cut off by the end of the buffer.
    """
    if not header.startswith(b"#!"):
        return None
    buffer = header[:HEADER].ljust(HEADER, b"\0")
    end = buffer.partition(b"\0")[0].find(b"\n")
    if end < 0:
        # Without a newline only a blank or a NUL tells that the name is whole.
        if not _END.search(buffer[2:].lstrip(_BLANKS)):
            raise ScriptError("the interpreter's name is cut off")
        end = HEADER - 1
    line = buffer[2:end].strip(_BLANKS)
    if not line:
        raise ScriptError("no interpreter")
    name, *rest = _END.split(line, maxsplit=1)
    after = rest[0].lstrip(_BLANKS) if rest and line[len(name) : len(name) + 1] != b"\0" else b""
    return Shebang(name, after.partition(b"\0")[0] if after else None)
