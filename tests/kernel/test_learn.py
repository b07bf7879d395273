"""`helm-sentry learn`: what was learnt from a run lets the same program run, and nothing else."""

import glob
import subprocess
from pathlib import Path

import pytest

from helm_sentry.policy.loader import load_file
from tests.kernel.conftest import PYTHON, Sandbox

pytestmark = pytest.mark.kernel
PROGRAMS = Path(__file__).parent / "programs"

BUILD = """set -e
rm -rf repo; git clone -q "$1" repo; cd repo; make -s; ./hello; git log --format=%s
"""
HOSTILE_BUILD = (
    BUILD
    + """set +e
echo "$(< ../../diary)"; : > ../../home/.bashrc; /usr/bin/env true
"""
)

VENV = """set -e
rm -rf env
/usr/bin/python3 make_wheel.py
/usr/bin/python3 -m venv --without-pip env
env/bin/python "$1/pip" -q install --no-index ./greeting-1.0-py3-none-any.whl
env/bin/greet || true
"""
HOSTILE_VENV = VENV.replace(
    "env/bin/greet ||",
    """env/bin/python -c "
import socket, os
for act in (lambda: open('../diary'), lambda: socket.create_connection(('127.0.0.1', 9), 1), lambda: os.execv('/usr/bin/env', ['env'])):
    try: act(); print('done')
    except PermissionError: print('refused')
    except ConnectionRefusedError: print('reached')
"
env/bin/greet ||""",
)

NODE = """
import fs from 'node:fs'; import { execFileSync } from 'node:child_process'; import http from 'node:http'; import os from 'node:os';
fs.mkdirSync('out', { recursive: true });
for (let i = 0; i < 12; i++) fs.writeFileSync(`out/r${i}.json`, JSON.stringify({ i }));
fs.writeFileSync(fs.mkdtempSync(os.tmpdir() + '/job-') + '/a', 'x');
console.log(execFileSync('/usr/bin/git', ['--version']).toString().slice(0, 11));
const s = http.createServer((q, r) => r.end('ok')).listen(0, '127.0.0.1', () =>
  http.get({ port: s.address().port, host: '127.0.0.1' }, r => { r.on('data', d => console.log(d.toString())); r.on('end', () => s.close()); }));
"""
HOSTILE_NODE = (
    NODE
    + """
for (const act of [() => fs.readFileSync('../diary'), () => fs.writeFileSync('main2.mjs', ''), () => execFileSync('/usr/bin/env'), () => fs.readFileSync('out/../.env')])
  try { act(); console.log('done'); } catch (e) { console.log('refused', e.code); }
"""
)


def learn(sandbox: Sandbox, command: list[str], name: str, *options: str) -> Path:
    policy = sandbox.root / f"{name}.yaml"
    argv = [*sandbox.command, "learn", "-o", str(sandbox.workspace / f"{name}.yaml"), *options, "--", *command]
    process = sandbox.popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err
    assert f"wrote {sandbox.workspace}/{name}.yaml" in err
    (sandbox.workspace / f"{name}.yaml").rename(policy)
    return policy


def test_git_clone_and_build(sandbox: Sandbox) -> None:
    source = sandbox.root / "home" / "source"
    source.mkdir()
    (source / "hello.c").write_text("int main(void) { return 0; }\n")
    (source / "Makefile").write_text("hello: hello.o\n\t$(CC) -o $@ $<\n")
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "first"]):
        subprocess.run(["git", "-C", str(source), *words], check=True, env={"PATH": "/usr/bin:/bin"})
    subprocess.run(["chown", "-R", str(sandbox.uid), str(source)], check=True)
    (sandbox.root / "diary").write_text("dear diary")
    (sandbox.workspace / "build.sh").write_text(BUILD)
    command = ["bash", "build.sh", str(source)]
    policy = learn(sandbox, command, "build")
    enforced = sandbox.run(command, policy)
    assert (enforced.status, enforced.stdout) == (0, "first\n"), enforced.stderr
    assert not enforced.denials()
    (sandbox.workspace / "build.sh").write_text(HOSTILE_BUILD)
    assert "dear diary" in sandbox.native(command).stdout
    hostile = sandbox.run(command, policy)
    assert "dear diary" not in hostile.stdout
    assert {record["target"] for record in hostile.denials()} >= {
        f"{sandbox.root}/diary", f"{sandbox.root}/home/.bashrc",
    }  # fmt: skip
    assert hostile.denials("exec")


