"""`--user NAME`: root starts the agent as somebody else, and the broker acts as that somebody."""

import os
import pwd

import pytest

from tests.kernel.conftest import NOBODY, PYTHON, Sandbox

pytestmark = pytest.mark.kernel
NAME = pwd.getpwuid(NOBODY).pw_name


def test_the_agent_is_that_user_and_so_is_what_it_makes(sandbox: Sandbox) -> None:
    os.chown(sandbox.workspace, NOBODY, NOBODY)
    program = "import os, pathlib; pathlib.Path('made').write_text('x'); print(os.getresuid(), os.getgroups(), os.environ['HOME'])"
    result = sandbox.run([PYTHON, "-c", program], options=["--user", NAME])
    assert result.status == 0, result.stderr
    assert str((NOBODY,) * 3) in result.stdout
    assert (sandbox.workspace / "made").stat().st_uid == NOBODY


def test_roots_files_stay_roots(sandbox: Sandbox) -> None:
    """The policy allows the file; the user may not read it, and the broker does not lend root's rights."""
    if sandbox.uid:
        result = sandbox.run(["true"], options=["--user", "root"])
        assert result.status == 2
        assert "only root" in result.stderr
        return
    secret = sandbox.workspace / "roots"
    secret.write_text("s3cret")
    secret.chmod(0o600)
    assert sandbox.run(["cat", "roots"]).stdout == "s3cret"
    result = sandbox.run(["cat", "roots"], options=["--user", NAME])
    assert "s3cret" not in result.stdout
    assert "Permission denied" in result.stderr
    assert not result.denials("file.read")


def test_threads_and_programs_work_too(sandbox: Sandbox) -> None:
    os.chown(sandbox.workspace, NOBODY, NOBODY)
    script = (
        "import subprocess, os; os.mkdir('d'); os.chdir('d'); print(subprocess.check_output(['id', '-u'], text=True))"
    )
    result = sandbox.run([PYTHON, "-c", script], options=["--user", NAME])
    assert result.stdout.strip() == str(NOBODY), result.stderr
