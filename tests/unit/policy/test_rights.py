"""What Landlock can hold of a policy's reading, and why it stays with the broker."""

from dataclasses import replace

import pytest

from helm_sentry.operation import Kind
from helm_sentry.policy.builtin import with_builtin_rules
from helm_sentry.policy.loader import load
from helm_sentry.policy.model import Policy
from helm_sentry.policy.rights import (
    Grant,
    Place,
    everything,
    grants,
    lower_to_hooks,
    lower_to_rights,
    named_paths,
)

NAMES = "  - {id: names, file: {do: [stat], paths: ['/**']}}\n"
DATA = "  - {id: data, file: {do: [read, list], paths: ['/data/**']}}\n"
BOTH = frozenset({Kind.FILE_READ, Kind.FILE_LIST})
PLACES = {
    "/data": Place("/data", directory=True),
    "/data/sub": Place("/data/sub", directory=True),
    "/etc": Place("/etc", directory=True),
    "/etc/hosts": Place("/etc/hosts"),
    "/dev": Place("/dev", directory=True),
    "/dev/null": Place("/dev/null", device=True),
    "/dev/tty": Place("/dev/tty", device=True),
    "/proc": Place("/proc", directory=True),
    "/proc/meminfo": Place("/proc/meminfo"),
    "/": Place("/", directory=True),
    "/lib": Place("/usr/lib", directory=True),
}
STATE = "/root/.local/state/helm-sentry"


def policy(*rules: str, block: str = "") -> Policy:
    text = "schema: helm-sentry/policy/v1\nname: p\nallow:\n" + "".join(rules)
    return with_builtin_rules(load(text + (f"block:\n{block}" if block else "")), (STATE, "/proc/7"), ())


def reading(*paths: str, rule: str = "r", verbs: str = "read") -> str:
    return f"  - {{id: {rule}, file: {{do: [{verbs}], paths: [{', '.join(map(repr, paths))}]}}}}\n"


def why(asked: Policy, kind: Kind = Kind.FILE_READ, floor: tuple[Place, ...] = ()) -> str:
    return lower_to_rights(asked, PLACES, floor).held[kind].reason


def test_files_and_directories_become_rights() -> None:
    asked = policy(
        NAMES, DATA, reading("/etc/hosts", "/dev/null", "/proc/meminfo", "/data/sub/**", "/nowhere", "/lib/**")
    )
    lowered = lower_to_rights(asked, PLACES, [Place("/data/program")])
    assert lowered.kinds == BOTH
    assert named_paths(asked) >= {"/data", "/etc/hosts", "/nowhere"}
    only = frozenset({Kind.FILE_READ})
    assert grants(asked, lowered, PLACES) == (
        Grant("/data", BOTH),
        Grant("/data/sub", only),
        Grant("/dev/null", only, device=True),
        Grant("/etc/hosts", only),
        Grant("/proc/meminfo", only),
    )


@pytest.mark.parametrize(
    ("more", "shortened"),
    [
        pytest.param("", False, id="read only"),
        pytest.param(reading("/data/**", rule="t", verbs="truncate"), True, id="all beneath"),
        pytest.param(reading("/data/sub/**", rule="t", verbs="truncate"), False, id="some beneath"),
        pytest.param(reading("/data", rule="t", verbs="truncate"), False, id="one path"),
        pytest.param(
            reading("/data/**", rule="t", verbs="truncate") + reading("/data/*.x", rule="g", verbs="truncate"),
            True,
            id="a glob within",
        ),
    ],
)
def test_where_all_may_be_truncated_landlock_need_not_look_up_to_the_root(more: str, shortened: bool) -> None:
    asked = policy(NAMES, DATA, more)
    (grant,) = grants(asked, lower_to_rights(asked, PLACES, ()), PLACES)
    assert grant == Grant("/data", BOTH | ({Kind.FILE_TRUNCATE} if shortened else set()))


@pytest.mark.parametrize(
    "limit",
    [
        pytest.param("  - {id: b, file: {do: [truncate], paths: ['/data/x']}}\n", id="blocked within"),
        pytest.param("  - {id: b, file: {do: [truncate], paths: ['/data/*.x']}}\n", id="some blocked within"),
    ],
)
def test_a_block_within_keeps_the_right_to_truncate(limit: str) -> None:
    asked = policy(NAMES, DATA, reading("/data/**", rule="t", verbs="truncate"), block=limit)
    assert grants(asked, lower_to_rights(asked, PLACES, ()), PLACES) == (Grant("/data", BOTH),)


