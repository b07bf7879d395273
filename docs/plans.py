"""Write `plans.md`: who holds what of one policy on four hosts. `make plans` runs it, as root.

Three of the tables are computed here; that of the guest is made by the same command in a guest (tests/vm/guest.py).
"""

import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
SENTRY = str(Path(sys.executable).parent / "helm-sentry")
POLICY = HERE / "kernel-tier.yaml"
HEAD = """# Four plans

Who holds what of [kernel-tier.yaml](kernel-tier.yaml) on four hosts, in the kernel tier. Made by `make plans`; each
table is what the command above it prints. What the words mean: [kernel-tier.md](kernel-tier.md).
"""
HERE_AND_NOW = {
    "A machine as root": (),
    "The same machine, unprivileged": ("--without", "root"),
    "A host without Landlock": ("--without", "landlock"),
}
GUEST = "A guest with Linux 6.1, as root"


def command(options: tuple[str, ...]) -> list[str]:
    """Return the command of a table."""
    return ["helm-sentry", "policy", "plan", str(POLICY), "--tier", "kernel", "--markdown", *options]


def computed(options: tuple[str, ...]) -> str:
    """Return a table that this machine can compute."""
    with tempfile.TemporaryDirectory() as workspace:
        words = [SENTRY, *command(options)[1:], "--workspace", workspace]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def in_guest() -> str:
    """Return the guest's table."""
    guest = [sys.executable, str(HERE.parent / "tests/vm/guest.py"), "--kernel", "6.1", "--"]
    inside = [SENTRY, *command(())[1:], "--workspace", "/var/tmp"]  # noqa: S108  # only named
    out = subprocess.run([*guest, *inside], capture_output=True, text=True, check=True).stdout
    return "\n".join(line.strip() for line in out.splitlines() if line.strip().startswith("|"))


def section(title: str, options: tuple[str, ...], table: str) -> str:
    """Return one table with its heading and command."""
    shown = " ".join(command(options)).replace(f"{HERE}/", "docs/")
    return f"\n## {title}\n\n    {shown}\n\n{table}\n"


if __name__ == "__main__":
    pages = [section(title, options, computed(options)) for title, options in HERE_AND_NOW.items()]
    pages.insert(2, section(GUEST, (), in_guest()))
    (HERE / "plans.md").write_text(HEAD + "".join(pages))
