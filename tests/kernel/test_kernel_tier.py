"""The kernel tier natively: reading that Landlock holds is not notified, and is in the log as what was opened.

Each denial has its control: the same act succeeds without the supervisor.
"""

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helm_sentry.operation import Kind, Operation
from helm_sentry.policy.engine import compile_policy, decide
from helm_sentry.policy.loader import load
from helm_sentry.sensor import loader
from helm_sentry.standalone.assemble import assemble
from tests.kernel.conftest import SYSTEM_PYTHON, Result, Sandbox
from tests.kernel.test_witness import InTheMiddle, gaps, last_account, require_receipt_of_the_gap

pytestmark = pytest.mark.kernel

ATTEMPTS = 10  # where both threads share a processor, no swap comes in between


def verified_alone(result: Result) -> bool:
    """Whether the verifier in one file accepts a run."""
    assert result.directory
    arguments = [str(result.directory), "--public-key", str(result.directory / "public.key")]
    done = subprocess.run([sys.executable, "-I", "-", *arguments], input=assemble(), check=False)
    return done.returncode == 0


KERNEL = ("--tier", "kernel")

RULES = """allow:
  - {id: names, file: {do: [stat], paths: ['/**']}}
  - {id: system, file: {do: [read, list], paths: ['/usr/**']}}
  - {id: settings, file: {do: [read], paths: [/etc/ld.so.cache, /etc/passwd, /dev/null]}}
  - {id: programs, exec: {paths: ['/usr/bin/**']}}
  - {id: workspace, file: {do: [all], paths: ['${workspace}/**']}}
"""


@pytest.fixture(autouse=True)
def only_root(sandbox: Sandbox) -> None:
    if sandbox.uid:
        pytest.skip("the kernel tier is root's; what others are told is tested below")


@pytest.fixture
def policy(sandbox: Sandbox, victims: Path) -> Path:
    more = f"  - {{id: victims, exec: {{paths: ['{victims}/**']}}}}\n"
    more += f"  - {{id: victims-as-files, file: {{do: [read], paths: ['{victims}/**']}}}}\n"
    return sandbox.policy(RULES + more)


def run(sandbox: Sandbox, policy: Path, *command: str, **options: Any) -> Result:
    result = sandbox.run(command, policy, options=KERNEL, **options)
    assert result.directory is not None, result.stderr
    plan = json.loads((result.directory / "plan.json").read_text())
    assert plan["held"]["file.read"] == plan["held"]["file.list"] == {"by": "kernel"}, plan["held"]["file.read"]
    return result


def by_kernel(result: Result) -> list[dict[str, Any]]:
    return [r for r in result.records if r.get("action") == "kernel"]


def test_what_was_opened_is_in_the_log_whatever_the_name_was(sandbox: Sandbox, policy: Path) -> None:
    place = sandbox.workspace
    (place / "sub").mkdir()
    (place / "sub" / "file").write_text("x")
    (place / "link").symlink_to("sub/file")
    os.link(place / "sub/file", place / "hard")
    program = (
        "import os\n"
        "for name in ('sub/file', './sub/../sub/file', 'link', '/proc/self/cwd/sub/file', 'hard', 'sub'):\n"
        "    os.open(name, os.O_RDONLY)\n"
        "at = os.open('sub', os.O_RDONLY | os.O_DIRECTORY)\n"
        "os.open('file', os.O_RDONLY, dir_fd=at); os.chdir('sub'); os.open('file', os.O_RDONLY)\n"
    )
    result = run(sandbox, policy, SYSTEM_PYTHON, "-c", program)
    assert result.status == 0, result.stderr
    found = [r for r in by_kernel(result) if r["target"].startswith(str(place))]
    status = (place / "sub/file").stat()
    real = [(str(place / "sub/file"), ["file.read"])] * 4
    listed = (str(place / "sub"), ["file.list"])
    hard = (str(place / "hard"), ["file.read"])
    assert [(r["target"], r["ops"]) for r in found] == [*real, hard, listed, listed, *real[:2]]
    assert {r["object"] for r in found if r["ops"] == ["file.read"]} == {f"{status.st_dev:x}:{status.st_ino:x}"}
    assert {(r["verdict"], r["rule"]) for r in found} == {("ALLOW", "workspace")}
    assert not gaps(result)