def test_a_limit_keeps_the_right_to_truncate() -> None:
    limited = "  - {id: t, file: {do: [truncate], paths: ['/data/**']}, limit: {count: 1, per: 1m}}\n"
    asked = policy(NAMES, DATA, limited)
    assert grants(asked, lower_to_rights(asked, PLACES, ()), PLACES) == (Grant("/data", BOTH),)


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        pytest.param(policy(DATA), "whether it is there, and no rule", id="names are not public"),
        pytest.param(
            policy(NAMES, DATA, block=reading("/home/**", rule="b", verbs="stat")),
            "`b` blocks `stat`",
            id="some are not",
        ),
        pytest.param(
            policy(NAMES, DATA, block=reading("/data/x", rule="b")), "blocks `/data/x` inside `/data`", id="deny inside"
        ),
        pytest.param(policy(NAMES, reading("/root/**")), "blocks `/root/.local", id="the supervisor's own directory"),
        pytest.param(policy(NAMES, reading("/data/*.txt")), "neither one path nor", id="a glob"),
        pytest.param(policy(NAMES, reading("/proc/self/**")), "which processes are the run's own", id="own processes"),
        pytest.param(policy(NAMES, reading("/proc/12/status")), "reaches processes", id="a process"),
        pytest.param(policy(NAMES, reading("/dev/tty")), "which terminals are the run's", id="a terminal"),
        pytest.param(policy(NAMES, reading("/dev/**")), "reaches `/dev/tty`", id="a directory with terminals"),
        pytest.param(policy(NAMES, reading("/**")), "reaches `/dev/tty`", id="everything"),
        pytest.param(
            policy(NAMES, reading("/new/**"), reading("/new", rule="m", verbs="create")),
            "not there yet and can be made by rule `m`",
            id="absent",
        ),
        pytest.param(
            policy(NAMES, reading("/lib/**"), reading("/lib", rule="m", verbs="rename")),
            "not there yet and can be made by rule `m`",
            id="a link",
        ),
        pytest.param(
            policy(NAMES, reading("/etc/hosts"), "  - {id: h, connect: {hosts: [example.com], ports: [443]}}\n"),
            "`/etc/hosts` is the supervisor's own",
            id="hosts",
        ),
        pytest.param(policy(NAMES, DATA, reading("/etc", verbs="list")), "either, and file.list stays", id="one alone"),
    ],
)
def test_why_reading_stays_with_the_broker(asked: Policy, reason: str) -> None:
    assert reason in why(asked)
    assert not lower_to_rights(asked, PLACES, ()).kinds


def test_a_list_of_one_directory_is_none_of_what_is_beneath() -> None:
    assert "lists `/etc` alone" in why(policy(NAMES, DATA, reading("/etc", verbs="list")), Kind.FILE_LIST)


def test_what_may_be_executed_must_be_readable_by_a_rule() -> None:
    asked = policy(NAMES, DATA)
    assert why(asked, floor=(Place("/data/bin", directory=True), Place("/data/sh"))) == ""
    assert "`/opt/tool` may be executed" in why(asked, floor=(Place("/opt/tool"),))


class TestHooks:
    """Programs at the hooks of security modules know paths, also those that are not there, and blocks inside allows."""

    def test_a_block_inside_is_no_obstacle(self) -> None:
        asked = policy(NAMES, DATA, block="  - {id: no, file: {do: [read, list], paths: [/data/sub]}}\n")
        assert lower_to_hooks(asked).kinds == BOTH
        assert why(asked)  # Landlock cannot

    @pytest.mark.parametrize(
        ("rule", "reason"),
        [
            (reading("/proc/**"), "processes"),
            (reading("/dev/**"), "terminals"),
            (reading("/dev/tty"), "terminals"),
            (reading("/**") + "  - {id: c, connect: {hosts: [a.example]}}\n", "/etc/hosts"),
            (reading("/**") + "  - {id: c, connect: {hosts: ['*.a.example']}}\n", "/etc/resolv.conf"),
        ],
    )
    def test_what_the_supervisor_alone_knows_stays_there(self, rule: str, reason: str) -> None:
        lowered = lower_to_hooks(policy(NAMES, DATA, rule))
        assert reason in lowered.held[Kind.FILE_READ].reason
        assert not lowered.kinds
        assert "an open may find either" in lowered.held[Kind.FILE_LIST].reason

    def test_names_that_may_not_be_told(self) -> None:
        assert "whether it is there" in lower_to_hooks(policy(DATA)).held[Kind.FILE_READ].reason

    def test_their_rights_are_all(self) -> None:
        assert everything() == (Grant("/", BOTH, device=True),)


def test_under_a_ceiling_nothing_is_held() -> None:
    asked = policy(NAMES, DATA)
    bounded = replace(asked, within=(asked,))
    for lowered in (lower_to_rights(bounded, PLACES, ()), lower_to_hooks(bounded)):
        assert not lowered.kinds
        assert "ceiling" in lowered.held[Kind.FILE_READ].reason


def test_domains_are_an_obstacle() -> None:
    asked = policy(NAMES, DATA, "  - {id: c, connect: {hosts: ['*.a.example']}}\n")
    assert "/etc/resolv.conf" in why(asked)


def test_a_rule_that_makes_elsewhere_is_none() -> None:
    made = "  - {id: made, file: {do: [create], paths: ['/data/**']}}\n"
    assert not why(policy(NAMES, DATA, made, reading("/nowhere")))
