"""The command line over gRPC, from where there is nothing of the daemon's own; and who may do what."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from helm_sentry.rpc import sentry_pb2 as pb
from helm_sentry.rpc.sentry_pb2_grpc import SentryStub
from tests.kernel.conftest import Sandbox
from tests.kernel.daemons import ONCE, PATIENCE, Daemon, until
from tests.kernel.test_approvals import POLICY as ASKING
from tests.kernel.test_live_policy import BASE
from tests.kernel.test_rpc import certificates, files, free_port, guarded, policy_for, refusal

pytestmark = pytest.mark.kernel
__all__ = ["certificates", "files", "free_port", "guarded"]  # fixtures

Done = subprocess.CompletedProcess[str]


class Elsewhere:
    """Somebody whose own state directory is empty."""

    def __init__(self, daemon: Daemon, *options: str, user: int | None = None, program: str = "") -> None:
        self._daemon, self._options, self._user = daemon, options or ("--to", f"unix:{daemon.directory}/grpc"), user
        self._program = program or daemon.sandbox.command[0]

    def __call__(self, *words: str) -> Done:
        sandbox = self._daemon.sandbox
        verbs = 2 if words[0] in ("policy", "approvals") else 1
        argv = [self._program, *words[:verbs], *self._options, *words[verbs:]]
        environment = sandbox.environment() | {"XDG_STATE_HOME": f"{sandbox.root}/home/elsewhere"}
        identity = {} if self._user is None else {"user": self._user, "group": self._user, "extra_groups": []}
        process = sandbox.popen(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **identity)
        out, err = process.communicate(timeout=PATIENCE)
        return Done(argv, process.returncode, out, err)


def test_a_policy_is_pushed_granted_revoked_and_frozen_from_elsewhere(daemon, files):
    first, second = files
    agent, call = daemon.agent(policy_for(daemon, "first")), Elsewhere(daemon)
    assert [agent.read(first), agent.read(second)] == ["first", "Permission denied"]
    (shown,) = [json.loads(line) for line in call("ps", "--json").stdout.splitlines()]
    assert (shown["run"], shown["name"]) == (agent.run, "only-first")

    key = str(daemon.state / "keys/signing.key")
    refused = call("policy", "push", agent.run, str(policy_for(daemon, "second")))  # with a key of its own
    assert (refused.returncode, "signed by" in refused.stderr) == (125, True), refused.stderr
    assert agent.read(second) == "Permission denied"
    pushed = call("policy", "push", "--key", key, agent.run, str(policy_for(daemon, "second")))
    assert pushed.returncode == 0, pushed.stderr
    assert json.loads(pushed.stdout)["epoch"] == 1
    assert [agent.read(first), agent.read(second)] == ["Permission denied", "second"]

    extra = daemon.sandbox.policy(f"allow:\n  - {{id: x, file: {{do: [read], paths: [{first}]}}}}\n", name="extra")
    granted = call("policy", "grant", "--for", "1h", agent.run, str(extra))
    assert agent.read(first) == "first", granted.stderr
    assert call("policy", "revoke", agent.run, json.loads(granted.stdout)["grant"]).returncode == 0
    assert agent.read(first) == "Permission denied"
    assert call("policy", "freeze", agent.run).returncode == 0
    assert agent.read(second) == "Permission denied"
    assert call("kill", agent.run).returncode == 0
    assert agent.finish()[0] == -9
    applied = [record["by"] for record in agent.records("policy")]
    assert all(f"by grpc through process {daemon.process.pid}" in by for by in applied), applied
    assert agent.sandbox.verify(agent.directory).returncode == 0
    gone = call("policy", "freeze", agent.run)
    assert (gone.returncode, agent.run in gone.stderr) == (125, True)


@pytest.mark.parametrize(("verb", "answer"), [("approve", "a"), ("deny", "Permission denied")])
@ONCE
def test_a_question_is_answered_from_elsewhere(daemon, guarded, verb, answer):
    agent, call = daemon.agent(daemon.sandbox.policy(ASKING.format(root=daemon.sandbox.root))), Elsewhere(daemon)
    with ThreadPoolExecutor() as pool:
        waits = pool.submit(agent.read, guarded / "a")
        question = json.loads(until(lambda: call("approvals", "list", "--json").stdout))
        assert (question["run"], question["operations"]) == (agent.run, ["file.read"])
        assert not waits.done()
        answered = call("approvals", verb, f"{agent.run}/{question['question']}")
        assert (answered.returncode, str(guarded / "a") in answered.stdout) == (0, True), answered.stderr
        assert waits.result(PATIENCE) == answer


@ONCE
def test_what_cannot_be_reached_is_said(daemon):
    nobody = Elsewhere(daemon, "--to", f"unix:{daemon.directory}/nobody")("ps")
    assert (nobody.returncode, nobody.stdout) == (125, "")
    bare = Elsewhere(daemon, "--to", "localhost:1")("ps")
    assert (bare.returncode, "--tls-authority" in bare.stderr) == (2, True)


CALLERS = """
schema: helm-sentry/callers/v1
callers:
  - {{{who}, roles: [payments], may: [watch, {may}]}}
