"""Two policies, or a policy and a run."""

from helm_sentry.decision import Decision, Reason, Verdict
from helm_sentry.operation import Kind, Operation
from helm_sentry.policy.compare import differences, replay, rule_changes
from helm_sentry.policy.loader import load
from helm_sentry.policy.model import Policy
from helm_sentry.policy.observation import read_log
from tests.unit.policy.runs import asked, log, on

HEAD = "schema: helm-sentry/policy/v1\nname: p\n"
ALLOWED = Decision(Verdict.ALLOW, Reason.RULE, "a")


def policy(text: str) -> Policy:
    return load(HEAD + text)


OLD = policy("allow: [{id: a, file: {do: [read], paths: [/a, /b]}}, {id: same, exec: {paths: [/x]}}]")
NEW = policy("allow: [{id: b, file: {do: [read], paths: [/b, /c]}}, {id: named, note: n, exec: {paths: [/x]}}]")


def test_rules_that_mean_the_same_are_the_same() -> None:
    added, removed = rule_changes(OLD, NEW)
    assert ([rule.id for rule in added], [rule.id for rule in removed]) == (["b"], ["a"])


def test_differences_on_samples_of_the_changed_rules() -> None:
    changes = {change.operation.path: change.after.verdict for change in differences(OLD, NEW)}
    assert changes == {"/a": Verdict.DENY, "/c": Verdict.ALLOW}
    assert all(change.times == 0 for change in differences(OLD, NEW))
    assert differences(OLD, OLD) == []


def test_differences_in_a_log_are_counted() -> None:
    own = asked("kill", Operation(Kind.PROCESS_SIGNAL, name="x"), decision=Decision(Verdict.ALLOW, Reason.BUILTIN, "s"))
    run = read_log(log(asked("openat", on("file.read", "/c")), asked("openat", on("file.read", "/c")), own))
    (change,) = [each for each in differences(OLD, NEW, run.observations) if each.times]
    assert (change.operation.path, change.times, change.seq) == ("/c", 2, 1)


def test_replay_names_what_would_be_otherwise() -> None:
    run = read_log(
        log(
            asked("openat", on("file.read", "/a"), decision=ALLOWED),
            asked("openat", on("file.read", "/a"), decision=ALLOWED),
            asked("openat", on("file.read", "/b"), decision=ALLOWED),
            asked("openat", on("file.read", "/c")),
            asked("rename", on("file.rename", "/b"), on("file.create", "/z"), decision=ALLOWED),
            asked(
                "kill", Operation(Kind.PROCESS_SIGNAL, name="x"), decision=Decision(Verdict.ALLOW, Reason.BUILTIN, "s")
            ),
        )
    )
    changes = {
        change.operation.target: (change.after.verdict, change.times, change.seq)
        for change in replay(NEW, run.observations)
    }
    assert changes == {"/a": (Verdict.DENY, 2, 1), "/c": (Verdict.ALLOW, 1, 4), "/b": (Verdict.DENY, 1, 5)}
