"""Interpreter lines of scripts, read as the kernel reads them (fs/binfmt_script.c). Pure."""

import re

HEADER = 256
"""<linux/binfmts.h> BINPRM_BUF_SIZE: how much of a file the kernel looks at."""

_BLANKS = b" \t"
_END = re.compile(rb"[ \t\0]")


class ScriptError(ValueError):
    """The file starts with `#!` but names no interpreter; the kernel answers ENOEXEC."""


def interpreter_of(header: bytes) -> bytes | None:
    """Return the interpreter that the first bytes of a file name, None when the file is not a script.

    Args:
        header: the first `HEADER` bytes, or the whole file when it is shorter.

    Returns:
        The name as the kernel opens it, relative to the working directory. It is empty where the kernel, too,
        looks for an empty name.

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
    return _END.split(line, 1)[0]
