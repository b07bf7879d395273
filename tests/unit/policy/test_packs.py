"""The shipped packs: each loads, says what it gives, gives that, and withholds the rest."""

import os
import re

import pytest

from helm_sentry.decision import Reason
from helm_sentry.operation import Kind, Operation
from helm_sentry.policy.engine import compile_policy, decide
from helm_sentry.policy.loader import load, load_file, shipped_packs
from helm_sentry.policy.model import KernelMatch, SocketMatch

RUN = {
    "workspace": "/home/u/project",
    "home": "/home/u",
    "tmp": "/tmp/helm-sentry-x",
    "user": "u",
    "program": "/usr/bin/python3.11",
}

PACKS = ("base", "build", "default", "git", "node", "python", "shell")


def on(kind: str, path: str, **fields: object) -> Operation:
    return Operation(Kind(kind), path=path, **fields)


def loopback(kind: str, **fields: object) -> Operation:
    return Operation(Kind(kind), **{"address": "127.0.0.1", "port": 8080, "protocol": "tcp"} | fields)


def test_these_packs_are_shipped():
    assert set(PACKS) <= set(shipped_packs())


@pytest.mark.parametrize("name", shipped_packs())
class TestEveryPack:
    """What holds for each pack that is shipped, whichever they are."""

    def test_loads_under_its_own_name(self, name):
        policy = load_file(name, RUN)
        assert policy.name == name
        compile_policy(policy)

    def test_opens_with_its_intent(self, name):
        comment = re.match(r"(#.*\n)+", shipped_packs()[name])[0]
        assert comment.startswith(f"# {name}: ")
        assert "\n# Gives: " in comment
        assert "\n# Does not give: " in comment

    def test_lines_fit(self, name):
        assert max(map(len, shipped_packs()[name].splitlines())) <= 120

    def test_loads_in_a_workspace_with_an_odd_name(self, name):
        odd = {key: f"/a [b]*\\ {key}\n\udcff" for key in RUN} | {"tmp": "/tmp/ü ${x}"}
        compile_policy(load_file(name, odd))

    def test_gives_no_network_and_no_kernel(self, name):
        policy = compile_policy(load_file(name, RUN))
        for kind in ("net.connect", "net.send", "net.bind"):
            assert not decide(policy, loopback(kind, address="203.0.113.9")).allowed
            assert not decide(policy, loopback(kind, address="0.0.0.0")).allowed
        for rule in policy.policy.allow:
            assert not isinstance(rule.match, SocketMatch)
            assert not isinstance(rule.match, KernelMatch)

    @pytest.mark.parametrize(
        "operation",
        [
            on("file.write", "/etc/passwd"),
            on("file.write", "/usr/bin/python3.11"),
            on("file.create", "/usr/lib/python3/dist-packages/x.pth"),
            on("file.create", "/etc/ld.so.preload"),
            on("file.delete", "/usr/bin/git"),
            on("file.rename", "/usr/bin/git", directory=True),
            on("file.read", "/etc/shadow"),
            on("file.read", "/home/u/.ssh/id_ed25519"),
            on("file.read", "/home/u/.npmrc"),
            on("file.read", "/home/u/.git-credentials"),
            on("file.read", "/home/u/.config/git/credentials"),
            on("file.read", "/home/u/.bashrc"),
            on("file.list", "/home/u"),
            on("file.read", "/home/other/x"),
            on("file.read", "/etc/ssl/private/key.pem"),
            on("file.write", "/proc/self/mem"),
            on("file.read", "/proc/1/environ"),
            on("file.read", "/proc/kcore"),
            on("file.read", "/dev/sda"),
            on("file.mknod", "/home/u/project/device"),
            on("exec", "/usr/bin/curl"),
            on("exec", "/usr/bin/ssh"),
            on("exec", "/usr/bin/sudo"),
            on("exec", "/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"),
            on("unix.connect", "/run/docker.sock"),
            on("unix.connect", "/run/user/1000/bus"),
            on("unix.connect", ""),
        ],
        ids=lambda operation: f"{operation.kind} {operation.path}",
    )
    def test_withholds(self, name, operation):
        assert not decide(compile_policy(load_file(name, RUN)), operation).allowed


