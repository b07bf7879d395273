"""Try what only an administrator may: modules, kexec, reboot, swap, accounts, clock, host name, ports."""

import contextlib
import errno

from attack import NotPossible, call, main, reached

# The arguments are wrong on purpose: an error of the call's own shows that it was reached, and nothing happens.
WAYS = {
    "init_module": (lambda: call("init_module", b"x" * 16, 16, ""), errno.ENOEXEC, errno.EFAULT),
    "delete_module": (lambda: call("delete_module", "decoy_none", 0o4000), errno.ENOENT),
    "kexec_load": (lambda: call("kexec_load", 0, 17, 0, 0x10000000), errno.EINVAL),
    "reboot": (lambda: call("reboot", 1, 2, 3, 0), errno.EINVAL),
    "swapon": (lambda: call("swapon", "/nowhere", 0), errno.ENOENT),
    "acct": (lambda: call("acct", "/nowhere"), errno.ENOENT),
    "sethostname": (lambda: call("sethostname", 0, -1), errno.EINVAL),
    "clock_settime": (lambda: call("clock_settime", 0, 0), errno.EFAULT),
    "clock_adjtime": (lambda: call("adjtimex", bytes(208)),),
    "quotactl": (lambda: call("quotactl", 0x80000300, 0, 0, 0), errno.ENODEV, errno.EFAULT, errno.EINVAL),
    "iopl": (lambda: call("iopl", 0), errno.EINVAL),
    "syslog": (lambda: call("syslog", 10, 0, 0),),
}
PROMISE = "administration is kernel surface, and denied"
CONTROL = "some of the calls are reached"
ADVICE = "take the kind of the call that is named out of your kernel rules"


def attempt() -> bool:
    through = []
    for name, (action, *codes) in WAYS.items():
        with contextlib.suppress(OSError, NotPossible):
            reached(action, *codes)
            through.append(name)
    print(*through)
    return bool(through)


main(attempt, needs="root")
