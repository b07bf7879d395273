"""Build hook: compile the receiver where there is a C compiler, and go on without it where there is none."""

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_HERE = Path("helm_sentry") / "native"
_SOURCES = (
    *("brief.c", "connects.c", "decisions.c", "effects.c", "entries.c", "log.c", "looks.c", "names.c", "paths.c"),
    *("receiver.c", "serving.c", "steering.c", "tracer.c"),
)
_OPTIONS = (
    "-std=gnu11", "-O2", "-fPIC", "-shared", "-Wall", "-Wextra", "-D_FORTIFY_SOURCE=2", "-fstack-protector-strong",
    "-Wl,-z,relro,-z,now",
)  # fmt: skip


class ReceiverHook(BuildHookInterface):  # type: ignore[type-arg]
    """Makes `libreceiver.so` a part of the wheel, or of the checkout in an editable installation."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile before the files are collected."""
        if self.target_name != "wheel":
            return
        here = Path(self.root) / _HERE
        library = here / "libreceiver.so"
        library.unlink(missing_ok=True)
        if self._compile(here, library):
            build_data["artifacts"].append(f"/{_HERE}/libreceiver.so")
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"

    def _compile(self, here: Path, library: Path) -> bool:
        compiler = os.environ.get("CC") or shutil.which("cc")
        if not compiler:
            self.app.display_warning("no C compiler: helm-sentry will run without the compiled receiver")
            return False
        command = [
            compiler,
            *_OPTIONS,
            "-o",
            str(library),
            *(str(here / name) for name in _SOURCES),
            "-ldl",
            "-lpthread",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            self.app.display_warning(f"the compiled receiver cannot be built: {done.stderr}")
        return done.returncode == 0
