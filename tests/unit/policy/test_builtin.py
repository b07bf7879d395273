"""The supervisor's own files stay out of reach, whatever a policy allows and whatever they are called."""

import pytest

from helm_sentry.operation import Kind, Operation
from helm_sentry.policy.builtin import with_builtin_rules
from helm_sentry.policy.engine import compile_policy, decide
from helm_sentry.policy.loader import load

ALLOW_ALL = (
    "schema: helm-sentry/policy/v1\nname: all\nallow:\n  - id: all\n    file: {do: [all, mknod], paths: ['/**']}\n"
)


@pytest.mark.parametrize("name", ["/state", "/st[a]te*", "/back\\slash"])
@pytest.mark.parametrize("kind", [kind for kind in Kind if kind.startswith("file.")])
def test_the_state_directory_is_closed(name: str, kind: Kind) -> None:
    policy = compile_policy(with_builtin_rules(load(ALLOW_ALL), (name,), ()))
    assert decide(policy, Operation(kind, path="/elsewhere")).allowed
    assert not decide(policy, Operation(kind, path=f"{name}/keys/signing.key")).allowed


@pytest.mark.parametrize(
    "kind", [Kind.FILE_WRITE, Kind.FILE_CREATE, Kind.FILE_DELETE, Kind.FILE_RENAME, Kind.FILE_CHMOD]
)
def test_the_policy_file_cannot_be_changed(kind: Kind) -> None:
    policy = compile_policy(with_builtin_rules(load(ALLOW_ALL), (), ("/srv/policy.yaml",)))
    assert not decide(policy, Operation(kind, path="/srv/policy.yaml")).allowed
    assert decide(policy, Operation(Kind.FILE_READ, path="/srv/policy.yaml")).allowed


def test_a_directory_above_cannot_be_moved_away() -> None:
    policy = compile_policy(with_builtin_rules(load(ALLOW_ALL), ("/srv/state",), ()))
    assert not decide(policy, Operation(Kind.FILE_RENAME, path="/srv", directory=True)).allowed
