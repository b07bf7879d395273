"""Policy files to policies: every mistake with its place and a way out, and what `extends` makes of many files."""

import hashlib
import json
import os
from ipaddress import ip_network

import pytest
from hypothesis import given

from helm_sentry.audit.canonical import dumps
from helm_sentry.errors import PolicyError
from helm_sentry.operation import Kind, Operation
from helm_sentry.policy.engine import compile_policy, decide
from helm_sentry.policy.loader import PackDirectory, load, load_file, shipped_packs
from helm_sentry.policy.model import (
    BindMatch,
    ConnectMatch,
    Effect,
    Environment,
    ExecMatch,
    FileMatch,
    KernelMatch,
    Limits,
    Policy,
    Rule,
    SocketMatch,
    UnixMatch,
)
from tests import strategies

HEAD = "schema: helm-sentry/policy/v1\nname: test\n"
RUN = {"workspace": "/w", "home": "/home/u", "tmp": "/tmp/run", "user": "u", "program": "/usr/bin/python3.11"}

PACKS = {
    "base": "schema: helm-sentry/policy/v1\nname: base\nallow: [{id: libs, file: {do: [read], paths: ['/lib/**']}}]\n"
    "agent: {role: none, team: blue}\nlimits: {processes: 8, open_files: 16}\n"
    "environment: {pass: [PATH, TERM], set: {A: base, B: base}}\n",
    "python": "schema: helm-sentry/policy/v1\nname: python\nextends: [base]\n"
    "allow: [{id: run, exec: {paths: [/usr/bin/python3]}}]\nlimits: {processes: 9}\n",
    "circle": "schema: helm-sentry/policy/v1\nname: circle\nextends: [python, round]\n",
    "round": "schema: helm-sentry/policy/v1\nname: round\nextends: [circle]\n",
    "beside": "schema: helm-sentry/policy/v1\nname: beside\nextends: [./other.yaml]\n",
}


def rule(body: str, list_name: str = "allow") -> str:
    return f"{HEAD}{list_name}:\n  - id: it\n    {body}\n"


def loaded(body: str) -> object:
    return load(rule(body), variables=RUN, packs={}).allow[0].match


@pytest.mark.parametrize(
    ("body", "match"),
    [
        ("file: {do: [read, list], paths: [/a]}", FileMatch(frozenset({Kind.FILE_READ, Kind.FILE_LIST}), ("/a",))),
        ("file: {do: read, paths: /a}", FileMatch(frozenset({Kind.FILE_READ}), ("/a",))),
        (
            "file: {do: [all], paths: ['${workspace}/**']}",
            FileMatch(frozenset(k for k in Kind if k.startswith("file.") and k is not Kind.FILE_MKNOD), ("/w/**",)),
        ),
        ("exec: {paths: ['${program}']}", ExecMatch(("/usr/bin/python3.11",))),
        ("connect: {hosts: [API.Example.com.], ports: [443]}", ConnectMatch(("api.example.com",), ports=((443, 443),))),
        ("connect: {hosts: ['*.Example.com.', '*.a']}", ConnectMatch(("*.example.com", "*.a"))),
        (
            "connect: {addresses: [10.0.0.0/8, loopback], ports: [80, '8000-9000'], protocols: [udp]}",
            ConnectMatch(
                (),
                (ip_network("10.0.0.0/8"), ip_network("127.0.0.0/8"), ip_network("::1")),
                ((80, 80), (8000, 9000)),
                frozenset({"udp"}),
            ),
        ),
        ("connect: {addresses: any, ports: any}", ConnectMatch((), (ip_network("0.0.0.0/0"), ip_network("::/0")))),
        ("connect: {own: true}", ConnectMatch(own=True)),
        ("bind: {addresses: [127.0.0.1], ports: [0]}", BindMatch((ip_network("127.0.0.1"),), ((0, 0),))),
        (
            "unix: {do: [connect, bind], paths: ['${tmp}/*.sock']}",
            UnixMatch(frozenset({Kind.UNIX_CONNECT, Kind.UNIX_BIND}), ("/tmp/run/*.sock",)),
        ),
        ("socket: {families: [netlink]}", SocketMatch(("netlink",))),
        ("kernel: [memfd, io_uring]", KernelMatch(frozenset({Kind.KERNEL_MEMFD, Kind.KERNEL_IO_URING}))),
    ],
)
def test_rule_forms(body, match):
    assert loaded(body) == match


def test_all_in_a_block_rule_holds_every_verb():
    (block,) = load(rule("file: {do: [all], paths: [/a]}", "block"), packs={}).block
    assert block == Rule("it", Effect.BLOCK, FileMatch(frozenset(k for k in Kind if k.startswith("file.")), ("/a",)))


