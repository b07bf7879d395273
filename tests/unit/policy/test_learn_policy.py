"""What is learnt from logs, without a run."""

import pytest

from helm_sentry.audit import record
from helm_sentry.decision import Decision, Reason, Verdict
from helm_sentry.operation import Kind, Operation
from helm_sentry.policy import draft
from helm_sentry.policy.engine import compile_policy, decide
from helm_sentry.policy.learn import learn
from helm_sentry.policy.loader import load
from helm_sentry.policy.observation import read_log
from tests.unit.policy.runs import VARIABLES, asked, log, on

HEADER = "schema: helm-sentry/policy/v1\nname: learnt\nextends: [base]\n"


def learnt(*logs: list[bytes]):
    return learn([read_log(lines, number) for number, lines in enumerate(logs, 1)], HEADER)


def verdicts(text: str, *operations: Operation, variables=VARIABLES) -> list[Verdict]:
    compiled = compile_policy(load(text, "learnt.yaml", variables))
    return [decide(compiled, operation).verdict for operation in operations]


def reads(*paths: str, verb: str = "file.read") -> list[dict[str, object]]:
    return [asked("openat", on(verb, path)) for path in paths]


def test_nothing_seen_is_nothing_allowed() -> None:
    result = learnt(log())
    assert "allow: []" in draft.text(result)
    assert (result.once, result.guessed) == (0, 0)


def test_what_was_seen_is_allowed_and_no_more() -> None:
    text = draft.text(learnt(log(*reads("/srv/a", "/wksp/x", "/home/u/y", "/tmp/run/z"))))
    assert verdicts(text, on("file.read", "/srv/a"), on("file.read", "/srv/b"), on("file.write", "/srv/a")) == [
        "ALLOW", "DENY", "DENY",
    ]  # fmt: skip
    elsewhere = VARIABLES | {"workspace": "/w2", "home": "/h2", "tmp": "/t2"}
    seen = [on("file.read", path) for path in ("/w2/x", "/h2/y", "/t2/z", "/wksp/x")]
    assert verdicts(text, *seen, variables=elsewhere) == ["ALLOW", "ALLOW", "ALLOW", "DENY"]


def test_what_base_allows_is_not_repeated() -> None:
    assert "/etc/passwd" not in draft.text(learnt(log(*reads("/etc/passwd"))))


def test_seen_once_and_often() -> None:
    text = draft.text(learnt(log(*reads("/srv/a", "/srv/b", "/srv/b"))))
    assert "- /srv/a  # seen once: record 1 (openat)" in text
    assert "- /srv/b  # 2 times; first: record 2 (openat)" in text


def test_runs_are_told_apart() -> None:
    text = draft.text(learnt(log(*reads("/srv/a", "/srv/b")), log(*reads("/srv/a"))))
    assert "- /srv/a  # 2 times in 2 of 2 runs; first: run 1, record 1 (openat)" in text
    assert "- /srv/b  # seen once: run 1, record 2 (openat)" in text


def test_a_number_is_a_number_only_when_several_were_seen() -> None:
    assert "/srv/log.1234 " in draft.text(learnt(log(*reads("/srv/log.1234"))))
    text = draft.text(learnt(log(*reads("/srv/log.1234", "/srv/log.1235"))))
    assert "'/srv/log.[0-9]*'  # 2 times; first: record 1 (openat); `log.[0-9]*` for a number, confidence high" in text


def test_many_names_are_a_directory() -> None:
    text = draft.text(learnt(log(*reads(*(f"/wksp/in/{letter}" for letter in "abcdefgh")))))
    assert "'${workspace}/in/*'" in text
    assert "all in it: 8 names, confidence medium" in text
    nested = draft.text(learnt(log(*reads(*(f"/wksp/in/{letter}/x" for letter in "abcdefgh")))))
    assert "'${workspace}/in/**'" in nested


@pytest.mark.parametrize("directory", ["/etc", "/home/u", "/var/x", "/proc/7", "/srv"])
def test_shared_directories_are_never_one(directory: str) -> None:
    text = draft.text(learnt(log(*reads(*(f"{directory}/{letter * 2}" for letter in "abcdefghij")))))
    assert verdicts(text, on("file.read", f"{directory}/zz")) == ["DENY"]
    assert verdicts(text, on("file.read", f"{directory}/aa")) == ["ALLOW"]