def test_pip_install_into_a_virtual_environment(sandbox: Sandbox) -> None:
    wheels = sorted(
        glob.glob("/usr/share/python-wheels/pip-*.whl") + glob.glob("/usr/lib/python3*/ensurepip/_bundled/pip-*.whl")
    )
    assert wheels, "no pip beside the system's python"
    (sandbox.root / "diary").write_text("dear diary")
    (sandbox.workspace / "make_wheel.py").write_text((PROGRAMS / "make_wheel.py").read_text())
    (sandbox.workspace / "install.sh").write_text(VENV)
    command = ["bash", "install.sh", wheels[-1]]
    policy = learn(sandbox, command, "install")
    enforced = sandbox.run(command, policy)
    assert enforced.status == 0, enforced.stderr
    assert not enforced.denials()
    (sandbox.workspace / "install.sh").write_text(HOSTILE_VENV)
    assert "refused" not in sandbox.native(command).stdout
    hostile = sandbox.run(command, policy)
    assert [line for line in hostile.stdout.splitlines() if line in ("done", "refused", "reached")] == ["refused"] * 3
    assert len(hostile.denials()) >= 3


def test_a_node_script(sandbox: Sandbox) -> None:
    (sandbox.root / "diary").write_text("dear diary")
    (sandbox.workspace / ".env").write_text("KEY=1")
    (sandbox.workspace / "main.mjs").write_text(NODE)
    command = ["node", "main.mjs"]
    policy = learn(sandbox, command, "script")
    enforced = sandbox.run(command, policy)
    assert (enforced.status, enforced.stdout) == (0, "git version\nok\n"), enforced.stderr
    assert not enforced.denials()
    (sandbox.workspace / "main.mjs").write_text(HOSTILE_NODE)
    assert sandbox.native(command).stdout.count("done") == 4
    hostile = sandbox.run(command, policy)
    assert hostile.stdout.count("refused EACCES") == 4, hostile.stdout


def test_secrets_are_listed_and_not_granted(sandbox: Sandbox) -> None:
    key = sandbox.root / "home" / ".ssh" / "id_ed25519"
    key.parent.mkdir()
    key.write_text("secret")
    (sandbox.workspace / ".env").write_text("KEY=1")
    for number in range(10):
        (sandbox.workspace / f"n{number}").write_text("x")
    command = ["sh", "-c", f"cat {key} .env; cat n*; echo made > own.key; cat own.key"]
    policy = learn(sandbox, command, "secretive")
    text = policy.read_text()
    assert f"#   file.read {key}: holds keys and tokens" in text
    assert f"#   file.read {sandbox.workspace}/.env: holds settings that tend to hold keys" in text
    result = sandbox.run(command, policy)
    assert "secret" not in result.stdout and "KEY=1" not in result.stdout
    assert {record["target"] for record in result.denials()} == {str(key), f"{sandbox.workspace}/.env"}
    assert "made" in result.stdout


def test_runs_are_merged_and_say_so(sandbox: Sandbox) -> None:
    first = learn(sandbox, ["sh", "-c", "echo 1 > one"], "first")
    (run,) = sandbox.runs()
    merged = learn(sandbox, ["sh", "-c", "echo 2 > two"], "merged", "--from", str(run))
    for name in ("one", "two"):
        assert sandbox.run(["sh", "-c", f"echo x > {name}"], merged).status == 0
    assert sandbox.run(["sh", "-c", "echo x > two"], first).status != 0
    text = merged.read_text()
    assert "# Learnt from 2 runs:" in text
    assert "in 2 of 2 runs; first: run 1, record" in text
    assert load_file(str(merged), {"workspace": "/w", "tmp": "/t", "home": "/h"}).allow


def test_an_odd_name_stays_a_name(sandbox: Sandbox) -> None:
    name = "a\n# b'* ${tmp} [x]\x1b"
    command = [PYTHON, "-c", f"open({name!r}, 'w').write('x')"]
    policy = learn(sandbox, command, "odd")
    assert sandbox.run(command, policy).status == 0
    assert sandbox.run([PYTHON, "-c", "open('a', 'w')"], policy).status != 0
    assert "\x1b" not in policy.read_text()


def test_an_existing_file_is_not_overwritten(sandbox: Sandbox) -> None:
    there = sandbox.workspace / "there.yaml"
    there.write_text("mine")
    process = sandbox.popen([*sandbox.command, "learn", "-o", str(there), "--", "true"], stderr=subprocess.PIPE)
    assert "exists" in process.communicate(timeout=60)[1]
    assert (process.returncode, there.read_text()) == (2, "mine")