"""


SERVICE = pb.DESCRIPTOR.services_by_name["Sentry"]
EVERY_CALL = {method.name for method in SERVICE.methods}


def refused_calls(channel: grpc.Channel, run: str) -> set[str]:
    """The calls about a run that a caller may not make; the others tell nothing."""
    refused = set()
    for method in SERVICE.methods:
        request = getattr(pb, method.input_type.name)()
        for name, value in (("run", run), ("choice", pb.ONCE), ("number", 1)):
            if name in method.input_type.fields_by_name and method.name != "ListApprovals":
                setattr(request, name, value)
        answer = getattr(SentryStub(channel), method.name)
        try:
            told = list(answer(request)) if method.server_streaming else answer(request)
            assert not told or not told.ByteSize(), method.name
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.PERMISSION_DENIED, (method.name, error)
            refused.add(method.name)
    return refused


def agent_with_role(daemon: Daemon, role: str, policy: str = BASE):
    text = f"agent: {{role: {role}}}\n" + policy.format(root=daemon.sandbox.root, name="first")
    return daemon.agent(daemon.sandbox.policy(text, name=f"role-{role}"))


@pytest.fixture
def limited(sandbox: Sandbox, request: pytest.FixtureRequest) -> Iterator[Daemon]:
    """A daemon with a list of callers."""
    if sandbox.uid:
        request.getfixturevalue("daemon_installation")
    callers = sandbox.root / "callers.yaml"
    made: list[Daemon] = []

    def begin(who: str, may: str, *options: str) -> Daemon:
        callers.write_text(CALLERS.format(who=who, may=may))
        made.append(Daemon(sandbox, "--callers", str(callers), *options))
        return made[-1]

    yield begin
    for each in made:
        each.close()


@ONCE
def test_a_certificate_may_do_what_its_list_says_to_agents_of_its_roles(limited, certificates, free_port):
    address = f"localhost:{free_port}"
    served = {"certificate": "localhost.pem", "key": "localhost.key", "callers": "ca.pem"}
    options = [word for name, file in served.items() for word in (f"--tls-{name}", str(certificates / file))]
    daemon = limited("certificates: [alice]", "freeze", "--tls", address, *options)
    payments, other = agent_with_role(daemon, "payments"), agent_with_role(daemon, "research")

    def caller(name: str) -> Elsewhere:
        own = {"authority": "ca.pem", "certificate": f"{name}.pem", "key": f"{name}.key"}
        words = [word for kind, file in own.items() for word in (f"--tls-{kind}", str(certificates / file))]
        return Elsewhere(daemon, "--to", address, *words)

    alice, localhost = caller("alice"), caller("localhost")  # the authority vouches for both
    assert [json.loads(line)["run"] for line in alice("ps", "--json").stdout.splitlines()] == [payments.run]
    assert localhost("ps", "--json").stdout == ""
    assert alice("policy", "freeze", payments.run).returncode == 0
    for refused in (
        alice("policy", "freeze", other.run),
        alice("kill", payments.run),
        localhost("policy", "freeze", payments.run),
    ):
        assert (refused.returncode, "may not" in refused.stderr) == (125, True), refused
    assert daemon.stub.Freeze(pb.FreezeRequest(run=other.run)).epoch == 1  # the daemon's user may
    pair = [(certificates / f"localhost.{end}").read_bytes() for end in ("key", "pem")]
    credentials = grpc.ssl_channel_credentials((certificates / "ca.pem").read_bytes(), *pair)
    with grpc.secure_channel(address, credentials) as channel:
        assert refused_calls(channel, payments.run) == EVERY_CALL - {"List", "ListApprovals"}
    assert payments.finish()[0] == 0
    (frozen,) = payments.records("policy")
    assert frozen["by"].startswith("alice at ")


@ONCE
def test_another_user_may_do_what_the_list_says(limited, guarded, request):
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    program = str(request.getfixturevalue("daemon_installation"))
    daemon = limited("users: [daemon]", "approve")
    for directory in (daemon.sandbox.root, daemon.state, daemon.directory):
        directory.chmod(0o711)
    (daemon.directory / "grpc").chmod(0o666)
    named, stranger = (Elsewhere(daemon, user=uid, program=program) for uid in (1, 2))
    payments = agent_with_role(daemon, "payments", ASKING)
    with ThreadPoolExecutor() as pool:
        waits = pool.submit(payments.read, guarded / "a")
        question = json.loads(until(lambda: named("approvals", "list", "--json").stdout))
        assert stranger("approvals", "list").returncode == 125  # is turned away
        refused = named("policy", "freeze", payments.run)
        assert "`daemon` may not freeze an agent of role `payments`" in refused.stderr
        approved = named("approvals", "approve", f"{payments.run}/{question['question']}")
        assert approved.returncode == 0, approved.stderr
        assert waits.result(PATIENCE) == "a"
    payments.finish()
    (recorded,) = payments.records("approval")
    assert recorded["by"].startswith("daemon")
    assert "not the user of this run" in daemon.log.read_text()


@ONCE
def test_who_leaves_the_list_may_nothing_from_then_on(limited, certificates, guarded, free_port):
    """Among them one with a connection, and one who may answer for another rule only; a list that is none changes nothing."""
    address = f"localhost:{free_port}"
    served = {"certificate": "localhost.pem", "key": "localhost.key", "callers": "ca.pem"}
    options = [word for name, file in served.items() for word in (f"--tls-{name}", str(certificates / file))]
    daemon = limited("certificates: [alice], rules: [ask]", "approve", "--tls", address, *options)
    agent = agent_with_role(daemon, "payments", ASKING)
    callers = daemon.sandbox.root / "callers.yaml"
    first = callers.read_text()

    def read_again(text: str, saying: str) -> None:
        before = daemon.log.read_text().count(saying)
        callers.write_text(text)
        daemon.process.send_signal(signal.SIGHUP)
        until(lambda: daemon.log.read_text().count(saying) > before, saying)

    pair = [(certificates / f"alice.{end}").read_bytes() for end in ("key", "pem")]
    credentials = grpc.ssl_channel_credentials((certificates / "ca.pem").read_bytes(), *pair)
    with grpc.secure_channel(address, credentials) as channel, ThreadPoolExecutor() as pool:
        stub = SentryStub(channel)
        waits = pool.submit(agent.read, guarded / "a")
        (question,) = until(lambda: stub.ListApprovals(pb.ListApprovalsRequest()).questions)
        answer = pb.AnswerApprovalRequest(run=agent.run, number=question.number, choice=pb.ONCE)
        read_again(first.replace("[ask]", "[other]"), "was read again")
        refused = refusal(stub.AnswerApproval, answer)
        assert "may not answer rule `ask` of an agent of role `payments`" in refused.details()
        read_again(first.replace("alice", "bob"), "was read again")
        assert refusal(stub.AnswerApproval, answer).code() is grpc.StatusCode.PERMISSION_DENIED
        assert not stub.ListApprovals(pb.ListApprovalsRequest()).questions
        read_again("callers: everybody", "stays as it was")
        assert refusal(stub.AnswerApproval, answer).code() is grpc.StatusCode.PERMISSION_DENIED
        read_again(first, "was read again")
        assert stub.AnswerApproval(answer).number == question.number
        assert waits.result(PATIENCE) == "a"
        assert "no question" in refusal(stub.AnswerApproval, answer).details()