@pytest.mark.parametrize(
    ("name", "operation", "rule"),
    [
        ("base", on("file.read", "/usr/lib/x86_64-linux-gnu/libc.so.6"), "libraries"),
        ("base", on("file.read", "/lib/ld-linux-aarch64.so.1"), "libraries"),
        ("base", on("file.read", "/etc/ld.so.cache"), "loader"),
        ("base", on("file.read", "/usr/share/zoneinfo/UTC"), "shared-data"),
        ("base", on("file.list", "/usr/bin"), "programs-as-files"),
        ("base", on("file.read", "/etc/nsswitch.conf"), "names"),
        ("base", on("file.read", "/run/systemd/resolve/stub-resolv.conf"), "names"),
        ("base", on("file.read", "/etc/ssl/certs/ca-certificates.crt"), "certificates"),
        ("base", on("file.read", "/proc/self/status"), "own-processes"),
        ("base", on("file.read", "/proc/self/task/7/comm"), "own-processes"),
        ("base", on("file.read", "/proc/sys/kernel/random/boot_id"), "machine"),
        ("base", on("file.read", "/sys/devices/system/cpu/online"), "machine"),
        ("base", on("file.write", "/dev/null"), "devices"),
        ("base", on("file.truncate", "/dev/null"), "devices"),
        ("base", on("file.read", "/dev/urandom"), "devices"),
        ("base", on("file.write", "/dev/tty"), "terminals"),
        ("base", on("file.stat", "/etc"), None),
        ("shell", on("exec", "/usr/bin/dash"), "shells"),
        ("shell", on("exec", "/bin/busybox"), "shells"),
        ("shell", on("exec", "/usr/bin/["), "coreutils"),
        ("shell", on("exec", "/usr/bin/mawk"), "text-tools"),
        ("python", on("exec", "/usr/bin/python3.11"), "interpreters"),
        ("python", on("exec", "/usr/local/bin/python3"), "interpreters"),
        ("python", on("file.read", "/home/u/.pyenv/versions/3.12.1/lib/python3.12/os.py"), "user-packages"),
        ("python", on("exec", "/home/u/.pyenv/versions/3.12.1/bin/python3.12"), "user-interpreters"),
        ("python", on("file.read", "/home/u/project/.venv/pyvenv.cfg"), "virtual-environments"),
        ("python", on("exec", "/home/u/project/venv/bin/pip"), "virtual-environment-programs"),
        ("python", on("file.create", "/dev/shm/sem.Xa8dq2"), "shared-memory"),
        ("python", on("file.link", "/dev/shm/sem.Xa8dq2"), "shared-memory"),
        ("python", on("file.create", "/dev/shm/sem.mp-k1x"), "shared-memory"),
        ("python", on("file.truncate", "/dev/shm/psm_1f2e"), "shared-memory"),
        ("python", on("file.delete", "/dev/shm/pym-12-ab"), "shared-memory"),
        ("node", on("exec", "/usr/bin/node"), "interpreters"),
        ("node", on("exec", "/usr/lib/node_modules/npm/bin/npm-cli.js"), "package-managers"),
        ("node", on("exec", "/home/u/.nvm/versions/node/v20.1.0/bin/node"), "user-interpreters"),
        ("git", on("exec", "/usr/bin/git"), "programs"),
        ("git", on("exec", "/usr/lib/git-core/git-remote-https"), "programs"),
        ("git", on("file.read", "/home/u/.gitconfig"), "settings"),
        ("build", on("exec", "/usr/bin/x86_64-linux-gnu-gcc-12"), "tools"),
        ("build", on("exec", "/usr/bin/aarch64-linux-gnu-ld.bfd"), "tools"),
        ("build", on("exec", "/usr/lib/gcc/x86_64-linux-gnu/12/cc1"), "compilers"),
        ("build", on("file.read", "/usr/include/stdio.h"), "headers"),
        ("default", on("exec", "/usr/bin/bash"), "shell/shells"),
        ("default", on("exec", "/usr/bin/git"), "git/programs"),
        ("default", on("file.create", "/home/u/project/.git/hooks/pre-commit"), "workspace"),
        ("default", on("file.rename", "/home/u/project/src", directory=True), "workspace"),
        ("default", on("exec", "/home/u/project/run.sh"), "own-programs"),
        ("default", on("file.write", "/tmp/helm-sentry-x/a/b"), "temporary-files"),
        ("default", loopback("net.bind"), "own-servers"),
        ("default", loopback("net.bind", address="::1", port=0), "own-servers"),
        ("default", loopback("net.connect", own=True), "own-clients"),
        ("default", on("unix.bind", "/home/u/project/s.sock"), "own-sockets"),
    ],
)
def test_gives(name, operation, rule):
    decision = decide(compile_policy(load_file(name, RUN)), operation)
    assert decision.reason is Reason.RULE
    assert rule is None or decision.rule == rule


