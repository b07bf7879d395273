"""What is never granted by accident."""

import pytest

from helm_sentry.operation import Kind, Operation
from helm_sentry.policy.sensitive import danger, secret


@pytest.mark.parametrize(
    "path",
    ["/etc/shadow", "/etc/gshadow-", "/etc/sudoers.d/x", "/etc/ssh/ssh_host_rsa_key", "/etc/ssl/private/a",
     "/home/u/.ssh/id_rsa", "/home/u/.ssh/config", "/root/.aws/credentials", "/home/u/.config/gcloud/x",
     "/home/u/.mozilla/firefox/p/logins.json", "/home/u/.config/chromium/Default/Cookies", "/w/.env", "/w/.env.local",
     "/w/deploy.key", "/w/server.pem", "/w/.npmrc", "/w/.netrc", "/run/secrets/token", "/home/u/.bash_history",
     "/proc/1/environ", "/dev/mem", "/home/u/.codex/auth.json", "/home/u/.claude/.credentials.json",
     "/home/u/.docker/config.json", "/home/u/.local/state/helm-sentry/keys/signing.key"],
)  # fmt: skip
def test_secrets(path: str) -> None:
    assert secret(path)
    assert danger(Operation(Kind.FILE_READ, path=path)).startswith("holds ")
    assert danger(Operation(Kind.FILE_WRITE, path=path))


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "/w/.env.example", "/w/id_rsa.pub", "/usr/lib/python3/certifi/cacert.pem", "/w/ca-chain.pem",
     "/w/main.py", "/w/keyboard", "/proc/self/environ", "/home/u/.config/app/settings"],
)  # fmt: skip
def test_no_secrets(path: str) -> None:
    assert not secret(path)
    assert not danger(Operation(Kind.FILE_READ, path=path))


@pytest.mark.parametrize(
    ("operation", "words"),
    [
        (Operation(Kind.UNIX_CONNECT, path="/var/run/docker.sock"), "containers"),
        (Operation(Kind.UNIX_CONNECT, path="/run/user/1000/bus"), "D-Bus"),
        (Operation(Kind.UNIX_CONNECT, path="/tmp/ssh-a/agent.1"), "signs"),
        (Operation(Kind.NET_CONNECT, address="169.254.169.254", port=80, protocol="tcp"), "credentials"),
        (Operation(Kind.FILE_WRITE, path="/home/u/.bashrc"), "start-up"),
        (Operation(Kind.FILE_CREATE, path="/home/u/.ssh/authorized_keys"), "start-up"),
        (Operation(Kind.FILE_CREATE, path="/etc/cron.d/x"), "start-up"),
    ],
)
def test_doors(operation: Operation, words: str) -> None:
    assert words in danger(operation)


@pytest.mark.parametrize(
    "operation",
    [
        Operation(Kind.FILE_READ, path="/home/u/.bashrc"),
        Operation(Kind.UNIX_CONNECT, path="/w/own.sock"),
        Operation(Kind.NET_CONNECT, address="10.0.0.1", port=80, protocol="tcp"),
        Operation(Kind.FILE_STAT, path="/etc/shadow"),
    ],
)
def test_no_doors(operation: Operation) -> None:
    assert danger(operation) == ""
