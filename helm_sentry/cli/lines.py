"""Files of signed statements, one envelope a line; `helm-sentry receipt verify` reads them."""

from collections.abc import Iterable

from helm_sentry.errors import UsageError


def write_lines(path: str, lines: Iterable[str]) -> None:
    """Write lines to a new file.

    Raises:
        UsageError: it is there already, or cannot be written.
    """
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
    except OSError as error:
        raise UsageError(f"`{path}` cannot be written: {error.strerror}") from error
