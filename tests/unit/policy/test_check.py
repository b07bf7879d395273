"""`policy check`: every error with its place, and what is allowed that may not be meant."""

import pytest

from helm_sentry.policy import check, document
from helm_sentry.policy.loader import load
from tests.unit.policy.runs import VARIABLES

HEAD = "schema: helm-sentry/policy/v1\nname: p\n"


def errors(text: str) -> list[str]:
    return [str(each) for each in check.errors(text, "p.yaml", VARIABLES)]


def warnings(text: str, links: dict[str, str] | None = None) -> list[str]:
    policy = load(HEAD + text, "p.yaml", VARIABLES)
    found = check.warnings(policy, HEAD + text, VARIABLES, lambda path: (links or {}).get(path, path))
    return [str(each) for each in found]


def test_every_error_is_found_with_its_place() -> None:
    text = """schema: helm-sentry/policy/v1
name: p
variables: {data: '${none}', x: /srv}
allow:
  - id: one
    file: {do: [reed], paths: [/srv]}
  - id: two
    file: {do: [read], paths: ['${x}/**', 'rel/path']}
  - {id: three, connect: {hosts: [a.b], ports: [99999]}}
  - {id: four, file: {do: [read], paths: ['${data}/x']}}
  - {id: fine, file: {do: [read], paths: [/home/**]}}
limits: {memory: lots, wall_time: 10m}
envronment: {}
"""
    assert errors(text) == [
        "p.yaml:13:1: unknown key `envronment`; did you mean `environment`?",
        "p.yaml:3:19: unknown variable `none`; write one of workspace, home, tmp, user, program",
        "p.yaml:6:17: unknown verb `reed`; did you mean `read`?",
        "p.yaml:8:43: path `rel/path` is not absolute; begin it with `/` or `${workspace}/`",
        "p.yaml:9:49: port `99999` is not in the range 0 to 65535",
        "p.yaml:12:18: `lots` is not a size; write a whole number with B, KiB, MiB, GiB or TiB, such as `2GiB`",
    ]


def test_a_policy_without_errors() -> None:
    assert errors(HEAD) == []


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("- a", id="a list"),
        pytest.param("schema: [", id="no yaml"),
        pytest.param("name: p", id="no schema"),
        pytest.param(HEAD + "extends: [nothing-of-this-name]", id="unknown pack"),
        pytest.param(HEAD + "allow: x", id="not a list of rules"),
        pytest.param(HEAD + "allow:\n  - x\n", id="a rule that is none"),
    ],
)
def test_what_cannot_be_read_on_is_one_error(text: str) -> None:
    assert len(errors(text)) == 1


def test_a_file_it_extends_is_named_once(tmp_path) -> None:
    (tmp_path / "part.yaml").write_text(HEAD.replace("name: p", "name: q") + "allow: [{id: a}, {id: b}]\n")
    source = str(tmp_path / "whole.yaml")
    found = check.errors(HEAD + "extends: [./part.yaml]\n", source, VARIABLES)
    assert [error.source for error in found] == [str(tmp_path / "part.yaml")]


