"""The two verifiers as a person calls them: `helm-sentry verify`, and the program that is one file.

The second runs with neither this checkout, nor what is installed here, nor PyNaCl or orjson within its reach.
"""

import json
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner

from helm_sentry.cli.main import main
from helm_sentry.standalone.assemble import assemble

# Serves one call a line. Signatures that were checked are remembered: the many runs of a test have the same ones.
_SERVER = """
import contextlib, functools, io, json, runpy, sys
module = runpy.run_path(sys.argv[1], run_name="verifier")
ed25519 = sys.modules["helm_sentry.receipt.ed25519"]
ed25519.verify = functools.lru_cache(maxsize=None)(ed25519.plain_verify)
assert not {"nacl", "orjson"} & set(sys.modules), "it has help"
for line in sys.stdin:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        status = module["main"](json.loads(line))
    print(json.dumps([status, out.getvalue()]), flush=True)
"""


class Package:
    """`helm-sentry verify`."""

    name = "package"

    def __call__(self, *arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(main, ["verify", *arguments])
        return result.exit_code, result.output


class SingleFile:
    """verify_alone.py, in a process of its own."""

    name = "single file"

    def __init__(self, directory: Path) -> None:
        self.path = directory / "verify_alone.py"
        self.path.write_bytes(assemble())
        command = [sys.executable, "-I", "-S", "-c", _SERVER, str(self.path)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, *arguments: str) -> tuple[int, str]:
        assert self._process.stdin and self._process.stdout
        print(json.dumps(arguments), file=self._process.stdin, flush=True)
        status, output = json.loads(self._process.stdout.readline())
        return status, output

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        assert self._process.wait(30) == 0
