"""Beside what one would pick instead, as far as it is installed: the same open, the same start."""

import importlib.util
import json
import shutil
import sys

from harness import Lab, Row, Side, main

SANDLOCK = """import sys, sandlock
result = sandlock.Sandbox(fs_readable=["/"], fs_writable=[sys.argv[1]]).run(sys.argv[2:])
sys.stdout.buffer.write(result.stdout or b"")
sys.exit(0 if result.success else 1)
"""
NONO = """import os, sys, nono_py
allowed = nono_py.CapabilitySet()
allowed.allow_path("/", nono_py.AccessMode.READ)
allowed.allow_path(sys.argv[1], nono_py.AccessMode.READ_WRITE)
nono_py.apply(allowed)
os.execv(sys.argv[2], sys.argv[2:])
"""


def measure(lab: Lab) -> list[Row]:
    floor = Side("bare C supervisor", (str(lab.compile("bare_supervisor")),))
    sides = [*lab.supervised(), floor, *lab.traced(), *_installed(lab)]
    programs = [side for side in sides if side.name != "bare C supervisor"]
    return [
        *lab.alternate("open+read+close of 1 KiB", "us", lambda side: lab.looped(side, "read", 5000, lab.data), sides),
        *lab.alternate("start of `true`", "ms", lambda side: lab.timed(side, ["/bin/true"]), programs),
    ]


def _installed(lab: Lab) -> list[Side]:
    place = str(lab.workspace)
    sides = []
    for module, text in (("sandlock", SANDLOCK), ("nono_py", NONO)):
        if importlib.util.find_spec(module):
            script = lab.workspace / f"with_{module}.py"
            script.write_text(text)
            sides.append(Side(module, (sys.executable, str(script), place)))
    settings = lab.workspace.parent / "srt.json"
    settings.write_text(json.dumps(_srt(place)))
    commands = {
        "bubblewrap": ("bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--bind", place, place),
        "firejail": ("firejail", "--quiet", "--noprofile"),
        "codex sandbox": ("codex", "sandbox", "--"),
        "srt": ("srt", "--settings", str(settings)),
    }
    sides += [Side(name, words) for name, words in commands.items() if shutil.which(words[0])]
    return [side for side in sides if _runs(lab, side)]


def _srt(place: str) -> dict[str, object]:
    return {
        "network": {"allowedDomains": [], "deniedDomains": []},
        "filesystem": {"denyRead": [], "allowWrite": [place], "denyWrite": []},
    }


def _runs(lab: Lab, side: Side) -> bool:
    """Whether it can be had here: some need what this machine, or this user, does not have."""
    try:
        lab.run(side, [lab.loop, "read", "20", lab.data])
    except SystemExit as failed:
        print(f"left out, because it does not run here: {failed}", file=sys.stderr)
        return False
    return True


if __name__ == "__main__":
    main(measure, __doc__, in_memory=False)  # some have a /dev/shm of their own
