"""The list of callers: who may do what to agents of which role."""

import os
import pwd
from pathlib import Path

import pytest

from helm_sentry.control.peer import Peer
from helm_sentry.errors import PolicyError
from helm_sentry.rpc.callers import EVERYBODY, Act, Caller, load_callers

HEAD = "schema: helm-sentry/callers/v1\n"
USER = pwd.getpwnam("daemon")
OWN = Caller(Peer(1, os.geteuid()))
ROOT = Caller(Peer(1, 0))
NAMED = Caller(Peer(1, USER.pw_uid))
STRANGER = Caller(Peer(1, USER.pw_uid + 1))
CERTIFIED = Caller(Peer(0, -1), "ops.example", "ipv4:127.0.0.1:9")


def listed(tmp_path: Path, text: str):
    (tmp_path / "callers.yaml").write_text(HEAD + text)
    return load_callers(str(tmp_path / "callers.yaml"))


def test_without_a_list_whoever_is_let_in_may_do_everything():
    assert all(EVERYBODY.allows(caller, act, "x") for caller in (OWN, ROOT, NAMED, CERTIFIED) for act in Act)
    assert EVERYBODY.users == frozenset()


def test_an_entry_is_for_its_callers_its_roles_and_its_acts(tmp_path):
    callers = listed(tmp_path, "callers: [{users: [daemon], roles: [a, b], may: [watch, approve]}]")
    allowed = {(act, role) for act in Act for role in ("a", "b", "c", "") if callers.allows(NAMED, act, role)}
    assert allowed == {(act, role) for act in (Act.WATCH, Act.APPROVE) for role in ("a", "b")}
    assert not any(callers.allows(caller, act, "a") for caller in (STRANGER, CERTIFIED) for act in Act)
    assert callers.users == {USER.pw_uid}


def test_an_entry_without_roles_is_for_any(tmp_path):
    callers = listed(tmp_path, "callers: [{certificates: [ops.example], may: kill}]")
    assert all(callers.allows(CERTIFIED, Act.KILL, role) for role in ("", "a"))
    assert not callers.allows(CERTIFIED, Act.WATCH, "a")


def test_rules_are_about_answers_alone(tmp_path):
    callers = listed(tmp_path, "callers: [{users: [daemon], rules: [deploy], may: [watch, approve]}]")
    assert callers.allows(NAMED, Act.APPROVE, "a", "deploy")
    assert not any(callers.allows(NAMED, Act.APPROVE, "a", rule) for rule in ("", "other"))
    assert callers.allows(NAMED, Act.APPROVE, "a")  # some question
    assert callers.allows(NAMED, Act.WATCH, "a")


def test_names_of_users_and_of_certificates_are_not_mixed_up(tmp_path):
    callers = listed(tmp_path, "callers: [{users: [daemon], may: [kill]}]")
    assert not callers.allows(Caller(Peer(0, USER.pw_uid), "daemon", "ipv4:127.0.0.1:9"), Act.KILL, "")
    callers = listed(tmp_path, "callers: [{certificates: [daemon], may: [kill]}]")
    assert not callers.allows(Caller(Peer(1, USER.pw_uid)), Act.KILL, "")
    assert not callers.allows(Caller(Peer(1, USER.pw_uid), "daemon"), Act.KILL, "")


def test_the_daemons_own_user_and_root_may_do_everything(tmp_path):
    callers = listed(tmp_path, "callers: []")
    assert all(callers.allows(caller, act, "x") for caller in (OWN, ROOT) for act in Act)
    assert not callers.allows(Caller(Peer(0, 0), "root", "ipv4:127.0.0.1:9"), Act.WATCH, "")


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "`callers` is missing"),
        ("callers: [{may: [watch]}]", 2, "names nobody"),
        ("callers:\n  - users: [daemon]", 3, "`may` is missing"),
        ("callers:\n  - {users: [daemon], may: [rule]}", 3, "unknown act `rule`"),
        ("callers:\n  - {users: [no-such-user], may: [watch]}", 3, "there is no user `no-such-user`"),
        ("callers:\n  - {users: [daemon], may: [watch], role: [x]}", 3, "unknown key `role`"),
        ("callers:\n  - {users: [daemon], may: [watch], roles: []}", 3, "`roles` is empty"),
    ],
)
def test_a_mistake_is_answered_with_its_place(tmp_path, text, line, message):
    with pytest.raises(PolicyError, match=message) as caught:
        listed(tmp_path, text)
    assert caught.value.line == line


def test_another_schema_is_refused(tmp_path):
    (tmp_path / "x.yaml").write_text("schema: helm-sentry/callers/v2\ncallers: []\n")
    with pytest.raises(PolicyError, match="unknown schema"):
        load_callers(str(tmp_path / "x.yaml"))
