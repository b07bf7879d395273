"""The prompt: a process that has the terminal, shows one question, and writes the answer to its standard output.

Run by `control.terminal` with the question as a line of JSON on standard input.
"""

import json
import os
import signal
import sys
import termios

_WORDS = {"o": "once", "r": "run", "a": "always", "d": "deny"}
_MOST_TRIES = 3
_LONG, _FIRST, _WIDE = 1200, 2, 400  # characters, lines, characters


def main() -> None:
    """Ask. Whatever is not an answer, an interrupt among it, denies."""
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    question = json.loads(sys.stdin.readline())  # comes when the terminal is ours
    terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    try:
        _make_sane(terminal)
        _show(terminal, question["lines"])
        word = _read(terminal)
    except KeyboardInterrupt:
        word = "deny"
    _write(terminal, f"helm-sentry: {word}\n")
    os.write(1, word.encode() + b"\n")


def _make_sane(terminal: int) -> None:
    settings = termios.tcgetattr(terminal)
    settings[0] |= termios.ICRNL
    settings[1] |= termios.OPOST | termios.ONLCR
    settings[3] |= termios.ICANON | termios.ECHO | termios.ISIG
    termios.tcsetattr(terminal, termios.TCSAFLUSH, settings)


def _show(terminal: int, lines: list[str]) -> None:
    shown = "".join(f"  {line}\n" for line in lines)
    if len(shown) > _LONG:  # what matters most may have left the screen
        shown += "  again, what is asked for:\n" + "".join(f"  {line[:_WIDE]}\n" for line in lines[:_FIRST])
    _write(terminal, "\nhelm-sentry: approval is needed\n" + shown)


def _read(terminal: int) -> str:
    for _ in range(_MOST_TRIES):
        _write(terminal, "allow it? [o]nce, for this [r]un, [a]lways under this policy, [d]eny: ")
        answer = os.read(terminal, 4096).decode("utf-8", "replace").strip().lower()
        word = _WORDS.get(answer, answer)
        if word in _WORDS.values():
            return word
        if not answer:
            break
    return "deny"


def _write(terminal: int, text: str) -> None:
    os.write(terminal, text.encode("utf-8", "replace"))


if __name__ == "__main__":
    main()