def test_names_of_any_length_and_many_descriptors(sandbox: Sandbox, policy: Path) -> None:
    """The kernel keeps short names and the first descriptors elsewhere than the others."""
    names = [letter * length for letter, length in zip("abcdefgh", (1, 31, 32, 33, 39, 40, 41, 255), strict=True)]
    for name in names:
        (sandbox.workspace / name).mkdir()
        (sandbox.workspace / name / name).write_text("x")
    program = (
        "import os, sys\n"
        "for count in range(40):\n"
        "    for name in sys.argv[1:]: os.open(f'{name}/{name}', os.O_RDONLY)\n"
    )
    result = run(sandbox, policy, SYSTEM_PYTHON, "-c", program, *names)
    assert result.status == 0, result.stderr
    found = [r["target"] for r in by_kernel(result) if r["target"].startswith(str(sandbox.workspace))]
    assert found == [str(sandbox.workspace / name / name) for name in names] * 40
    assert not gaps(result)


def test_an_allowed_open_is_not_notified_and_all_are_counted(sandbox: Sandbox, policy: Path, victims: Path) -> None:
    data = sandbox.workspace / "data"
    data.write_text("x")
    few, many = (
        last_account(run(sandbox, policy, str(victims / "tier_opens"), "many", "data", str(count)))
        for count in (1, 5001)
    )
    assert many["log"]["received"] == few["log"]["received"]
    assert many["kernel"]["held"] - few["kernel"]["held"] == many["log"]["held"] - few["log"]["held"] == 5000


def test_every_open_has_its_record_and_the_run_verifies(sandbox: Sandbox, policy: Path, victims: Path) -> None:
    (sandbox.workspace / "data").write_text("x")
    result = run(sandbox, policy, str(victims / "tier_opens"), "many", "data", "5000")
    opened = [r for r in by_kernel(result) if r["target"] == str(sandbox.workspace / "data")]
    assert len(opened) == 5000
    assert result.directory is not None
    checked = sandbox.verify(result.directory)
    assert checked.returncode == 0, checked.stderr
    assert verified_alone(result)
    account = last_account(result)
    counted = account["kernel"]["finished"] + account["kernel"]["carried"]
    last = (result.directory / "checkpoints").read_text().split("\n\n")[-2].splitlines()
    assert last[-1] == f"witness {counted} {account['log']['received']}"


ATTACKS = {
    "a path": "rd('{secret}')",
    "a link": "os.symlink('{secret}', 'l'); rd('l')",
    "dots": "rd('{workspace}/../secret')",
    "the root of a process": "rd('/proc/self/root{secret}')",
    "a path descriptor": "rd('/proc/self/fd/%d' % os.open('{secret}', os.O_PATH))",
    "a descriptor of the directory": "rd('secret', dir_fd=os.open('{root}', os.O_PATH))",
    "the working directory": "os.chdir('{root}'); rd('secret')",
    "another's memory": "os.open('/proc/{parent}/mem', os.O_RDONLY)",
    "another's environment": "rd('/proc/{parent}/environ')",
    "a truncation by a read-only open": "os.open('/usr/bin/env', os.O_RDONLY | os.O_TRUNC)",
    "a new file by a read-only open": "os.open('{root}/new', os.O_RDONLY | os.O_CREAT)",
    "a file without a name": "os.open('{root}', os.O_TMPFILE | os.O_RDWR)",
    "writing": "os.open('/etc/passwd', os.O_WRONLY)",
    "a listing": "os.listdir('{root}')",
    "a listing without its flag": "os.open('{root}', os.O_RDONLY)",
    "a device": "rd('/dev/zero')",
    "high bits in the flags": "syscall(257, -100, b'{secret}', 1 << 40, 0)",
    "openat2": "syscall(437, -100, b'{secret}', bytes(24), 24)",
}
RACE = """import os, threading
def flip():
    while True:
        for target in ('data', SECRET):
            os.symlink(target, 'new'); os.rename('new', 'link')
os.symlink('data', 'link')
threading.Thread(target=flip, daemon=True).start()
found = set()
for _ in range(3000):
    try: found.add(open('link').read())
    except OSError: found.add('refused')
print(*sorted(found), flush=True)
os._exit(0)
"""