@pytest.mark.parametrize(
    "operation",
    [
        on("file.read", "/home/u/.ssh/id_rsa"),
        on("file.read", "/wksp/.env"),
        on("file.read", "/etc/shadow"),
        on("file.write", "/home/u/.bashrc"),
        Operation(Kind.UNIX_CONNECT, path="/run/docker.sock"),
        Operation(Kind.NET_CONNECT, address="169.254.169.254", port=80, protocol="tcp"),
        Operation(Kind.NET_CONNECT, address="10.0.0.1", port=1, protocol="132"),
        Operation(Kind.KERNEL_MOUNT, name="mount"),
        Operation(Kind.PROCESS_SIGNAL, name="SIGTERM 1"),
    ],
)
def test_what_is_dangerous_is_listed_and_not_granted(operation: Operation) -> None:
    result = learnt(log(asked("x", operation)))
    text = draft.text(result)
    assert f"#   {operation.kind} {operation.target}: " in text
    assert verdicts(text, operation) == ["DENY"]
    assert len(result.withheld) == 1


def test_many_withheld_are_cut_short() -> None:
    text = draft.text(learnt(log(*reads(*(f"/wksp/{chr(0x4E00 + number)}.key" for number in range(203))))))
    assert "#   and 3 more" in text


def test_withheld_that_differ_in_a_number_are_one_line() -> None:
    text = draft.text(learnt(log(*reads(*(f"/proc/{number}/environ" for number in (1, 2, 37))))))
    assert "#   file.read /proc/1/environ and 2 like it: holds another process's memory; 3 times" in text


def test_a_secret_name_the_run_made_itself_is_granted() -> None:
    text = draft.text(learnt(log(asked("openat", on("file.create", "/wksp/own")), *reads("/wksp/own/a.key"))))
    assert verdicts(text, on("file.read", "/wksp/own/a.key")) == ["ALLOW"]


def test_a_directory_that_was_there_is_not_made_by_a_failed_mkdir() -> None:
    records = [asked("mkdir", on("file.create", "/wksp/keys")), record.outcome(1, "EEXIST"), *reads("/wksp/keys/a.key")]
    text = draft.text(learnt(log(*records)))
    assert verdicts(text, on("file.read", "/wksp/keys/a.key")) == ["DENY"]


def test_secrets_in_a_directory_stay_closed() -> None:
    text = draft.text(
        learnt(log(*reads(*(f"/wksp/{letter}" for letter in "abcdefgh"), *(f"/wksp/s/{c}" for c in "abc"))))
    )
    closed = [on("file.read", path) for path in ("/wksp/.env", "/wksp/s/id_rsa", "/wksp/s/.env.local")]
    assert verdicts(text, *closed, on("file.read", "/wksp/s/new")) == ["DENY", "DENY", "DENY", "ALLOW"]


def test_renames_are_not_refused_by_the_rules_for_secrets() -> None:
    renames = [asked("rename", on("file.rename", f"/wksp/{c}"), Operation(Kind.FILE_CREATE, path=f"/wksp/{c}2", directory=True), on("file.delete", f"/wksp/{c}2")) for c in "abcdefgh"]  # fmt: skip
    text = draft.text(learnt(log(*renames, *reads(*(f"/wksp/{c}/{c}" for c in "abcdefgh")))))
    assert verdicts(text, on("file.rename", "/wksp/a"), on("file.read", "/wksp/.env")) == ["ALLOW", "DENY"]
    assert "only directly in it, because files are renamed there" in text


def test_programs_are_named_and_made_ones_by_their_directory() -> None:
    execs = [
        asked("execve", on("exec", "/usr/bin/x")),
        asked("openat", on("file.create", "/wksp/made")),
        asked("execve", on("exec", "/wksp/made")),
    ]
    text = draft.text(learnt(log(*execs)))
    assert "- /usr/bin/x  #" in text
    assert "'${workspace}/**'  # seen once: record 3 (execve); made during the run, confidence medium" in text


def test_a_look_for_a_program_grants_no_exec() -> None:
    text = draft.text(learnt(log(asked("faccessat2", on("file.stat", "/opt/x"), on("exec", "/opt/x")))))
    assert verdicts(text, on("file.stat", "/opt/x"), on("exec", "/opt/x")) == ["ALLOW", "DENY"]