def test_python_alone_gives_no_program_but_python():
    policy = compile_policy(load_file("python", RUN))
    for path in ("/usr/bin/bash", "/usr/bin/git", "/usr/bin/pipewire", "/home/u/project/run.sh", "/home/u/bin/x"):
        assert not decide(policy, on("exec", path)).allowed


def test_default_withholds_somebody_elses_loopback_server():
    policy = compile_policy(load_file("default", RUN))
    assert decide(policy, loopback("net.connect")).reason is Reason.DEFAULT


class TestBlocksOfDefault:
    """Block rules outlive a policy that opens everything."""

    policy = compile_policy(
        load(
            "schema: helm-sentry/policy/v1\nname: open\nextends: [default]\nallow:\n"
            "  - {id: files, file: {do: [all], paths: ['/**']}}\n"
            "  - {id: sockets, unix: {do: [connect, bind], paths: ['/**']}}\n",
            "open.yaml",
            RUN,
        )
    )

    @pytest.mark.parametrize(
        ("operation", "rule"),
        [
            (on("file.read", "/home/u/.ssh/id_rsa"), "default/user-keys"),
            (on("file.stat", "/home/u/.aws/credentials"), "default/user-keys"),
            (on("file.link", "/home/u/.netrc"), "default/user-keys"),
            (on("file.rename", "/home/u/.gnupg", directory=True), "default/user-keys"),
            (on("file.rename", "/home/u", directory=True), "default/user-history"),
            (on("file.read", "/home/u/.bash_history"), "default/user-history"),
            (on("file.read", "/etc/shadow-"), "default/system-keys"),
            (on("file.rename", "/etc", directory=True), "default/system-keys"),
            (on("file.read", "/proc/kcore"), "default/raw-memory"),
            (on("unix.connect", "/run/docker.sock"), "default/services-of-the-host"),
            (on("unix.connect", "/tmp/ssh-Ab12/agent.7"), "default/services-of-the-host"),
        ],
        ids=lambda value: value if isinstance(value, str) else f"{value.kind} {value.path}",
    )
    def test_hold(self, operation, rule):
        decision = decide(self.policy, operation)
        assert (decision.reason, decision.rule) == (Reason.BLOCK, rule)

    @pytest.mark.parametrize(
        "operation",
        [
            on("file.rename", "/home/u/project", directory=True),
            on("file.rename", "/home/u/project/src", directory=True),
            on("file.create", "/home/u/project/src", directory=True),
            on("file.delete", "/tmp/helm-sentry-x/d", directory=True),
            on("file.read", "/home/u/.gitconfig"),
        ],
        ids=lambda operation: f"{operation.kind} {operation.path}",
    )
    def test_do_not_reach_into_the_workspace(self, operation):
        assert decide(self.policy, operation).allowed


def test_default_environment():
    selected = load_file("default", RUN).environment.select(
        {"PATH": "/usr/bin", "HOME": "/home/u", "LC_TIME": "C", "AWS_SECRET_ACCESS_KEY": "x", "SSH_AUTH_SOCK": "/x"}
    )
    assert selected["TMPDIR"] == "/tmp/helm-sentry-x"
    assert (selected["PATH"], selected["HOME"], selected["LC_TIME"]) == ("/usr/bin", "/home/u", "C")
    assert not {"AWS_SECRET_ACCESS_KEY", "SSH_AUTH_SOCK"} & set(selected)


@pytest.mark.skipif(not os.path.exists("/usr/bin/git"), reason="needs git")
def test_rules_name_real_files():
    """A rule for a link would never be met: operations name what the link leads to."""
    policy = compile_policy(load_file("default", RUN))
    for program in ("git", "sh", "awk", "which", "cc", "python3"):
        path = os.path.realpath(f"/usr/bin/{program}")
        if path.startswith("/usr/bin/") and os.path.exists(path):
            assert decide(policy, on("exec", path)).allowed, path