def test_places_of_rules() -> None:
    text = HEAD + "allow:\n  - {id: a, file: {do: [read], paths: [/a]}}\nblock:\n  - id: b\n"
    places = check.rule_places(document.parse(text, "p"))
    assert {name: (place.line, place.column) for name, place in places.items()} == {"a": (4, 10), "b": (6, 9)}
    assert check.rule_places(document.parse("[1, 2]", "p")) == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param(
            "allow: [{id: a, file: {do: [read], paths: [/srv/x]}}]\nblock: [{id: b, file: {do: [read], paths: [/srv/**]}}]",
            "rule `a`: never allows anything: block rule `b` refuses all it names",
            id="never",
        ),
        pytest.param(
            "allow: [{id: a, file: {do: [read], paths: [/srv/**]}}, {id: b, file: {do: [read], paths: [/srv/x/**]}}]",
            "rule `b`: adds nothing: `a` decides all of it already",
            id="shadowed",
        ),
        pytest.param(
            "block: [{id: a, connect: {addresses: [10.0.0.0/8]}}, {id: b, connect: {addresses: [10.1.0.0/16]}}]",
            "rule `b`: adds nothing: `a` decides",
            id="shadowed block",
        ),
        pytest.param(
            "allow: [{id: a, file: {do: [read], paths: ['${home}/**']}}]",
            "allows file.read /home/u/.ssh/id_ed25519, file.read /home/u/.aws/credentials: holds keys and tokens",
            id="readable keys",
        ),
        pytest.param(
            "allow: [{id: a, file: {do: [write], paths: ['/home/*/.*']}}]",
            "allows file.write /home/u/.bashrc, file.write /home/u/.profile",
            id="start-up files",
        ),
        pytest.param(
            "allow: [{id: a, unix: {do: [connect], paths: ['/run/**']}}]",
            "unix.connect /run/docker.sock, unix.connect /run/podman/podman.sock: starts containers",
            id="docker",
        ),
        pytest.param(
            "allow: [{id: a, unix: {do: [connect], paths: ['/run/**']}}]",
            "unix.connect /run/dbus/system_bus_socket, unix.connect /run/user/1000/bus: D-Bus",
            id="dbus",
        ),
        pytest.param(
            "allow: [{id: a, connect: {addresses: [any], ports: [80]}}]",
            "net.connect 169.254.169.254:80, net.connect [fd00:ec2::254]:80: the cloud's metadata service",
            id="metadata",
        ),
        pytest.param(
            "allow: [{id: a, exec: {paths: ['/opt/x/*']}}, {id: b, file: {do: [create], paths: ['/opt/**']}}]",
            "rule `a`: `/opt/x/*` may be run and, by rule `b`, changed",
            id="writable program",
        ),
        pytest.param(
            "allow: [{id: a, connect: {hosts: [a.b, '*.b.c', '*.com'], ports: [443]}}, {id: c, kernel: [bpf]}]",
            "rule `a`: wider than it looks: anybody can own a name beneath `*.com`",
            id="a top-level domain",
        ),
    ],
)
def test_warnings(text: str, words: str) -> None:
    found = warnings(text)
    assert any(words in each for each in found), found
    assert all(each.startswith("p.yaml:") for each in found)


def test_rules_of_packs_are_not_reported() -> None:
    assert warnings("extends: [shell]\nblock: [{id: b, exec: {paths: ['/usr/**']}}]\n") == []


def test_a_rule_without_a_sample_is_passed_over() -> None:
    assert warnings("allow: [{id: a, file: {do: [read], paths: ['/srv/[!qzjx7_]']}}]") == []


def test_a_path_through_a_link_is_never_met_here() -> None:
    rule = "{id: a, exec: {paths: [/bin/sh]}}"
    words = "p.yaml:3:14: warning: rule `a`: `/bin/sh` is never met on this host: a link leads to `/usr/bin/dash`"
    assert warnings(f"allow: [{rule}]", {"/bin/sh": "/usr/bin/dash"}) == [words + "; write that"]
    assert warnings(f"block: [{rule}]", {"/bin/sh": "/usr/bin/dash"}) == []
    deep = warnings("allow: [{id: a, file: {do: [read], paths: ['/bin/**']}}]", {"/bin": "/usr/bin"})
    assert "leads to `/usr/bin/**`" in deep[0]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="no rule"),
        pytest.param("allow: [{id: a, file: {do: [read], paths: [/srv/**]}}]", id="plain"),
        pytest.param("allow: [{id: a, file: {do: [read], paths: ['**/x']}}]".replace("**/x", "/**"), id="all"),
        pytest.param("block: [{id: a, exec: {paths: [/srv/x]}}]", id="block"),
        pytest.param(
            "allow: [{id: a, limit: {count: 2}, file: {do: [read], paths: [/a]}}, {id: b, file: {do: [read], paths: [/a]}}]",
            id="a rule with a limit adds something",
        ),
    ],
)
def test_no_warning_about_what_is_meant(text: str) -> None:
    assert not [each for each in warnings(text) if "adds nothing" in each or "never" in each or "changed" in each]


def test_a_hundred_errors_are_enough() -> None:
    rules = "".join(f"  - {{id: r{number}, file: {{do: [reed], paths: [/a]}}}}\n" for number in range(105))
    assert len(errors(HEAD + "allow:\n" + rules)) == 100
