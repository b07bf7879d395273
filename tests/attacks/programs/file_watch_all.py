"""Watch a whole file system with fanotify."""

from attack import AT_FDCWD, OUTSIDE, call, main

FAN_REPORT_FID, FAN_MARK_ADD, FAN_OPEN = 0x200, 1, 0x20
PROMISE = "fanotify is kernel surface, and denied"
CONTROL = "the mark is set"
ADVICE = "take `watch` out of your kernel rules"


def attempt() -> bool:
    group = call("fanotify_init", FAN_REPORT_FID, 0)
    return call("fanotify_mark", group, FAN_MARK_ADD, FAN_OPEN, AT_FDCWD, OUTSIDE) == 0


main(attempt, needs="a kernel with fanotify")
