"""Programs: an allowed exec is the native one, a forbidden one never gets to its first instruction."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from helm_sentry.abi.arch import native as native_arch
from tests.kernel.conftest import Result, Sandbox

pytestmark = [pytest.mark.kernel, pytest.mark.every_tier]

POWERLESS = ("setpriv", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all")
WORKSPACE = """
allow:
  - {id: workspace, file: {do: [all], paths: ["${workspace}/**"]}}
  - {id: program, exec: {paths: ["${program}"]}}
  - {id: program-file, file: {do: [read], paths: ["${program}"]}}
"""


def policy(*programs: Path | str, extends: str = "base", more: str = "") -> str:
    listed = ", ".join(f'"{program}"' for program in programs)
    rules = f"  - {{id: tested, exec: {{paths: [{listed}]}}}}\n" if programs else ""
    return f"extends: [{extends}]{WORKSPACE}{rules}{more}"


def compiled(source: Path | str, target: Path, *options: str) -> Path:
    subprocess.run(["cc", "-O1", "-D_GNU_SOURCE", "-o", str(target), *options, str(source)], check=True)
    target.chmod(0o755)
    return target


def executed(result: Result) -> list[str]:
    """Return the programs that got past the exec stop."""
    return [record["exe"] for record in result.records if record["type"] == "exec"]


def clear(directory: Path) -> None:
    subprocess.run(["find", directory, "-mindepth", "1", "-delete"], check=True)


# Results without which the comparison would show nothing: each was seen, natively, to be the interesting one.
EXPECTED = {
    "too long argument: exit 9",
    "many arguments: exit 42",
    "5 deep: exit 42",
    "6 deep: exit 9",
    "relative interpreter: exit 42",
    "relative interpreter, elsewhere: exit 9",
    "253 blanks after the name: exit 42",
    "253 blanks before the name: exit 9",
    "254 letters of name: exit 9",
    "nul after the name: exit 42",
    "itself: exit 9",
    "others only: exit 9",
    "busy: exit 9",
    "busy no more: exit 42",
    "fexecve of a path: exit 42",
    "fexecve of a script: exit 42",
    "fexecve of a closing script: exit 9",
    "relative, closing: exit 42",
    "another thread: exit 42",
    "vfork: exit 42",
    "posix_spawnp: exit 42",
    "after chdir: exit 42",
    "itself: exit 43",
    "rain: exit 42",
    "done",
}
ERRORS = [
    "E2BIG",
    "EFAULT",
    "ELOOP",
    "ENOENT",
    "ENOEXEC",
    "EACCES",
    "ENOTDIR",
    "ENAMETOOLONG",
    "ETXTBSY",
    "EBADF",
    "EINVAL",
]


def test_every_exec_gives_what_it_gives_natively(sandbox: Sandbox, victims: Path) -> None:
    command = [str(victims / "exec_calls"), str(victims / "exec_report")]
    native = sandbox.native([*POWERLESS, *command])
    assert native.status == 0, native.stdout
    assert EXPECTED - set(native.stdout.splitlines()) == set()
    assert [code for code in ERRORS if f"  {code}\n" not in native.stdout] == []
    clear(sandbox.workspace)
    look = '  - {id: look, file: {do: [stat, read], paths: ["/**"]}}\n'
    text = policy(victims / "exec_report", "${workspace}/**", "/usr", "/dev/null", more=look)
    result = sandbox.run(command, sandbox.policy(text))
    assert result.stdout.splitlines() == native.stdout.splitlines()
    assert result.denials() == []
    # The agent's program, and every exec that led to a report.
    assert len(executed(result)) == 1 + native.stdout.count(": exit 42") + native.stdout.count(": exit 43")


def test_programs_without_a_rule_do_not_start(sandbox: Sandbox, victims: Path) -> None:
    command = [str(victims / "exec_attempt"), "path", str(victims / "exec_report")]
    assert sandbox.native(command).status == 42
    assert sandbox.run(command, sandbox.policy(policy(victims / "exec_report"))).status == 42
    result = sandbox.run(command, sandbox.policy(policy()))
    assert (result.status, result.stdout) == (9, "exec EACCES\n")
    assert [record["target"] for record in result.denials("exec")] == [str(victims / "exec_report")]
    assert executed(result) == [str(victims / "exec_attempt")]


class TestScripts:
    """A `#!` interpreter is a program too."""

    @pytest.fixture
    def script(self, sandbox: Sandbox, victims: Path) -> Path:
        path = sandbox.workspace / "script"
        path.write_text(f"#!{victims}/exec_report one\n")
        path.chmod(0o755)
        return path

    def test_an_interpreter_needs_a_rule(self, sandbox: Sandbox, victims: Path, script: Path) -> None:
        command = [str(victims / "exec_attempt"), "path", "./script"]
        assert sandbox.native(command).status == 42
        both = sandbox.policy(policy(script, victims / "exec_report"))
        assert sandbox.run(command, both).status == 42
        result = sandbox.run(command, sandbox.policy(policy(script)))
        assert (result.status, result.stdout) == (9, "exec EACCES\n")
        (denied,) = result.denials("exec")
        assert (denied["target"], denied["to"]) == (str(script), str(victims / "exec_report"))

    def test_a_script_needs_a_rule(self, sandbox: Sandbox, victims: Path, script: Path) -> None:
        command = [str(victims / "exec_attempt"), "path", "./script"]
        result = sandbox.run(command, sandbox.policy(policy(victims / "exec_report")))
        assert (result.status, result.stdout) == (9, "exec EACCES\n")
        assert result.denials("exec")[0]["target"] == str(script)

    def test_a_script_that_cannot_be_read_runs_where_its_interpreter_may(
        self, sandbox: Sandbox, victims: Path, script: Path
    ) -> None:
        """Nobody but the kernel can look into it, so its interpreter is judged when it is there."""
        inner = sandbox.workspace / "inner"
        for path, content in ((script, f"#!{victims}/exec_report one\n"), (inner, "#!./script\n")):
            path.write_text(content)
            path.chmod(0o111)
            os.chown(path, sandbox.uid, sandbox.uid)
        for name in ("./script", "./inner"):
            command = [str(victims / "exec_attempt"), "path", name]
            assert sandbox.native([*POWERLESS, *command]).status == 42
            both = sandbox.run(command, sandbox.policy(policy(script, inner, victims / "exec_report")))
            assert both.status == 42, both.stderr
            assert executed(both)[-1] == str(victims / "exec_report")
            result = sandbox.run(command, sandbox.policy(policy(script, inner)))
            assert (result.status, result.stdout) == (9, "exec EACCES\n"), result.stdout  # by the floor
            assert str(victims / "exec_report") not in executed(result)
            block = f'block: [{{id: one, exec: {{paths: ["{victims}/exec_report"], argv: ["*", one, "..."]}}}}]\n'
            killed = sandbox.run(command, sandbox.policy(policy(script, inner, victims / "exec_report", more=block)))
            assert killed.status == -signal.SIGKILL
            assert str(victims / "exec_report") not in executed(killed)

    def test_an_interpreter_of_such_a_script_counts(self, sandbox: Sandbox, victims: Path, script: Path) -> None:
        script.chmod(0o111)
        os.chown(script, sandbox.uid, sandbox.uid)
        command = ["sh", "-c", "for time in 1 2 3; do ./script >&2; echo $?; done"]
        paths = f'[{script}, "{victims}/exec_report"]'
        rule = f"  - {{id: counted, exec: {{paths: {paths}}}, limit: {{count: 4}}}}\n"
        result = sandbox.run(command, sandbox.policy(policy(extends="shell", more=rule)))
        assert result.stdout.split() == ["42", "42", "126"], result.stderr

    def test_the_interpreter_of_an_interpreter_needs_a_rule(
        self, sandbox: Sandbox, victims: Path, script: Path
    ) -> None:
        outer = sandbox.workspace / "outer"
        outer.write_text("#!./script\n")
        outer.chmod(0o755)
        command = [str(victims / "exec_attempt"), "path", "./outer"]
        assert sandbox.native(command).status == 42
        assert sandbox.run(command, sandbox.policy(policy(outer, script, victims / "exec_report"))).status == 42
        result = sandbox.run(command, sandbox.policy(policy(outer, script)))
        assert (result.status, result.stdout) == (9, "exec EACCES\n")

    def test_a_missing_interpreter_is_missing(self, sandbox: Sandbox, victims: Path, script: Path) -> None:
        """To say so takes no more than the right to look; without that the answer is a refusal."""
        script.write_text("#!/srv/missing/interpreter\n")
        command = [str(victims / "exec_attempt"), "path", "./script"]
        assert sandbox.native(command).stdout == "exec ENOENT\n"
        look = '  - {id: look, file: {do: [stat], paths: ["/srv/**"]}}\n'
        assert sandbox.run(command, sandbox.policy(policy(script, more=look))).stdout == "exec ENOENT\n"
        result = sandbox.run(command, sandbox.policy(policy(script)))
        assert result.stdout == "exec EACCES\n"
        assert result.denials("file.stat")[0]["to"] == "/srv/missing"

    def test_a_program_that_cannot_be_read_is_killed(self, sandbox: Sandbox, victims: Path) -> None:
        """The kernel hides the memory of its process from every other one of that user, so nobody could serve it."""
        program = sandbox.workspace / "copy"
        shutil.copy(victims / "exec_report", program)
        os.chown(program, sandbox.uid, sandbox.uid)
        program.chmod(0o511)
        command = [str(victims / "exec_attempt"), "path", "./copy"]
        assert sandbox.run(command, sandbox.policy(policy(program))).status == 42
        program.chmod(0o111)
        assert sandbox.native([*POWERLESS, *command]).status == 42
        result = sandbox.run(command, sandbox.policy(policy(program)))
        assert result.status == -signal.SIGKILL
        (denied,) = result.denials("exec")
        assert (denied["reason"], denied["action"]) == ("EXEC_MISMATCH", "kill")

    def test_bash_runs_what_has_no_mark(self, sandbox: Sandbox) -> None:
        """ENOEXEC reaches the shell, which reads the file itself."""
        (sandbox.workspace / "plain").write_text("echo plain $1 $BASH_VERSION\n")
        (sandbox.workspace / "plain").chmod(0o755)
        command = ["bash", "-c", "./plain one; echo $?"]
        native, result = sandbox.native(command), sandbox.run(command)
        assert result.stdout == native.stdout
        assert "plain one" in native.stdout


class TestUnnamed:
    """Programs without a name in a file system."""

    @pytest.mark.parametrize("way", ["memfd", "memfd-exec", "proc"])
    def test_anonymous_memory_is_not_run(self, sandbox: Sandbox, victims: Path, way: str) -> None:
        command = [str(victims / "exec_attempt"), way, str(victims / "exec_report")]
        assert sandbox.native(command).status == 42
        read = f'  - {{id: read, file: {{do: [read], paths: ["{victims}/*"]}}}}\n'
        result = sandbox.run(command, sandbox.policy(policy(victims / "exec_report", more=read)))
        assert result.status == 9
        # Memory that may be executed is refused when it is made, the other kind when it is run.
        assert result.stdout == ("exec EACCES\n" if way == "memfd" else "memfd_create EACCES\n")
        assert result.denials("exec" if way == "memfd" else "kernel.memfd")
        assert executed(result) == [str(victims / "exec_attempt")]

    def test_memory_that_may_be_executed_still_needs_an_exec_rule(self, sandbox: Sandbox, victims: Path) -> None:
        command = [str(victims / "exec_attempt"), "memfd-exec", str(victims / "exec_report")]
        more = f'  - {{id: read, file: {{do: [read], paths: ["{victims}/*"]}}}}\n  - {{id: memory, kernel: [memfd]}}\n'
        result = sandbox.run(command, sandbox.policy(policy(victims / "exec_report", more=more)))
        assert result.stdout == "exec EACCES\n"
        assert [record["target"] for record in result.denials("exec")] == ["/memfd:program"]

    def test_the_default_policy_runs_no_memory(self, sandbox: Sandbox, victims: Path) -> None:
        for way in ("memfd", "memfd-exec", "proc"):
            shutil.copy(victims / "exec_report", sandbox.workspace / "exec_report")
            result = sandbox.run([str(victims / "exec_attempt"), way, "exec_report"])
            step = "exec" if way == "memfd" else "memfd_create"
            assert (result.status, result.stdout) == (9, f"{step} EACCES\n")

    def test_a_deleted_file_is_judged_by_the_name_it_had(self, sandbox: Sandbox, victims: Path) -> None:
        shutil.copy(victims / "exec_report", sandbox.workspace / "exec_report")
        command = [str(victims / "exec_attempt"), "deleted", "exec_report"]
        assert sandbox.native(command).status == 42
        assert sandbox.run(command, sandbox.policy(policy("${workspace}/**"))).status == 42
        result = sandbox.run(command, sandbox.policy(policy()))
        assert (result.status, result.stdout) == (9, "exec EACCES\n")


class TestLoaders:
    """The dynamic loader is a way to run a program without an exec of it."""

    def test_the_loader_itself_needs_a_rule(self, sandbox: Sandbox, victims: Path) -> None:
        loader = next(path for path in native_arch().loaders if os.path.exists(path))
        command = [str(victims / "exec_attempt"), "path", loader, str(victims / "exec_report")]
        assert sandbox.native(command).status == 42
        read = f'  - {{id: read, file: {{do: [read], paths: ["{victims}/*"]}}}}\n'
        result = sandbox.run(command, sandbox.policy(policy(victims / "exec_report", more=read)))
        assert (result.status, result.stdout) == (9, "exec EACCES\n")
        assert result.denials("exec")[0]["target"] == os.path.realpath(loader)

    def test_a_static_program_runs(self, sandbox: Sandbox, victims: Path) -> None:
        source = Path(__file__).parent / "victims" / "exec_report.c"
        for kind in ("-static", "-static-pie"):
            program = compiled(source, sandbox.workspace / "static", kind)
            command = [str(victims / "exec_attempt"), "path", str(program)]
            assert sandbox.native(command).status == 42
            result = sandbox.run(command, sandbox.policy(policy(program)))
            assert result.status == 42, result.stdout
            assert executed(result)[-1] == str(program)

    def test_another_loader_needs_a_rule(self, sandbox: Sandbox, victims: Path) -> None:
        """The floor refuses it; EACCES is the kernel's own answer, so the decision on the program stays ALLOW."""
        loader = next(path for path in native_arch().loaders if os.path.exists(path))
        other = sandbox.root / "other-loader"
        shutil.copy(os.path.realpath(loader), other)
        other.chmod(0o755)
        source = Path(__file__).parent / "victims" / "exec_report.c"
        program = compiled(source, sandbox.workspace / "odd", f"-Wl,--dynamic-linker={other}")
        command = [str(victims / "exec_attempt"), "path", str(program)]
        assert sandbox.native(command).status == 42
        assert sandbox.run(command, sandbox.policy(policy(program, other))).status == 42
        result = sandbox.run(command, sandbox.policy(policy(program)))
        assert (result.status, result.stdout) == (9, "exec EACCES\n")
        assert executed(result) == [str(victims / "exec_attempt")]

    def test_a_blocked_program_is_no_loader(self, sandbox: Sandbox, victims: Path) -> None:
        """The floor cannot take a file out of a directory that it grants; the exec stop can."""
        blocked = compiled(Path(__file__).parent / "victims" / "exec_report.c", sandbox.root / "blocked", "-static-pie")
        command = [str(victims / "exec_attempt"), "path", str(sandbox.workspace / "odd")]
        source = Path(__file__).parent / "victims" / "exec_report.c"
        compiled(source, sandbox.workspace / "odd", f"-Wl,--dynamic-linker={blocked}")
        allowed = policy("${workspace}/**", f"{sandbox.root}/**")
        ran = sandbox.run(command, sandbox.policy(allowed))
        # What natively happens with a program in the loader's place is the program's affair: it runs first.
        assert ran.status == sandbox.native(command).status
        assert executed(ran)[-1] == str(sandbox.workspace / "odd")
        shut = f"block:\n  - {{id: shut, exec: {{paths: ['{blocked}']}}}}\n"
        result = sandbox.run(command, sandbox.policy(allowed + shut))
        assert result.status == -9
        (denied,) = result.denials("exec")
        assert (denied["reason"], denied["action"]) == ("EXEC_MISMATCH", "kill")
        assert str(blocked) in denied["detail"]

    def test_preloaded_code_has_no_more_authority(self, sandbox: Sandbox) -> None:
        """LD_PRELOAD of a library from the workspace works, as a library there may be read; its calls are judged."""
        (sandbox.workspace / "hook.c").write_text(
            "#include <fcntl.h>\n#include <stdio.h>\n#include <errno.h>\n"
            "__attribute__((constructor)) static void hook(void)\n"
            '{ int f = open("/etc/shadow", O_RDONLY); printf("hook %d\\n", f < 0 ? errno : 0); fflush(stdout); }\n'
        )
        compiled(sandbox.workspace / "hook.c", sandbox.workspace / "hook.so", "-shared", "-fPIC")
        command = ["env", f"LD_PRELOAD={sandbox.workspace}/hook.so", "true"]
        assert sandbox.native(command).stdout == ("hook 0\n" if sandbox.uid == 0 else "hook 13\n")
        result = sandbox.run(command)
        assert result.stdout == "hook 13\n"
        assert result.denials("file.read")[0]["target"] == "/etc/shadow"


def test_two_hundred_at_once(sandbox: Sandbox, victims: Path) -> None:
    command = [str(victims / "exec_attempt"), "crowd", "200", str(victims / "exec_report")]
    result = sandbox.run(command, sandbox.policy(policy(victims / "exec_report")))
    assert "good 200" in result.stderr
    assert executed(result).count(str(victims / "exec_report")) == 200
    assert len([record for record in result.records if record.get("ops") == ["exec"]]) == 201
    denied = sandbox.run(command, sandbox.policy(policy()))
    assert "good 0" in denied.stderr
    assert len(denied.denials("exec")) == 200
