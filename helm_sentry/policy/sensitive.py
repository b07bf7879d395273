"""What nobody grants without meaning to: secrets by the names they are kept under, and doors to the host. Pure."""

import re
from collections.abc import Mapping
from types import MappingProxyType

from helm_sentry.operation import Kind, Operation

CHANGES = frozenset(
    {
        Kind.FILE_WRITE,
        Kind.FILE_CREATE,
        Kind.FILE_DELETE,
        Kind.FILE_RENAME,
        Kind.FILE_LINK,
        Kind.FILE_TRUNCATE,
        Kind.FILE_CHMOD,
        Kind.FILE_CHOWN,
        Kind.FILE_XATTR,
        Kind.FILE_UTIME,
        Kind.FILE_MKNOD,
    }
)
"""File operations that change something."""

SECRET_NAMES: Mapping[str, str] = MappingProxyType(
    {
        ".env": "settings that tend to hold keys",
        ".env.*": "settings that tend to hold keys",
        "id_rsa": "a private key",
        "id_dsa": "a private key",
        "id_ecdsa": "a private key",
        "id_ed25519": "a private key",
        "*.key": "a private key",
        "*.p12": "a private key",
        "*.pfx": "a private key",
        "*.kdbx": "a password store",
        ".netrc": "passwords",
        ".pgpass": "passwords",
        ".htpasswd": "passwords",
        ".git-credentials": "passwords",
        ".npmrc": "a registry token",
        ".pypirc": "a registry token",
        "credentials": "credentials",
        "credentials.json": "credentials",
        ".credentials.json": "credentials",
        "token": "a token",
        "*.token": "a token",
        "auth.json": "a token",
        "secrets.*": "secrets",
    }
)
"""File names, as patterns, that secrets are kept under wherever they are, and what they hold."""

_HARMLESS = re.compile(r"\.env\.(example|sample|template|dist|test)|.*\.pub")
_NAMES = [(re.compile(re.escape(name).replace(r"\*", ".*")), what) for name, what in SECRET_NAMES.items()]
_PEM = re.compile(r"(?!.*(cert|ca-|chain|bundle|pub)).*\.pem")

_PLACES = [
    (re.compile(text), what)
    for text, what in (
        (r"/etc/g?shadow-?", "password hashes"),
        (r"/etc/sudoers(\.d/.*)?", "who may become root"),
        (r"/etc/ssh/ssh_host_\w+_key", "a private key"),
        (r"/etc/(ssl|pki/tls)/private/.*", "a private key"),
        (r"/etc/krb5\.keytab", "a private key"),
        (r"/(var/)?run/secrets(/.*)?", "secrets of the container"),
        (r"/proc/(?!self/)[^/]+/(environ|mem|maps)", "another process's memory"),
        (r"/dev/(mem|kmem|port)|/proc/(kcore|kallsyms)", "the machine's memory"),
        (r".*/\.(ssh|gnupg|aws|azure|kube|password-store)/.*", "keys and tokens"),
        (r".*/\.config/(gcloud|gh|op|doctl)/.*", "tokens"),
        (r".*/\.docker/config\.json", "registry tokens"),
        (r".*/\.local/share/keyrings/.*", "a key ring"),
        (r".*/\.mozilla/.*", "a browser profile"),
        (r".*/\.config/(google-chrome|chromium|BraveSoftware|microsoft-edge|vivaldi|opera)/.*", "a browser profile"),
        (r".*/\.(bash|zsh|python|psql|mysql)_history", "what a person typed"),
        (r".*/\.local/(share/fish/fish_history|state/helm-sentry/.*)", "what a person typed or signs with"),
        (r".*/\.(claude|codex|gemini|cursor)/.*(credential|auth|token).*", "a token"),
    )
]

_SOCKETS = [
    (re.compile(text), what)
    for text, what in (
        (r".*/(docker|podman|containerd|crio|libvirt-sock)[^/]*(\.sock)?", "starts containers with any authority"),
        (r"/(var/)?run/(docker|podman|containerd|crio|libvirt)/.*", "starts containers with any authority"),
        (r"/(var/)?run/dbus/.*|/run/user/[^/]+/bus", "D-Bus: services of the host act for whoever connects"),
        (r"/run/systemd/private|/run/user/[^/]+/systemd/.*", "starts services"),
        (r".*/ssh-[^/]*/.*|.*/(S\.gpg-agent|agent\.)[^/]*|.*/keyring/.*", "signs with the user's keys"),
        (r".*/\.X11-unix/.*|/run/user/[^/]+/wayland-.*", "reads the screen and types"),
    )
]

_START_UP = re.compile(
    r".*/\.(bashrc|bash_profile|bash_login|bash_logout|profile|zshrc|zshenv|zprofile|zlogin|inputrc|gitconfig|vimrc"
    r"|ssh/(config|rc|authorized_keys)|config/(fish/.*|git/config|autostart/.*|systemd/user/.*))"
    r"|/etc/(profile|bash\.bashrc|environment|crontab|ld\.so\.preload)|/etc/(profile\.d|cron[^/]*|systemd/system)/.*"
)
_METADATA = frozenset({"169.254.169.254", "fd00:ec2::254", "169.254.170.2", "100.100.100.200"})


def secret(path: str) -> str:
    """Return what a file at this path probably holds that is secret; empty for any other file."""
    for place, what in _PLACES:
        if place.fullmatch(path):
            return what
    name = path.rpartition("/")[2]
    if _HARMLESS.fullmatch(name):
        return ""
    return next(
        (what for known, what in _NAMES if known.fullmatch(name)), "a private key" if _PEM.fullmatch(name) else ""
    )


def danger(operation: Operation) -> str:
    """Return why an operation gives more than it seems to; empty when it does not."""
    kind, path = operation.kind, operation.path
    if kind in (Kind.UNIX_CONNECT, Kind.UNIX_BIND):
        return next((what for known, what in _SOCKETS if known.fullmatch(path)), "")
    if operation.address in _METADATA:
        return "the cloud's metadata service hands out the machine's credentials"
    if kind is Kind.FILE_READ and (what := secret(path)):
        return f"holds {what}"
    if kind in CHANGES and _START_UP.fullmatch(path):
        return "a start-up file: what stands in it runs outside of any run"
    if kind in CHANGES and (what := secret(path)):
        return f"holds {what}"
    return ""
