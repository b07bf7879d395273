"""Interpreter lines of scripts, read as the kernel reads them (fs/binfmt_script.c). Pure."""

_BLANKS = b" \t"


class ScriptError(ValueError):
    """The file starts with `#!` but names no interpreter; the kernel answers ENOEXEC."""


def interpreter_of(header: bytes) -> bytes | None:
    """Return the interpreter that the first bytes of a file name, None when the file is not a script.

    Args:
        header: the first 256 bytes (BINPRM_BUF_SIZE), or the whole file when it is shorter.

    Raises:
        ScriptError: no interpreter, or its name is cut off by the end of the buffer.
    """
    if not header.startswith(b"#!"):
        return None
    line, newline, _ = header[2:].partition(b"\n")
    words = line.partition(b"\0")[0].strip(_BLANKS)
    if not words:
        raise ScriptError("no interpreter")
    name = min(words.split(b" ", 1)[0], words.split(b"\t", 1)[0], key=len)
    if not newline and len(header) >= 256 and name == words:
        raise ScriptError("the interpreter's name is cut off")
    return name