HEAD = """import ctypes, os, sys
def rd(path, **more): os.read(os.open(path, os.O_RDONLY, **more), 1)
def syscall(*words):
    if ctypes.CDLL(None, use_errno=True).syscall(*map(arg, words)) < 0: raise OSError(ctypes.get_errno(), "")
def arg(word): return word if isinstance(word, bytes) else ctypes.c_long(word)
try:
    %s
except OSError as error: sys.exit(3)
"""


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks(sandbox: Sandbox, policy: Path, attack: str) -> None:
    secret = sandbox.root / "secret"
    secret.write_text("secret")
    act = ATTACKS[attack].replace("{secret}", str(secret)).replace("{root}", str(sandbox.root))
    act = act.replace("{workspace}", str(sandbox.workspace)).replace("{parent}", "%d")
    program = HEAD % act.replace("'/proc/%d/", "'/proc/%d/' % parent() + '") if "%d/" in act else HEAD % act
    program = program.replace("parent()", "int(open('parent').read())")
    natively = program.replace("/usr/bin/env", str(secret)).replace("/etc/passwd", str(secret))
    (sandbox.workspace / "parent").write_text(str(os.getpid()))
    control = sandbox.native([SYSTEM_PYTHON, "-c", natively])
    assert control.status == 0, control.stderr
    for name in ("l", "new"):
        (sandbox.workspace / name).unlink(missing_ok=True)
        (sandbox.root / name).unlink(missing_ok=True)
    result = run(sandbox, policy, SYSTEM_PYTHON, "-c", program)
    assert result.status == 3, (result.status, result.stderr)
    assert result.denials()
    assert not gaps(result)


def test_a_link_that_changes_leads_nowhere_else(sandbox: Sandbox, policy: Path) -> None:
    secret = sandbox.root / "secret"
    secret.write_text("secret")
    (sandbox.workspace / "data").write_text("data")
    program = RACE.replace("SECRET", repr(str(secret)))
    assert sandbox.native([SYSTEM_PYTHON, "-c", program]).stdout.split() == ["data", "secret"]
    for name in ("link", "new"):  # whichever the end has caught the control at
        (sandbox.workspace / name).unlink(missing_ok=True)
    result = run(sandbox, policy, SYSTEM_PYTHON, "-c", program)
    assert result.stdout.split() == ["data", "refused"], result.stderr
    assert str(secret) not in {r["target"] for r in by_kernel(result)}


def test_what_the_kernel_opens_beyond_every_rule_is_a_gap(sandbox: Sandbox, policy: Path) -> None:
    """Landlock has no say about namespaces, which are no files; entering one stays denied."""
    program = "import os; os.open('/proc/self/ns/net', os.O_RDONLY)"
    result = run(sandbox, policy, SYSTEM_PYTHON, "-c", program)
    assert gaps(result) == {"beyond"}
    require_receipt_of_the_gap(sandbox, result)


def test_a_swapped_descriptor_hides_nothing(sandbox: Sandbox, policy: Path, victims: Path) -> None:
    """Another thread puts one file in the place of the other before the kernel is asked what was opened."""
    for name in ("one", "other"):
        (sandbox.workspace / name).write_text(name)
    for _ in range(ATTEMPTS):
        result = run(sandbox, policy, str(victims / "tier_opens"), "swap", "one", "other", "2")
        assert result.status == 0, result.stderr
        opened = int(result.stdout)
        mine = [r for r in by_kernel(result) if Path(r["target"]).parent == sandbox.workspace]
        wrong = [r for r in mine if r["target"].endswith("other")][1:]  # the first is the thread's own
        unsure = [r for r in result.records if "another thread" in r.get("detail", "")]
        print(f"{opened} opens, {len(wrong)} named the other file, {len(unsure)} are not sure")
        if unsure:
            break
    else:
        pytest.fail("the race was never run")
    assert all("another thread" in r.get("detail", "") for r in wrong)
    kernel = last_account(result)
    assert kernel["kernel"]["held"] == kernel["log"]["held"] >= opened


def test_a_full_ring_buffer_is_a_gap_and_ends_the_run_of_a_policy_that_insists(sandbox: Sandbox, victims: Path) -> None:
    """While the supervisor is stopped nobody reads, and the agent needs nobody for its opens."""
    (sandbox.workspace / "data").write_text("x")
    rules = f"  - {{id: v, exec: {{paths: ['{victims}/**']}}}}\n  - {{id: f, file: {{do: [read], paths: ['{victims}/**']}}}}\n"
    policy = sandbox.policy(RULES + rules + "on_witness_gap: deny\n")
    count = loader.OPEN_BYTES // 80  # a record of it has 48 bytes, the path and 8 of the buffer's own
    middle = InTheMiddle(sandbox, [str(victims / "tier_opens"), "wait", "data", str(count)], policy, options=KERNEL)
    result = middle.finish(unread=True)
    assert result.status == 125, result.stderr
    assert "lost-opens" in gaps(result)
    require_receipt_of_the_gap(sandbox, result)