def test_top_level_parts():
    policy = load(
        HEAD + "agent: {role: payment_processor}\n"
        "limits: {wall_time: 10m, memory: 2GiB, processes: 64, open_files: 1024, file_size: 1MiB, cpu_time: 1h}\n"
        "environment: {pass: [PATH, 'LC_*'], set: {HOME: '${workspace}', EMPTY: ''}}\n",
        "p.yaml",
        RUN,
    )
    assert policy == Policy(
        "test",
        agent={"role": "payment_processor"},
        limits=Limits(600, 2 * 2**30, 64, 1024, 2**20, 3600),
        environment=Environment(("PATH", "LC_*"), {"HOME": "/w", "EMPTY": ""}),
    )
    assert policy.source == "p.yaml"


def test_environment_selects_by_name_and_glob():
    environment = Environment(("PATH", "LC_*"), {"HOME": "/w"})
    outer = {"PATH": "/bin", "LC_ALL": "C", "HOME": "/root", "TOKEN": "secret", "path": "x"}
    assert environment.select(outer) == {"PATH": "/bin", "LC_ALL": "C", "HOME": "/w"}


def test_json_text_is_read_like_yaml():
    yaml_text = rule("connect: {own: true, ports: [80]}")
    json_text = json.dumps(
        {
            "schema": "helm-sentry/policy/v1",
            "name": "test",
            "allow": [{"id": "it", "connect": {"own": True, "ports": [80]}}],
        }
    )
    assert load(json_text, "p.json") == load(yaml_text, "p.yaml")


@pytest.mark.parametrize(
    ("entry", "source", "message"),
    [
        ("circle", "round", "`circle` extends itself: circle -> round -> circle"),
        ("beside", "beside", "a pack can extend only packs; write a bare name"),
    ],
)
def test_mistake_in_a_pack_names_the_pack(entry, source, message):
    with pytest.raises(PolicyError) as caught:
        load(HEAD + f"extends: [{entry}]\n", "p.yaml", RUN, PACKS)
    assert (caught.value.source, caught.value.line) == (source, 3)
    assert caught.value.message == message


class TestExtends:
    """Packs are merged under their names; the file that extends has the last word."""

    def test_ids_carry_the_name_of_their_pack(self):
        policy = load(HEAD + "extends: [python, base]\nallow: [{id: libs, exec: {paths: [/x]}}]", "p.yaml", RUN, PACKS)
        assert [rule.id for rule in policy.allow] == ["base/libs", "python/run", "libs"]

    def test_later_and_outer_values_win(self):
        policy = load(
            HEAD + "extends: [python]\nagent: {role: tester}\nlimits: {open_files: 32}\n"
            "environment: {pass: [TERM, LANG], set: {B: own}}",
            "p.yaml",
            RUN,
            PACKS,
        )
        assert policy.limits == Limits(processes=9, open_files=32)
        assert policy.agent == {"role": "tester", "team": "blue"}
        assert policy.environment == Environment(("PATH", "TERM", "LANG"), {"A": "base", "B": "own"})
        assert policy.name == "test"

    def test_relative_files_are_found_beside_their_parent(self, tmp_path):
        (tmp_path / "sub").mkdir()
        inner = tmp_path / "sub" / "inner.yaml"
        inner.write_text("schema: helm-sentry/policy/v1\nname: inner\nextends: [../beside.yaml]\n")
        (tmp_path / "beside.yaml").write_text(
            "schema: helm-sentry/policy/v1\nname: beside\nallow: [{id: it, exec: {paths: [/a]}}]\n"
        )
        outer = tmp_path / "outer.yaml"
        outer.write_text(HEAD + "extends: [./sub/inner.yaml, ./beside.yaml]\n")
        assert [rule.id for rule in load_file(str(outer)).allow] == ["beside/it"]

    def test_circle_of_files(self, tmp_path):
        for name, other in (("a", "b"), ("b", "a")):
            (tmp_path / f"{name}.yaml").write_text(
                f"schema: helm-sentry/policy/v1\nname: {name}\nextends: [./{other}.yaml]\n"
            )
        with pytest.raises(PolicyError, match=r"`./a.yaml` extends itself: a.yaml -> b.yaml -> a.yaml"):
            load_file(str(tmp_path / "a.yaml"))

    def test_two_files_of_one_name(self, tmp_path):
        (tmp_path / "x.yaml").write_text("schema: helm-sentry/policy/v1\nname: base\n")
        text = HEAD + "extends: [base, ./x.yaml]\n"
        with pytest.raises(PolicyError, match="`base` is also the name of `base`; choose another"):
            load(text, str(tmp_path / "p.yaml"), RUN, PACKS)

    def test_effective_policy_is_not_extended(self, tmp_path):
        (tmp_path / "e.yaml").write_text("schema: helm-sentry/effective-policy/v1\nname: e\n")
        with pytest.raises(PolicyError, match="an effective policy cannot be extended"):
            load(HEAD + "extends: [./e.yaml]\n", str(tmp_path / "p.yaml"))


