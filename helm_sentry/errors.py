"""The errors the project raises on purpose.

Texts are lower case, name what was wrong and what to do, and quote user input in backticks. `OSError` passes
through where a syscall failed and nothing more can be said about it.
"""


class SentryError(Exception):
    """Anything the command line reports as one sentence and exit status 125."""

    exit_status = 125


class UsageError(SentryError):
    """The command was called in a way that cannot work. Exit status 2."""

    exit_status = 2


class PolicyError(UsageError):
    """A policy file cannot be used.

    Attributes:
        source: file name or pack name, empty when the policy did not come from a file.
        line: 1-based line of the offending text, 0 when unknown.
        column: 1-based column of the offending text, 0 when unknown.
    """

    def __init__(self, message: str, source: str = "", line: int = 0, column: int = 0) -> None:
        self.message, self.source, self.line, self.column = message, source, line, column
        place = ":".join(str(part) for part in (source, line, column) if part)
        super().__init__(f"{place}: {message}" if place else message)


class StalePolicyError(PolicyError):
    """A policy file is older than the caller accepts."""


class FeatureError(SentryError):
    """The host lacks a mechanism that the run needs."""


class LaunchError(SentryError):
    """The agent could not be started.

    Attributes:
        exit_status: 126 or 127 as a shell gives them, 125 when confinement failed.
    """

    def __init__(self, message: str, exit_status: int = 125) -> None:
        super().__init__(message)
        self.exit_status = exit_status


class AuditError(SentryError):
    """The audit log cannot be written. The run ends: nothing happens unrecorded."""


class VerificationError(SentryError):
    """A log, receipt or policy is not what was signed. Exit status 121.

    Attributes:
        sequence: sequence number of the first bad record, or None when the fault is not in a record.
    """

    exit_status = 121

    def __init__(self, message: str, sequence: int | None = None) -> None:
        super().__init__(message)
        self.sequence = sequence


def printable(text: str) -> str:
    """Return a text with everything but letters, marks and plain spaces written as escapes."""
    return "".join(mark if mark.isprintable() else mark.encode("unicode_escape").decode() for mark in text)