def test_a_policy_that_the_kernel_cannot_hold_stays_with_the_broker(sandbox: Sandbox) -> None:
    result = sandbox.run(["cat", "/etc/passwd"], options=KERNEL)
    assert result.status == 0, result.stderr
    assert not by_kernel(result)
    assert result.directory is not None
    held = json.loads((result.directory / "plan.json").read_text())["held"]["file.read"]
    assert any("which processes are the run's own" in reason for reason in held["because"])


def test_without_the_witness_there_is_no_kernel_tier(sandbox: Sandbox, policy: Path) -> None:
    result = sandbox.run(["true"], policy, options=[*KERNEL, "--no-witness"])
    assert result.status == 125
    assert "the kernel tier has its log from the witness" in result.stderr


@pytest.mark.parametrize("seed", range(4))
def test_the_kernel_allows_what_decide_allows(sandbox: Sandbox, seed: int) -> None:
    """Random rules over a random tree: what can be opened is what the policy allows, by path and by link."""
    dice = random.Random(seed)
    places = list(_tree(sandbox.workspace, dice))
    chosen = dice.sample(places, 6)
    paths = [f"'{path}/**'" if dice.random() < 0.7 else f"'{path}'" for path in chosen]
    rules = RULES.replace(
        "file: {do: [all], paths: ['${workspace}/**']}", f"file: {{do: [read], paths: [{', '.join(paths)}]}}"
    )
    lists = ", ".join(f"'{path}/**'" for path in dice.sample([p for p in places if p.is_dir()], 3))
    rules += f"  - {{id: lists, file: {{do: [list], paths: [{lists}]}}}}\n"
    policy = sandbox.policy(rules)
    program = "import os, sys\nfor name in sys.argv[1:]:\n    try: os.open(name, os.O_RDONLY); print(1)\n    except OSError: print(0)\n"
    result = run(sandbox, policy, SYSTEM_PYTHON, "-c", program, *map(str, places))
    compiled = compile_policy(load(policy.read_text(), variables={"workspace": str(sandbox.workspace)}))
    assert result.stdout.split() == [str(int(_allowed(compiled, place))) for place in places]
    assert "1" in result.stdout
    assert "0" in result.stdout
    assert not gaps(result)


def _allowed(compiled: Any, path: Path) -> bool:
    real = path.resolve()
    kind = Kind.FILE_LIST if real.is_dir() else Kind.FILE_READ
    return decide(compiled, Operation(kind, path=str(real))).allowed


def _tree(root: Path, dice: random.Random) -> Iterator[Path]:
    directories = [root]
    for number in range(12):
        made = dice.choice(directories) / f"d{number}"
        made.mkdir()
        directories.append(made)
    files = [dice.choice(directories) / f"f{number}" for number in range(25)]
    for file in files:
        file.write_text(file.name)
    links = [dice.choice(directories) / f"l{number}" for number in range(10)]
    for link in links:
        link.symlink_to(dice.choice([*files, *directories]))
    return iter([*directories[1:], *files, *links])


def test_what_the_kernel_holds_cannot_change_in_a_run(sandbox: Sandbox, policy: Path) -> None:
    """A Landlock domain stays as it is: a freeze would not be one, and says so; other rules can change."""
    before = set(sandbox.runs())
    process = sandbox.popen(
        sandbox.argv(["sh", "-c", "echo ready; read go"], policy, KERNEL),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    (directory,) = set(sandbox.runs()) - before
    frozen = _live(sandbox, "policy", "freeze", directory.name)
    assert frozen.returncode != 0
    assert "the kernel holds `file.list` and `file.read`" in frozen.stderr
    text = policy.read_text()
    narrower = sandbox.policy(text.replace("/etc/passwd, ", "").partition("name: test\n")[2], name="narrower")
    other = sandbox.policy(
        text.replace("do: [all]", "do: [read, list, write]").partition("name: test\n")[2], name="other"
    )
    refused = _live(sandbox, "policy", "push", directory.name, str(narrower))
    assert refused.returncode != 0
    assert "needs a new run" in refused.stderr
    pushed = _live(sandbox, "policy", "push", directory.name, str(other))
    assert pushed.returncode == 0, pushed.stderr
    _, err = process.communicate("go\n", timeout=60)
    assert process.returncode == 0, err


def _live(sandbox: Sandbox, *arguments: str) -> subprocess.CompletedProcess[str]:
    process = sandbox.popen([*sandbox.command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)