class TestVariables:
    """The run's variables are literal paths, the file's own are text."""

    def test_special_characters_of_a_workspace_mean_themselves(self):
        text = rule("file: {do: [read], paths: ['${workspace}/*']}")
        policy = compile_policy(load(text, variables={"workspace": "/w/[a]*\n\udcff"}))
        assert decide(policy, Operation(Kind.FILE_READ, path="/w/[a]*\n\udcff/x")).allowed
        assert not decide(policy, Operation(Kind.FILE_READ, path="/w/axx/x")).allowed

    def test_a_workspace_that_is_the_root(self):
        policy = compile_policy(
            load(rule("file: {do: [read], paths: ['${workspace}/**']}"), variables={"workspace": "/"})
        )
        assert decide(policy, Operation(Kind.FILE_READ, path="/x")).allowed

    def test_variables_of_the_file_may_use_earlier_ones(self):
        head = HEAD + "variables: {data: '${workspace}/d', deep: '${data}/**'}\n"
        rules = "allow: [{id: it, file: {do: [read], paths: ['${deep}', '/$${x}/a${user}']}}]\n"
        policy = load(head + rules, variables=RUN)
        assert policy.allow[0].match.paths == ("/w/d/**", "/${x}/au")

    def test_hosts_and_addresses_may_use_variables(self):
        text = HEAD + "variables: {api: api.example.com, net: 10.0.0.0/8}\nallow:\n"
        policy = load(text + "  - {id: it, connect: {hosts: ['${api}'], addresses: ['${net}']}}\n")
        assert policy.allow[0].match == ConnectMatch(("api.example.com",), (ip_network("10.0.0.0/8"),))

    def test_variables_stay_small(self):
        doubling = ", ".join(f"v{n}: '${{v{n - 1}}}${{v{n - 1}}}'" for n in range(1, 40))
        with pytest.raises(PolicyError, match="longer than 65536 characters"):
            load(HEAD + f"variables: {{v0: xxxx, {doubling}}}\n")

    def test_environment_must_be_utf8(self):
        with pytest.raises(PolicyError, match=r"`/\\xff` is not utf-8, which only a path may be without"):
            load(HEAD + "environment: {set: {HOME: '${home}'}}", variables={"home": "/\udcff"})


class TestFiles:
    """Names of packs, paths of files."""

    def test_bare_name_is_a_pack(self):
        assert load_file("base", RUN).name == "base"

    def test_unknown_pack_lists_the_packs(self, tmp_path, monkeypatch):
        (tmp_path / "basis").touch()
        monkeypatch.chdir(tmp_path)
        with pytest.raises(
            PolicyError, match=r"unknown pack `basis`; .*there are base, .*; write `./basis` for a file"
        ):
            load_file("basis")

    def test_missing_file(self, tmp_path):
        with pytest.raises(PolicyError, match=r"cannot read `.*/p.yaml`: no such file or directory"):
            load_file(str(tmp_path / "p.yaml"))

    def test_file_that_is_not_utf8(self, tmp_path):
        path = tmp_path / "p.yaml"
        path.write_bytes(b"schema: x\nname: \xff\n")
        with pytest.raises(PolicyError) as caught:
            load_file(str(path))
        assert (caught.value.line, caught.value.column) == (2, 7)

    def test_file_that_is_too_large(self, tmp_path):
        path = tmp_path / "p.yaml"
        path.write_bytes(b"#" * 2_000_000)
        with pytest.raises(PolicyError, match="larger than 1024 KiB"):
            load_file(str(path))

    def test_pack_directory_is_a_mapping_of_texts(self):
        packs = shipped_packs()
        assert {"base", "python", "default"} <= set(packs)
        assert len(packs) == len(list(packs))
        assert packs["base"].startswith("# base:")
        assert packs.get("../policies/base") is None
        assert packs.get("nothing") is None
        assert dict(PackDirectory("/nowhere")) == {}


@given(strategies.policies())
def test_effective_policy_reads_back_equal(policy):
    plain = policy.canonical()
    data = dumps(plain)
    again = load(data.decode(), "policy.json")
    assert again == policy
    assert again.digest == policy.digest
    assert load(json.dumps(plain, indent=1), os.path.join("/runs", "policy.json")) == policy


@given(strategies.policies(), strategies.operations())
def test_effective_policy_decides_the_same(policy, operation):
    again = load(json.dumps(policy.canonical()), "policy.json")
    assert decide(compile_policy(again), operation) == decide(compile_policy(policy), operation)


def test_digest_is_that_of_the_canonical_json():
    policy = load_file("base", RUN)
    assert policy.digest == "sha256:" + hashlib.sha256(dumps(policy.canonical())).hexdigest()


def test_a_witness_that_one_policy_insists_on_stays():
    insisting = "schema: helm-sentry/policy/v1\nname: base\non_witness_gap: deny\n"
    own = "schema: helm-sentry/policy/v1\nname: own\nextends: [base]\n"
    assert load(own, "", RUN, {"base": insisting}).on_witness_gap == "deny"
    assert load(own + "on_witness_gap: record\n", "", RUN, {"base": insisting}).on_witness_gap == "deny"
    assert load("schema: helm-sentry/policy/v1\nname: own\n", "", RUN, {}).on_witness_gap == "record"
    with pytest.raises(PolicyError, match="unknown value `maybe`"):
        load(own + "on_witness_gap: maybe\n", "", RUN, {"base": insisting})