def test_network_rules_name_hosts_where_they_are_known() -> None:
    def to(address: str, **more: object) -> dict[str, object]:
        kind = more.pop("kind", Kind.NET_CONNECT)
        return asked("connect", Operation(kind, address=address, **({"port": 443, "protocol": "tcp"} | more)))

    text = draft.text(
        learnt(
            log(
                to("93.184.216.34", hosts=("example.com",)),
                to("93.184.216.35", hosts=("example.com",)),
                to("10.1.2.3"),
                to("127.0.0.1", own=True),
                to("127.0.0.1", own=True, port=5),
                to("10.0.0.53", kind=Kind.NET_SEND, port=53, protocol="udp"),
                to("127.0.0.1", kind=Kind.NET_BIND, port=0),
            )
        )
    )
    policy = load(text, "learnt.yaml", VARIABLES)
    assert [rule.match.canonical() for rule in policy.allow if "connect" in rule.match.canonical()][:1] == [
        {"connect": {"hosts": ["example.com"], "ports": ["443"], "protocols": ["tcp"]}}
    ]
    assert text.count("own: true") == 1
    assert "an address without a name" in text
    assert "a name server: whoever may ask it" in text
    assert "bind: {addresses: ['127.0.0.1'], ports: [0]" in text


def test_unix_sockets_are_named_by_verb() -> None:
    records = [
        asked("connect", Operation(Kind.UNIX_CONNECT, path="/wksp/s")),
        asked("bind", Operation(Kind.UNIX_BIND, path="/wksp/t")),
    ]
    policy = load(draft.text(learnt(log(*records))), "learnt.yaml", VARIABLES)
    assert [rule.id for rule in policy.allow if rule.id.startswith("sockets")] == ["sockets-connect", "sockets-bind"]


def test_an_enforced_run_teaches_what_was_allowed() -> None:
    allowed = Decision(Verdict.ALLOW, Reason.RULE, "other")
    records = [asked("openat", on("file.read", "/srv/a"), decision=allowed), asked("openat", on("file.read", "/srv/b"))]
    result = learnt(log(*records, enforcing=True))
    assert verdicts(draft.text(result), on("file.read", "/srv/a"), on("file.read", "/srv/b")) == ["ALLOW", "DENY"]
    assert "refused in the run too" in draft.text(result)


@pytest.mark.parametrize("name", ["a\n# x", "b'c", "${tmp}", "[x]*", "\udcff", "\x1b[2J", "a: b", "- c", "#d"])
def test_odd_names_stay_themselves(name: str) -> None:
    text = draft.text(learnt(log(*reads(f"/srv/{name}"))))
    assert verdicts(text, on("file.read", f"/srv/{name}"), on("file.read", "/srv/other")) == ["ALLOW", "DENY"]


def test_what_no_rule_decides_teaches_nothing() -> None:
    own = Decision(Verdict.ALLOW, Reason.BUILTIN, "sentry/own-processes")
    result = learnt(log(asked("kill", Operation(Kind.PROCESS_SIGNAL, name="SIGTERM"), decision=own)))
    assert "allow: []" in draft.text(result) and not result.withheld


def test_alike_directories_are_joined_with_what_is_in_them() -> None:
    text = draft.text(learnt(log(*reads("/srv/job.1000/in/x", "/srv/job.1001/in/x", "/srv/job.1001/in/y"))))
    assert "'/srv/job.[0-9]*/in/x'  # 2 times" in text
    assert verdicts(text, on("file.read", "/srv/job.7/in/x"), on("file.read", "/srv/job.7/z")) == ["ALLOW", "DENY"]


def test_one_rule_for_secrets_covers_what_lies_below() -> None:
    records = [*reads(*(f"/wksp/{c}" for c in "abcdefgh"), "/wksp/s/t/u")]
    records += [asked("openat", on("file.write", f"/wksp/s/{c}")) for c in "abcdefgh"]
    assert draft.text(learnt(log(*records))).count("- id: secrets-") == 1


def test_rules_of_the_same_name_are_numbered() -> None:
    ports = [asked("connect", Operation(Kind.NET_CONNECT, address="10.0.0.1", port=p, protocol="tcp")) for p in (1, 2)]
    names = [rule.id for rule in load(draft.text(learnt(log(*ports))), "learnt.yaml", VARIABLES).allow]
    assert names[-2:] == ["connect-10-0-0-1", "connect-10-0-0-1-2"]
