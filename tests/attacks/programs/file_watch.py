"""Watch a denied directory, and hear of every name in it."""

from attack import OUTSIDE, call, main

IN_ALL_EVENTS = 0xFFF
PROMISE = "a watch is a look, and judged as one"
CONTROL = "the watch is set"
ADVICE = "take `stat` and `list` out of the rule that allows the directory"


def attempt() -> bool:
    return call("inotify_add_watch", call("inotify_init1", 0), OUTSIDE, IN_ALL_EVENTS) >= 0


main(attempt)
