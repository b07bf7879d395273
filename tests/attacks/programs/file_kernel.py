"""Open what the kernel tells about itself: symbols, memory, messages, the way core files go."""

import os

from attack import main

PROMISE = "the kernel's own files are nobody's by default"
CONTROL = "one of them opens"
ADVICE = "block /proc/kallsyms, /proc/kcore, /dev/kmsg, /dev/mem and /proc/sys in your policy"

PLACES = (
    ("/proc/kallsyms", os.O_RDONLY),
    ("/proc/kcore", os.O_RDONLY),
    ("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK),
    ("/dev/mem", os.O_RDONLY),
    ("/proc/sys/kernel/core_pattern", os.O_WRONLY),
    ("/proc/1/environ", os.O_RDONLY),
    ("/proc/1/root/etc", os.O_RDONLY),
    ("/sys/kernel/debug", os.O_RDONLY),
)


def attempt() -> bool:
    opened = []
    for path, how in PLACES:
        try:
            os.close(os.open(path, how))
            opened.append(path)
        except OSError:
            continue
    print(*opened)
    return bool(opened)


main(attempt)
